//! Mixtures of experts (Shazeer et al., Outrageously Large Neural Networks, 2017).

use crate::mlx::{Array, Experts, Gate, MlxError, Routing, gated_experts, route};
use crate::models::LoadError;
use crate::models::config::dimension;

use super::Linear;

/// Feed-forward layers of which a router chooses some for each token.
pub struct MixtureOfExperts {
    /// Scores every expert: `[hidden]` to `[experts]`.
    pub router: Linear,
    /// Takes part in the choice but not in the weights: `[experts]`, float32.
    pub correction: Option<Array>,
    /// How scores become a choice and weights.
    pub routing: Routing,
    /// `[hidden]` to `[intermediate]`, goes through the activation.
    pub gate: Experts,
    /// `[hidden]` to `[intermediate]`.
    pub up: Experts,
    /// `[intermediate]` to `[hidden]`.
    pub down: Experts,
    /// The activation.
    pub opening: Gate,
}

impl MixtureOfExperts {
    /// `[tokens, hidden]` to the same, plus `residual`.
    #[track_caller]
    pub fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        let logits = self.router.forward(x)?;
        let (choices, weights) = route(&logits, self.correction.as_ref(), self.routing)?;
        let opened = gated_experts(x, &self.gate, &self.up, &choices, self.opening)?;
        self.down
            .weighted_sum(&opened, &choices, &weights, Some(residual))
    }
}

/// The numbers of experts, and of those that a token goes through.
pub fn choices(keys: [&str; 2], experts: u64, choices: u64) -> Result<(i32, i32), LoadError> {
    let all = dimension(keys[0], experts)?;
    let chosen = dimension(keys[1], choices)?;
    if chosen > all {
        let message = format!("{chosen} of {all} experts cannot be chosen");
        return Err(LoadError::config(keys[1], message));
    }
    Ok((all, chosen))
}
