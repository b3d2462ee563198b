//! What a sequence's layers remember between steps.

use crate::mlx::fast::Scores;
use crate::mlx::{Array, MlxError};

use super::kv_cache::KvCache;
use super::snapshot::{Segment, Snapshot};
use super::window_cache::WindowCache;

/// The state of one layer.
#[derive(Clone)]
pub enum LayerState {
    /// Keys and values of every position so far: any earlier position can be cut out of it.
    Kv(KvCache),
    /// Keys and values of the last positions, which is all that a sliding window sees.
    Window(WindowCache),
    /// What a recurrent layer carries from step to step. It is that of the last
    /// position only, so an earlier one can be had only where a copy was kept.
    Rolling(Vec<Array>),
}

impl LayerState {
    /// The state of an attention layer at the beginning, for tokens that see `window` positions.
    pub fn of_attention(window: Option<i32>) -> Self {
        match window {
            Some(window) => Self::Window(WindowCache::new(window)),
            None => Self::Kv(KvCache::new()),
        }
    }

    fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Kv(cache) => cache.arrays().collect(),
            Self::Window(cache) => cache.arrays().collect(),
            Self::Rolling(arrays) => arrays.iter().collect(),
        }
    }

    /// Bytes that it holds.
    pub(super) fn nbytes(&self) -> u64 {
        self.arrays().iter().map(|array| array.nbytes()).sum()
    }
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
    /// The state of an empty sequence.
    pub fn new(layers: Vec<LayerState>) -> Self {
        Self { layers, len: 0 }
    }

    /// Appends keys and values of new positions, each `[1, kv_heads, new, head_dim]`, to an attention
    /// layer's. Gives those of every position that the new ones see (and maybe of some before), the
    /// new ones last.
    #[track_caller]
    pub fn extend(
        &mut self,
        layer: usize,
        keys: &Array,
        values: &Array,
    ) -> Result<(Array, Array), MlxError> {
        match self.layers.get_mut(layer) {
            Some(LayerState::Kv(cache)) => cache.update(keys, values),
            Some(LayerState::Window(cache)) => cache.update(keys, values),
            _ => Err(keeps_none(layer)),
        }
    }

    /// Where the keys and values of `new` positions of an attention layer are to be appended, in whatever format it
    /// keeps them, and how `queries` meet those that are there.
    #[track_caller]
    pub(super) fn for_new(
        &mut self,
        layer: usize,
        new: i32,
        scores: &Scores,
    ) -> Result<(&mut KvCache, Scores), MlxError> {
        match self.layers.get_mut(layer) {
            Some(LayerState::Kv(cache)) => Ok((cache, scores.clone())),
            Some(LayerState::Window(cache)) => cache.for_new(new, scores),
            _ => Err(keeps_none(layer)),
        }
    }

    /// What `queries` find in what another layer appended its keys and values to in this step.
    #[track_caller]
    pub fn find(&self, layer: usize, queries: &Array, scores: &Scores) -> Result<Array, MlxError> {
        match self.layers.get(layer) {
            Some(LayerState::Kv(cache)) => cache.find(queries, scores),
            Some(LayerState::Window(cache)) => cache.find(queries, scores),
            _ => Err(keeps_none(layer)),
        }
    }

    /// What a recurrent layer carries.
    #[track_caller]
    pub fn rolling(&mut self, layer: usize) -> Result<&mut Vec<Array>, MlxError> {
        match self.layers.get_mut(layer) {
            Some(LayerState::Rolling(arrays)) => Ok(arrays),
            _ => Err(MlxError::new(format!("layer {layer} carries no state"))),
        }
    }

    /// Whether a layer's state cannot be cut at an earlier position.
    pub fn rolls(&self) -> bool {
        let cuttable = |layer: &LayerState| matches!(layer, LayerState::Kv(_));
        !self.layers.iter().all(cuttable)
    }

    /// Every array of the state, to be evaluated with a step's logits.
    pub fn arrays(&self) -> Vec<&Array> {
        self.layers.iter().flat_map(LayerState::arrays).collect()
    }

    /// A copy of positions `start..stop` of the layers that keep every position.
    #[track_caller]
    pub fn segment(&self, start: usize, stop: usize) -> Result<Segment, MlxError> {
        let mut layers = Vec::new();
        for layer in &self.layers {
            if let LayerState::Kv(cache) = layer {
                let segment = cache.segment(start as i32, stop as i32)?;
                let missing = || MlxError::new(format!("positions {start}..{stop} are not held"));
                layers.push(segment.ok_or_else(missing)?);
            }
        }
        Ok(Segment::new(layers, stop - start))
    }

    /// What the other layers carry at this position.
    pub fn snapshot(&self) -> Snapshot {
        let carried = self.layers.iter().filter_map(|layer| match layer {
            LayerState::Kv(_) => None,
            other => Some(other.clone()),
        });
        Snapshot(carried.collect())
    }

    /// Puts an empty sequence's state where the segments end; `snapshot` is that of their end, and
    /// must be there where [`rolls`](Self::rolls).
    #[track_caller]
    pub fn restore(
        &mut self,
        segments: &[Segment],
        snapshot: Option<&Snapshot>,
    ) -> Result<(), MlxError> {
        let mut carried = snapshot.into_iter().flat_map(|snapshot| &snapshot.0);
        let mut kv_layers = 0;
        for layer in &mut self.layers {
            match layer {
                LayerState::Kv(cache) => {
                    let own = segments
                        .iter()
                        .filter_map(|segment| segment.layers.get(kv_layers));
                    cache.restore(own)?;
                    kv_layers += 1;
                }
                other => {
                    let missing = || MlxError::new("no snapshot to restore a layer from");
                    other.clone_from(carried.next().ok_or_else(missing)?);
                }
            }
        }
        self.len = segments.iter().map(Segment::len).sum();
        Ok(())
    }
}

#[track_caller]
fn keeps_none(layer: usize) -> MlxError {
    MlxError::new(format!("layer {layer} keeps no keys and values"))
}
