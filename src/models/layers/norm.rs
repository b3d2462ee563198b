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

    /// `[tokens, features]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        fast::rms_norm(x, &self.weight, self.eps)
    }
}
