//! Copies of a sequence's state, for sequences that begin alike.

use crate::mlx::{Array, MlxError};

use super::kv_cache::KvSegment;
use super::state::LayerState;

/// Some consecutive positions of the layers that keep every position.
#[derive(Clone)]
pub struct Segment {
    pub(super) layers: Vec<KvSegment>,
    len: usize,
}

impl Segment {
    pub(super) fn new(layers: Vec<KvSegment>, len: usize) -> Self {
        Self { layers, len }
    }

    /// How many positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A look at the first `len` positions.
    #[track_caller]
    pub fn first(&self, len: usize) -> Result<Self, MlxError> {
        let cut = self.layers.iter().map(|layer| layer.first(len as i32));
        Ok(Self::new(cut.collect::<Result<_, _>>()?, len))
    }

    /// Copies of what lies before position `at` and of the rest.
    #[track_caller]
    pub fn split(&self, at: usize) -> Result<(Self, Self), MlxError> {
        let cut = self.layers.iter().map(|layer| layer.split(at as i32));
        let (left, right) = cut.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        Ok((Self::new(left, at), Self::new(right, self.len - at)))
    }

    /// Bytes that it holds.
    pub fn nbytes(&self) -> u64 {
        self.arrays().map(Array::nbytes).sum()
    }

    /// Its arrays, to be evaluated before their source goes on.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.layers.iter().map(KvSegment::array)
    }
}

/// What the layers with a window or a recurrence carry after some position.
#[derive(Clone)]
pub struct Snapshot(pub(super) Vec<LayerState>);

impl Snapshot {
    /// Bytes that it holds.
    pub fn nbytes(&self) -> u64 {
        self.0.iter().map(LayerState::nbytes).sum()
    }
}
