//! Mamba-2 (Dao & Gu, Transformers are SSMs, 2024): a state space whose step size and inputs depend on
//! the token.

use crate::mlx::recurrent::{GatedNorm, Recurrence, RecurrentHeads};
use crate::mlx::{Array, Dtype, MlxError};
use crate::models::batch::Batch;
use crate::models::builder::Builder;
use crate::models::config::dimension;
use crate::models::{LoadError, StateSize};

use super::{Convolution, Linear, Mixer};

/// How a layer is divided.
#[derive(Debug, Clone, Copy)]
pub struct MambaConfig {
    /// Features that come in and go out.
    pub hidden: i32,
    /// Heads.
    pub heads: u64,
    /// Features of a head.
    pub head_dim: u64,
    /// Groups of heads that share their keys and queries (in the paper's letters B and C).
    pub groups: u64,
    /// Features of a key.
    pub state: u64,
    /// Tokens that the convolution sees.
    pub taps: u64,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// Whether the projections have one.
    pub proj_bias: bool,
    /// Bounds of the step size.
    pub limits: (f32, f32),
    /// Of the normalization.
    pub eps: f32,
    /// Whether each group is normalized by itself.
    pub norm_by_group: bool,
}

/// A layer of it. The state is the convolution's and, as part 1, a matrix for each head.
pub struct Mamba {
    in_proj: Linear,
    conv: Convolution,
    space: Recurrence,
    norm: GatedNorm,
    out_proj: Linear,
    heads: i32,
    key_dim: i32,
    head_dim: i32,
    /// Features of the gate, then of the convolution.
    inner: i32,
    mixed: i32,
}

impl Mamba {
    /// Takes `in_proj`, `conv1d`, `A_log`, `dt_bias`, `D`, `norm` and `out_proj` under `path`.
    pub fn build(
        builder: &mut Builder<'_, '_>,
        path: &str,
        config: &MambaConfig,
    ) -> Result<Self, LoadError> {
        let heads = dimension("the number of Mamba heads", config.heads)?;
        let head_dim = dimension("the features of a Mamba head", config.head_dim)?;
        let groups = dimension("n_groups", config.groups)?;
        let key_dim = dimension("the state size", config.state)?;
        let taps = dimension("conv_kernel", config.taps)?;
        if heads % groups != 0 {
            let message = format!("{heads} heads cannot share {groups} groups evenly");
            return Err(LoadError::config("n_groups", message));
        }
        let inner = heads as u64 * head_dim as u64;
        let keys = groups as u64 * key_dim as u64;
        let mixed = dimension("the state size", inner + 2 * keys)?;
        let all = dimension("the state size", 2 * inner + 2 * keys + heads as u64)?;
        let inner = inner as i32;
        let in_proj = format!("{path}.in_proj");
        let in_proj = builder.linear(&in_proj, config.hidden, all, config.proj_bias)?;
        let mut vector = |name: &str, size| builder.vector(&format!("{path}.{name}"), size);
        let space = Recurrence::state_space(
            &vector("A_log", heads)?,
            &vector("dt_bias", heads)?,
            &vector("D", heads)?,
            config.limits,
            RecurrentHeads {
                keys: groups,
                key_dim,
                value_dim: head_dim,
            },
        )?;
        let norm_size = if config.norm_by_group {
            inner / groups
        } else {
            inner
        };
        let norm = GatedNorm::new(&vector("norm.weight", inner)?, config.eps, norm_size, true)?;
        let conv = format!("{path}.conv1d");
        let out_proj = format!("{path}.out_proj");
        Ok(Self {
            in_proj,
            conv: Convolution::build(builder, &conv, mixed, taps, config.conv_bias, true)?,
            space,
            norm,
            out_proj: builder.linear(&out_proj, inner, config.hidden, config.proj_bias)?,
            heads,
            key_dim,
            head_dim,
            inner,
            mixed,
        })
    }

    /// All but the last projection.
    fn mix(&self, x: &Array, batch: &mut Batch<'_, '_>, layer: usize) -> Result<Array, MlxError> {
        let projected = self.in_proj.forward(x)?;
        let tokens = x.dim(0);
        let part = |from: i32, width: i32| projected.slice(&[0, from], &[tokens, from + width]);
        let gate = part(0, self.inner)?;
        let dt = part(self.inner + self.mixed, self.heads)?;
        let mixed = part(self.inner, self.mixed)?;
        let mixed = self.conv.forward(&mixed, batch, layer)?;
        let state = [self.heads, self.key_dim, self.head_dim];
        let out = batch.advance(layer, 1, (&state, Dtype::Float32), |carried| {
            self.space.forward(&mixed, &[&dt], carried)
        })?;
        self.norm.forward(&out, &gate)
    }
}

impl Mixer for Mamba {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        self.out_proj.forward(&self.mix(x, batch, layer)?)
    }

    fn forward_add(
        &self,
        x: &Array,
        residual: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        let mixed = self.mix(x, batch, layer)?;
        self.out_proj.forward_add(&mixed, residual)
    }

    fn add_state(&self, size: &mut StateSize) {
        self.conv.add_state(size);
        let matrix = self.key_dim as u64 * self.head_dim as u64;
        size.fixed += 4 * self.heads as u64 * matrix;
    }
}
