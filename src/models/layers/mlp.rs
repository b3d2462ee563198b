//! Feed-forward layers.

use crate::mlx::{Array, MlxError, swiglu};

use super::Linear;

/// `down(silu(gate(x)) · up(x))` (Shazeer, GLU Variants Improve Transformer, 2020).
pub struct SwiGlu {
    /// `[hidden]` to `[intermediate]`, goes through the activation.
    pub gate: Linear,
    /// `[hidden]` to `[intermediate]`.
    pub up: Linear,
    /// `[intermediate]` to `[hidden]`.
    pub down: Linear,
}

impl SwiGlu {
    /// `[tokens, hidden]` to the same, plus `residual`.
    #[track_caller]
    pub fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        let opened = swiglu(x, self.gate.matrix(), self.up.matrix())?;
        self.down.forward_add(&opened, residual)
    }
}
