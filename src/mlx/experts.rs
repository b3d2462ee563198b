//! Mixtures of experts: which matrices a token is multiplied with, and the products.

use cxx::UniquePtr;

use super::array::{Array, list};
use super::bridge::ffi;
use super::error::{MlxError, OrMlxError};
use super::ops::Activation;
use super::packing::Packed;

/// A matrix for each expert, `[experts, out, in]`, each to be multiplied as its transpose.
///
/// Which ones a token chose is told by `[tokens, k]` (uint32): `choices`. Activations are `[tokens, in]`,
/// or one row for each pair of a token and an expert, `[tokens · k, in]`.
pub struct Experts(UniquePtr<ffi::Weight>);

/// How the scores of experts become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)] // as in kernels/weight.h
pub enum Scoring {
    /// A softmax over all experts.
    Softmax,
    /// The best ones by their logits, and a softmax over those.
    SoftmaxOfChosen,
    /// Each by itself.
    Sigmoid,
}

/// How experts are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// How scores become weights.
    pub scoring: Scoring,
    /// Experts a token.
    pub choices: i32,
    /// Whether the weights of a token's experts are made to sum up to one.
    pub normalize: bool,
    /// What the weights are multiplied by at last.
    pub scale: f32,
    /// Groups that experts compete in, by the sum of each group's two best, or by its best where scores are
    /// a softmax; 1 is none.
    pub groups: i32,
    /// Groups that are kept.
    pub kept_groups: i32,
}

/// What opens the gate of an expert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gate {
    /// `activation(gate) · up`.
    Plain(Activation),
    /// `min(gate, limit) · sigmoid(alpha · min(gate, limit)) · (clip(up, ±limit) + 1)`, as in gpt-oss.
    ClampedSilu {
        /// Steepness of the sigmoid.
        alpha: f32,
        /// Where both are cut off.
        limit: f32,
    },
}

impl Experts {
    /// Of float32, bfloat16 or float16 `values`, `[experts, out, in]`.
    #[track_caller]
    pub fn dense(values: &Array) -> Result<Self, MlxError> {
        check_stack(values)?;
        Ok(Self(ffi::dense_weight(values.raw()).or_mlx()?))
    }

    /// Quantized ones.
    #[track_caller]
    pub fn quantized(packed: &Packed) -> Result<Self, MlxError> {
        check_stack(&packed.words)?;
        Ok(Self(packed.weight()?))
    }

    /// The same matrices with a bias each, `[experts, out]`, in the type of the activations.
    #[track_caller]
    pub fn with_bias(mut self, bias: &Array) -> Result<Self, MlxError> {
        ffi::set_offset(self.0.pin_mut(), bias.raw()).or_mlx()?;
        Ok(self)
    }

    /// The same matrices, each multiplied by its number of `factors` (`[experts]`, float32).
    #[track_caller]
    pub fn with_factors(mut self, factors: &Array) -> Result<Self, MlxError> {
        ffi::set_factors(self.0.pin_mut(), factors.raw()).or_mlx()?;
        Ok(self)
    }

    /// `x Wᵀ + b` for every choice: `[tokens · k, out]`.
    #[track_caller]
    pub fn product(&self, x: &Array, choices: &Array) -> Result<Array, MlxError> {
        Array::wrap(ffi::gather_linear(x.raw(), &self.0, choices.raw()))
    }

    /// The same, a token's choices weighed with `weights` (`[tokens, k]`) and summed up, and `residual`
    /// (`[tokens, out]`) added: `[tokens, out]`.
    #[track_caller]
    pub fn weighted_sum(
        &self,
        x: &Array,
        choices: &Array,
        weights: &Array,
        residual: Option<&Array>,
    ) -> Result<Array, MlxError> {
        let residual = list(residual.as_slice());
        Array::wrap(ffi::gather_sum(
            x.raw(),
            &self.0,
            choices.raw(),
            weights.raw(),
            &residual,
        ))
    }
}

/// A feed-forward layer's gate, opened, for every choice: `[tokens · k, out]`.
#[track_caller]
pub fn gated_experts(
    x: &Array,
    gate: &Experts,
    up: &Experts,
    choices: &Array,
    opening: Gate,
) -> Result<Array, MlxError> {
    let (activation, clamped, alpha, limit) = match opening {
        Gate::Plain(activation) => (activation, false, 0.0, 0.0),
        Gate::ClampedSilu { alpha, limit } => (Activation::Silu, true, alpha, limit),
    };
    Array::wrap(ffi::gather_gate(
        x.raw(),
        &gate.0,
        &up.0,
        choices.raw(),
        activation as u8,
        clamped,
        alpha,
        limit,
    ))
}

/// The experts of each token and their weights, `[tokens, k]` both.
///
/// `logits` are `[tokens, experts]`; `correction` (`[experts]`, float32) takes part in the choice, but
/// not in the weights (Wang et al., Auxiliary-Loss-Free Load Balancing, 2024).
#[track_caller]
pub fn route(
    logits: &Array,
    correction: Option<&Array>,
    routing: Routing,
) -> Result<(Array, Array), MlxError> {
    let Routing {
        scoring,
        choices,
        normalize,
        scale,
        groups,
        kept_groups,
    } = routing;
    let correction = list(correction.as_slice());
    let routed = ffi::route(
        logits.raw(),
        &correction,
        scoring as u8,
        choices,
        normalize,
        scale,
        groups,
        kept_groups,
    )
    .or_mlx()?;
    Ok((
        Array::wrap(ffi::list_get(&routed, 0))?,
        Array::wrap(ffi::list_get(&routed, 1))?,
    ))
}

#[track_caller]
fn check_stack(values: &Array) -> Result<(), MlxError> {
    match values.shape() {
        [_, _, _] => Ok(()),
        shape => Err(MlxError::new(format!("experts of shape {shape:?}"))),
    }
}
