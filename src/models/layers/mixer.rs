//! Layers that look at a sequence, whichever way they remember it.

use crate::mlx::{Array, MlxError};
use crate::models::batch::Batch;
use crate::models::{LayerState, LoadError, StateSize};

use super::{Attention, DecoderLayer, FeedForward, RmsNorm};

/// Attention, or a layer with a recurrence. Hybrids have several kinds of it in their blocks.
pub trait Mixer {
    /// `[tokens, hidden]` to the same; `layer` is its place in the sequences' states.
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError>;

    /// The same, plus `residual`.
    fn forward_add(
        &self,
        x: &Array,
        residual: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError>;

    /// The state at the beginning of a sequence.
    fn new_state(&self) -> LayerState {
        LayerState::Rolling(Vec::new())
    }

    /// Adds what a sequence keeps of this layer.
    fn add_state(&self, size: &mut StateSize);
}

/// Which layers of a hybrid have attention, by its `layer_types`: the others are of the type `recurrent`.
pub fn attends(types: &[String], layers: usize, recurrent: &str) -> Result<Vec<bool>, LoadError> {
    if types.len() != layers {
        let message = format!("{} types for {layers} layers", types.len());
        return Err(LoadError::config("layer_types", message));
    }
    let attends = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(true),
        kind if kind == recurrent => Ok(false),
        other => Err(LoadError::config(
            "layer_types",
            format!("\"{other}\" is neither \"full_attention\" nor \"{recurrent}\""),
        )),
    };
    types.iter().map(attends).collect()
}

impl Mixer for Attention {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        self.forward(x, batch, layer)
    }

    fn forward_add(
        &self,
        x: &Array,
        residual: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        self.forward_add(x, residual, batch, layer)
    }

    fn new_state(&self) -> LayerState {
        self.new_state()
    }

    fn add_state(&self, size: &mut StateSize) {
        self.add_state(size);
    }
}

impl Mixer for Box<dyn Mixer> {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        (**self).forward(x, batch, layer)
    }

    fn forward_add(
        &self,
        x: &Array,
        residual: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        (**self).forward_add(x, residual, batch, layer)
    }

    fn new_state(&self) -> LayerState {
        (**self).new_state()
    }

    fn add_state(&self, size: &mut StateSize) {
        (**self).add_state(size);
    }
}

/// A feed-forward layer where others look at the sequence: it remembers nothing.
pub struct Stateless<F>(pub F);

impl<F: FeedForward> Mixer for Stateless<F> {
    fn forward(&self, x: &Array, _: &mut Batch<'_, '_>, _: usize) -> Result<Array, MlxError> {
        self.0.forward(x)
    }

    fn forward_add(
        &self,
        x: &Array,
        residual: &Array,
        _: &mut Batch<'_, '_>,
        _: usize,
    ) -> Result<Array, MlxError> {
        self.0.forward_add(x, residual)
    }

    fn add_state(&self, _: &mut StateSize) {}
}

/// A layer of a single half: `x + mixer(norm(x))`.
pub struct Residual {
    /// Goes before.
    pub norm: RmsNorm,
    /// What is added.
    pub mixer: Box<dyn Mixer>,
}

impl DecoderLayer for Residual {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        index: usize,
    ) -> Result<Array, MlxError> {
        let normed = self.norm.forward(x)?;
        self.mixer.forward_add(&normed, x, batch, index)
    }

    fn new_state(&self) -> LayerState {
        self.mixer.new_state()
    }

    fn add_state(&self, size: &mut StateSize) {
        self.mixer.add_state(size);
    }
}
