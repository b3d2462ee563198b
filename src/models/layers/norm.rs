//! Normalization.

use crate::mlx::{Array, MlxError, fast};

/// Root-mean-square normalization over the features.
pub struct RmsNorm {
    weight: Array,
    eps: f32,
}

impl RmsNorm {
    /// `weight` is `[features]`.
    pub fn new(weight: Array, eps: f32) -> Self {
        Self { weight, eps }
    }

    pub(super) fn weight(&self) -> &Array {
        &self.weight
    }

    pub(super) fn eps(&self) -> f32 {
        self.eps
    }

    /// `[.., features]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        fast::rms_norm(x, &self.weight, self.eps)
    }
}

/// Normalization by mean and variance over the features.
pub struct LayerNorm {
    weight: Array,
    bias: Option<Array>,
    eps: f32,
}

impl LayerNorm {
    /// `weight` and `bias` are `[features]`.
    pub fn new(weight: Array, bias: Option<Array>, eps: f32) -> Self {
        Self { weight, bias, eps }
    }

    /// `[.., features]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        fast::layer_norm(x, &self.weight, self.bias.as_ref(), self.eps)
    }
}

/// Either.
pub enum Norm {
    /// [`RmsNorm`]
    Rms(RmsNorm),
    /// [`LayerNorm`]
    Layer(LayerNorm),
}

impl Norm {
    /// `[.., features]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
        }
    }
}

impl From<RmsNorm> for Norm {
    fn from(norm: RmsNorm) -> Self {
        Self::Rms(norm)
    }
}

impl From<LayerNorm> for Norm {
    fn from(norm: LayerNorm) -> Self {
        Self::Layer(norm)
    }
}
