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

/// Normalization of each head by mean and variance, and a weight for each feature of each head.
pub struct HeadNorm {
    plain: LayerNorm,
    weight: Array,
}

impl HeadNorm {
    /// `weight` is `[heads, head_dim]`.
    pub fn new(weight: &Array, eps: f32) -> Result<Self, MlxError> {
        let (heads, head_dim) = (weight.dim(0), weight.dim(1));
        let ones = vec![1.0; head_dim.max(0) as usize];
        let ones = Array::from_f32(&ones, &[head_dim])?.astype(weight.dtype()?)?;
        Ok(Self {
            plain: LayerNorm::new(ones, None, eps),
            weight: weight.reshape(&[heads, 1, head_dim])?,
        })
    }

    /// `[tokens, heads, 1, head_dim]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        self.plain.forward(x)?.multiply(&self.weight)
    }
}

/// What the norms of a model's layers are.
#[derive(Debug, Clone, Copy)]
pub struct NormConfig {
    /// How they normalize.
    pub kind: NormKind,
    /// Keeps them from dividing by zero.
    pub eps: f32,
}

/// How a norm of all features of a token normalizes.
#[derive(Debug, Clone, Copy, Default)]
pub enum NormKind {
    /// By the root mean square.
    #[default]
    Rms,
    /// The same, multiplied by `1 + weight`.
    OffsetRms,
    /// By mean and variance.
    Layer {
        /// Whether a bias is added.
        bias: bool,
    },
}

impl NormConfig {
    /// By the root mean square.
    pub fn rms(eps: f32) -> Self {
        Self {
            kind: NormKind::Rms,
            eps,
        }
    }
}

/// Any of them.
pub enum Norm {
    /// [`RmsNorm`]
    Rms(RmsNorm),
    /// [`LayerNorm`]
    Layer(LayerNorm),
    /// [`HeadNorm`]
    Head(HeadNorm),
}

impl Norm {
    /// `[.., features]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
            Self::Head(norm) => norm.forward(x),
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

impl From<HeadNorm> for Norm {
    fn from(norm: HeadNorm) -> Self {
        Self::Head(norm)
    }
}
