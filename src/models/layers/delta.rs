//! Gated delta networks (Yang, Kautz & Hatamizadeh, 2024): linear attention whose state forgets, and
//! replaces what it holds for a key.

use crate::mlx::recurrent::{GatedNorm, Recurrence, RecurrentHeads};
use crate::mlx::{Array, Dtype, MlxError};
use crate::models::batch::Batch;
use crate::models::builder::Builder;
use crate::models::config::dimension;
use crate::models::{LoadError, StateSize};

use super::{Convolution, Linear, Mixer};

/// The fields of `config.json`, by their names there.
#[derive(Debug, Clone, Copy)]
pub struct DeltaConfig {
    /// `hidden_size`.
    pub hidden: i32,
    /// `linear_num_key_heads`.
    pub key_heads: u64,
    /// `linear_num_value_heads`.
    pub value_heads: u64,
    /// `linear_key_head_dim`.
    pub key_dim: u64,
    /// `linear_value_head_dim`.
    pub value_dim: u64,
    /// `linear_conv_kernel_dim`.
    pub taps: u64,
    /// `rms_norm_eps`.
    pub eps: f32,
}

/// How the projections of a token lie in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeltaInputs {
    /// `in_proj_qkv`, `in_proj_z`, `in_proj_b` and `in_proj_a`.
    Apart,
    /// `in_proj_qkvz` and `in_proj_ba`, key head by key head.
    ByKeyHeads,
}

/// Queries, keys and values behind one another, the gate of the result, and the two of the state.
struct Projected {
    mixed: Array,
    gate: Array,
    a: Array,
    b: Array,
}

enum Projections {
    Apart {
        mixed: Linear,
        gate: Linear,
        a: Linear,
        b: Linear,
    },
    ByKeyHeads {
        all: Linear,
        gates: Linear,
    },
}

/// A layer of it. The state is the convolution's and, as part 1, a matrix for each value head.
pub struct GatedDelta {
    inputs: Projections,
    conv: Convolution,
    rule: Recurrence,
    norm: GatedNorm,
    out_proj: Linear,
    heads: RecurrentHeads,
    value_heads: i32,
}

impl GatedDelta {
    /// Takes the projections, `conv1d`, `A_log`, `dt_bias`, `norm` and `out_proj` under `path`.
    pub fn build(
        builder: &mut Builder<'_, '_>,
        path: &str,
        inputs: DeltaInputs,
        config: &DeltaConfig,
    ) -> Result<Self, LoadError> {
        let value_heads = dimension("linear_num_value_heads", config.value_heads)?;
        let heads = RecurrentHeads {
            keys: dimension("linear_num_key_heads", config.key_heads)?,
            key_dim: dimension("linear_key_head_dim", config.key_dim)?,
            value_dim: dimension("linear_value_head_dim", config.value_dim)?,
        };
        if value_heads % heads.keys != 0 {
            let message = format!("{value_heads} cannot share {} key heads evenly", heads.keys);
            return Err(LoadError::config("linear_num_value_heads", message));
        }
        let keys = heads.keys as u64 * heads.key_dim as u64;
        let values = value_heads as u64 * heads.value_dim as u64;
        let mixed = dimension("linear_key_head_dim", keys.saturating_mul(2) + values)?;
        let all = dimension("linear_value_head_dim", mixed as u64 + values)?;
        let (values, hidden) = (values as i32, config.hidden);
        let taps = dimension("linear_conv_kernel_dim", config.taps)?;
        let mut linear =
            |name: &str, outputs| builder.linear(&format!("{path}.{name}"), hidden, outputs, false);
        let inputs = match inputs {
            DeltaInputs::Apart => Projections::Apart {
                mixed: linear("in_proj_qkv", mixed)?,
                gate: linear("in_proj_z", values)?,
                a: linear("in_proj_a", value_heads)?,
                b: linear("in_proj_b", value_heads)?,
            },
            DeltaInputs::ByKeyHeads => Projections::ByKeyHeads {
                all: linear("in_proj_qkvz", all)?,
                gates: linear("in_proj_ba", 2 * value_heads)?,
            },
        };
        let a_log = builder.vector(&format!("{path}.A_log"), value_heads)?;
        let dt_bias = builder.vector(&format!("{path}.dt_bias"), value_heads)?;
        let norm = builder.vector(&format!("{path}.norm.weight"), heads.value_dim)?;
        Ok(Self {
            inputs,
            conv: Convolution::build(builder, &format!("{path}.conv1d"), mixed, taps, false, true)?,
            rule: Recurrence::delta_rule(&a_log, &dt_bias, heads)?,
            norm: GatedNorm::new(&norm, config.eps, heads.value_dim, false)?,
            out_proj: builder.linear(&format!("{path}.out_proj"), values, hidden, false)?,
            heads,
            value_heads,
        })
    }

    /// All but the last projection.
    fn mix(&self, x: &Array, batch: &mut Batch<'_, '_>, layer: usize) -> Result<Array, MlxError> {
        let projected = self.project(x)?;
        let mixed = self.conv.forward(&projected.mixed, batch, layer)?;
        let RecurrentHeads {
            key_dim, value_dim, ..
        } = self.heads;
        let state = [self.value_heads, key_dim, value_dim];
        let out = batch.advance(layer, 1, (&state, Dtype::Float32), |carried| {
            let gates = [&projected.a, &projected.b];
            self.rule.forward(&mixed, &gates, carried)
        })?;
        self.norm.forward(&out, &projected.gate)
    }

    fn project(&self, x: &Array) -> Result<Projected, MlxError> {
        let (all, gates) = match &self.inputs {
            Projections::Apart { mixed, gate, a, b } => {
                return Ok(Projected {
                    mixed: mixed.forward(x)?,
                    gate: gate.forward(x)?,
                    a: a.forward(x)?,
                    b: b.forward(x)?,
                });
            }
            Projections::ByKeyHeads { all, gates } => (all.forward(x)?, gates.forward(x)?),
        };
        let tokens = x.dim(0);
        let RecurrentHeads {
            keys,
            key_dim,
            value_dim,
        } = self.heads;
        let share = self.value_heads / keys;
        // A key head has its query, its key, and the values and gates of the heads that share it.
        let part_of = |of: &Array, from: i32, width: i32| {
            of.reshape(&[tokens, keys, -1])?
                .slice(&[0, 0, from], &[tokens, keys, from + width])?
                .reshape(&[tokens, keys * width])
        };
        // A single number of each key head would stay where it is, with gaps between.
        let gate_of = |from: i32| {
            let part = part_of(&gates, from, share)?;
            if share == 1 {
                part.contiguous()
            } else {
                Ok(part)
            }
        };
        let values = share * value_dim;
        let query = part_of(&all, 0, key_dim)?;
        let key = part_of(&all, key_dim, key_dim)?;
        let value = part_of(&all, 2 * key_dim, values)?;
        Ok(Projected {
            mixed: Array::concatenate(&[&query, &key, &value], 1)?,
            gate: part_of(&all, 2 * key_dim + values, values)?,
            b: gate_of(0)?,
            a: gate_of(share)?,
        })
    }
}

impl Mixer for GatedDelta {
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
        let matrix = self.heads.key_dim as u64 * self.heads.value_dim as u64;
        size.fixed += 4 * self.value_heads as u64 * matrix;
    }
}
