//! What a sequence's layers remember between steps.

use crate::mlx::{Array, MlxError};

use super::kv_cache::KvCache;
use super::snapshot::{Segment, Snapshot};

/// The state of one layer.
#[derive(Clone)]
pub enum LayerState {
    /// Keys and values of every position so far: any earlier position can be cut out of it.
    Kv(KvCache),
    /// What a sliding window or a recurrent layer carries from step to step. It is that of the last
    /// position only, so an earlier one can be had only where a copy was kept.
    Rolling(Vec<Array>),
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

    /// The keys and values of a layer.
    #[track_caller]
    pub fn kv(&mut self, layer: usize) -> Result<&mut KvCache, MlxError> {
        match self.layers.get_mut(layer) {
            Some(LayerState::Kv(cache)) => Ok(cache),
            _ => Err(MlxError::new(format!(
                "layer {layer} keeps no keys and values"
            ))),
        }
    }

    /// What a layer with a window or a recurrence carries.
    #[track_caller]
    pub fn rolling(&mut self, layer: usize) -> Result<&mut Vec<Array>, MlxError> {
        match self.layers.get_mut(layer) {
            Some(LayerState::Rolling(arrays)) => Ok(arrays),
            _ => Err(MlxError::new(format!("layer {layer} carries no state"))),
        }
    }

    /// Whether a layer's state cannot be cut at an earlier position.
    pub fn rolls(&self) -> bool {
        let rolling = |layer: &LayerState| matches!(layer, LayerState::Rolling(_));
        self.layers.iter().any(rolling)
    }

    /// Every array of the state, to be evaluated with a step's logits.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = Vec::new();
        for layer in &self.layers {
            match layer {
                LayerState::Kv(cache) => arrays.extend(cache.arrays()),
                LayerState::Rolling(rolling) => arrays.extend(rolling),
            }
        }
        arrays
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
            LayerState::Rolling(arrays) => Some(arrays.clone()),
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
                    *cache = KvCache::restore(
                        segments
                            .iter()
                            .filter_map(|segment| segment.layers.get(kv_layers)),
                    )?;
                    kv_layers += 1;
                }
                LayerState::Rolling(arrays) => {
                    let missing = || MlxError::new("no snapshot to restore a layer from");
                    arrays.clone_from(carried.next().ok_or_else(missing)?);
                }
            }
        }
        self.len = segments.iter().map(Segment::len).sum();
        Ok(())
    }
}
