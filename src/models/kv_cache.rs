//! Keys and values of a sequence's past, for one layer.

use crate::mlx::Array;

/// Keys and values of every position so far.
pub struct KvCache {
    state: Option<(Array, Array)>,
}

impl KvCache {
    /// The arrays to be evaluated with a step.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.state.iter().flat_map(|(k, v)| [k, v])
    }
}
