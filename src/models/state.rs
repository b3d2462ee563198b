//! What a sequence's layers remember between steps.

use crate::mlx::Array;

use super::kv_cache::KvCache;

/// The state of one layer. Sliding-window and recurrent layers are further variants.
#[derive(Clone)]
pub enum LayerState {
    /// Keys and values of every position so far.
    Kv(KvCache),
}

/// The state of one sequence, owned by its request and advanced by `Model::forward`. A clone shares
/// the arrays until either is advanced.
#[derive(Clone)]
pub struct SequenceState {
    /// One entry a layer.
    pub layers: Vec<LayerState>,
    /// Tokens that the state holds.
    pub len: usize,
}

impl SequenceState {
    /// Every array of the state, to be evaluated with a step's logits.
    pub fn arrays(&self) -> Vec<&Array> {
        self.layers
            .iter()
            .flat_map(|layer| match layer {
                LayerState::Kv(cache) => cache.arrays(),
            })
            .collect()
    }
}
