//! Layers that carry a state from token to token: short convolutions, linear recurrences, and the gated
//! normalization behind them. Our kernels for float32 on the CPU, else MLX's operations.
//!
//! A step's rows are advanced together: their tokens lie behind one another, `[tokens, features]`, and
//! each row has a state.

use cxx::UniquePtr;

use super::array::{Array, list};
use super::bridge::ffi;
use super::error::{MlxError, OrMlxError};

/// What a layer gives for a step.
pub struct Advanced {
    /// `[tokens, features]`.
    pub out: Array,
    /// What each row carries from here on.
    pub states: Vec<Array>,
}

impl Advanced {
    #[track_caller]
    fn wrap(
        result: Result<UniquePtr<ffi::ArrayList>, cxx::Exception>,
        rows: usize,
    ) -> Result<Self, MlxError> {
        let list = result.or_mlx()?;
        let states = (1..=rows).map(|index| Array::wrap(ffi::list_get(&list, index)));
        Ok(Self {
            out: Array::wrap(ffi::list_get(&list, 0))?,
            states: states.collect::<Result<_, _>>()?,
        })
    }
}

/// What a step's rows carry, and how many tokens each of them has.
#[derive(Clone, Copy)]
pub struct Carried<'a> {
    /// A state each.
    pub states: &'a [&'a Array],
    /// A length each.
    pub lengths: &'a [i32],
}

/// A causal depthwise convolution over the tokens.
pub struct ShortConv(UniquePtr<ffi::ShortConv>);

impl ShortConv {
    /// `weight` is `[features, taps]`, the last tap being the token's own; `bias` is `[features]`. With
    /// `silu` the sum goes through that.
    #[track_caller]
    pub fn new(weight: &Array, bias: Option<&Array>, silu: bool) -> Result<Self, MlxError> {
        let bias: Vec<&Array> = bias.into_iter().collect();
        Ok(Self(
            ffi::short_conv(weight.raw(), &list(&bias), silu).or_mlx()?,
        ))
    }

    /// `[tokens, features]` to the same. A state is the last `taps - 1` tokens, `[taps - 1, features]`,
    /// zeros at first.
    #[track_caller]
    pub fn forward(&self, x: &Array, carried: Carried<'_>) -> Result<Advanced, MlxError> {
        let advanced = ffi::convolve(x.raw(), &self.0, &list(carried.states), carried.lengths);
        Advanced::wrap(advanced, carried.states.len())
    }
}

/// How the features of a recurrence are divided into heads.
#[derive(Debug, Clone, Copy)]
pub struct RecurrentHeads {
    /// Heads of keys and queries; each serves as many neighbouring value heads as come to it.
    pub keys: i32,
    /// Features of a key.
    pub key_dim: i32,
    /// Features of a value.
    pub value_dim: i32,
}

/// A linear recurrence whose state is a matrix a head, `[value_heads, key_dim, value_dim]` in float32,
/// zeros at first.
pub struct Recurrence(UniquePtr<ffi::Recurrent>);

impl Recurrence {
    /// The gated delta rule (Yang et al., Gated Delta Networks, 2024): the state is multiplied by
    /// `exp(-exp(a_log) · softplus(a + dt_bias))`, then what it has for the token's key is replaced by
    /// the token's value, as far as `sigmoid(b)` says. Queries and keys are normalized to length 1, and
    /// queries divided by `√key_dim`. `a_log` and `dt_bias` are `[value_heads]`.
    #[track_caller]
    pub fn delta_rule(
        a_log: &Array,
        dt_bias: &Array,
        heads: RecurrentHeads,
    ) -> Result<Self, MlxError> {
        let RecurrentHeads {
            keys,
            key_dim,
            value_dim,
        } = heads;
        let layer = ffi::delta_rule(a_log.raw(), dt_bias.raw(), keys, key_dim, value_dim);
        Ok(Self(layer.or_mlx()?))
    }

    /// The state space of Mamba-2 (Dao & Gu, Transformers are SSMs, 2024): the step size is
    /// `softplus(dt + dt_bias)` within `limits`; the state is multiplied by `exp(-exp(a_log) · step)`,
    /// and `step` times the token's value is added under its key. `skip` times the value goes past it.
    /// All three are `[value_heads]`.
    #[track_caller]
    pub fn state_space(
        a_log: &Array,
        dt_bias: &Array,
        skip: &Array,
        limits: (f32, f32),
        heads: RecurrentHeads,
    ) -> Result<Self, MlxError> {
        let mut layer = ffi::state_space(
            a_log.raw(),
            dt_bias.raw(),
            skip.raw(),
            heads.keys,
            heads.key_dim,
            heads.value_dim,
        )
        .or_mlx()?;
        ffi::set_limits(layer.pin_mut(), limits.0, limits.1);
        Ok(Self(layer))
    }

    /// `mixed` holds every token's queries, keys and values, behind one another (of a state space:
    /// values, keys and queries, in the paper's letters x, B and C); `gates` are `[a, b]`, or `[dt]`,
    /// each `[tokens, value_heads]`. Gives `[tokens, value_heads · value_dim]`.
    #[track_caller]
    pub fn forward(
        &self,
        mixed: &Array,
        gates: &[&Array],
        carried: Carried<'_>,
    ) -> Result<Advanced, MlxError> {
        let advanced = ffi::recur(
            mixed.raw(),
            &list(gates),
            &self.0,
            &list(carried.states),
            carried.lengths,
        );
        Advanced::wrap(advanced, carried.states.len())
    }
}

/// Root-mean-square normalization over groups of features, gated by SiLU.
pub struct GatedNorm(UniquePtr<ffi::GatedNorm>);

impl GatedNorm {
    /// Over groups of `group` features. `weight` has one number for each feature of a group, or one for
    /// each of all. With `gate_first` what is normalized is `silu(gate) · x`, else the gate comes after.
    #[track_caller]
    pub fn new(weight: &Array, eps: f32, group: i32, gate_first: bool) -> Result<Self, MlxError> {
        let norm = ffi::gated_norm(weight.raw(), eps, group, gate_first);
        Ok(Self(norm.or_mlx()?))
    }

    /// `[tokens, features]` of both to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array, gate: &Array) -> Result<Array, MlxError> {
        Array::wrap(ffi::normalize(x.raw(), gate.raw(), &self.0))
    }
}
