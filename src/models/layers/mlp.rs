//! Feed-forward layers.

use crate::mlx::{Array, MlxError};

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
    /// `[tokens, hidden]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        let gate = self.gate.forward(x)?;
        let activated = gate.multiply(&gate.sigmoid()?)?;
        self.down
            .forward(&activated.multiply(&self.up.forward(x)?)?)
    }
}
