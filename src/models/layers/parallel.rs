//! One layer whose halves stand side by side (Wang and Komatsuzaki, GPT-J, 2021).

use crate::mlx::{Array, MlxError};
use crate::models::batch::Batch;
use crate::models::{LayerState, StateSize};

use super::{Attention, Block, DecoderLayer, FeedForward, Mlp, Norm};

/// `x + attention(n(x)) + mlp(n(x))`.
pub struct ParallelBlock {
    /// `n`
    pub norm: Norm,
    /// Looks at the sequence.
    pub attention: Attention,
    /// Looks at single tokens.
    pub mlp: Mlp,
}

impl DecoderLayer for ParallelBlock {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        index: usize,
    ) -> Result<Array, MlxError> {
        let normed = self.norm.forward(x)?;
        let attended = self.attention.forward_add(&normed, x, batch, index)?;
        self.mlp.forward_add(&normed, &attended)
    }

    fn new_state(&self) -> LayerState {
        self.attention.new_state()
    }

    fn add_state(&self, size: &mut StateSize) {
        self.attention.add_state(size);
    }
}

/// The layer of an architecture whose `config.json` says how its halves stand.
pub enum EitherBlock {
    /// Side by side.
    Parallel(ParallelBlock),
    /// One behind the other.
    Sequential(Block),
}

impl EitherBlock {
    /// What looks at the sequence.
    pub fn attention(&mut self) -> &mut Attention {
        match self {
            Self::Parallel(block) => &mut block.attention,
            Self::Sequential(block) => &mut block.attention,
        }
    }
}

impl DecoderLayer for EitherBlock {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        index: usize,
    ) -> Result<Array, MlxError> {
        match self {
            Self::Parallel(block) => block.forward(x, batch, index),
            Self::Sequential(block) => block.forward(x, batch, index),
        }
    }

    fn new_state(&self) -> LayerState {
        match self {
            Self::Parallel(block) => block.new_state(),
            Self::Sequential(block) => block.new_state(),
        }
    }

    fn add_state(&self, size: &mut StateSize) {
        match self {
            Self::Parallel(block) => block.add_state(size),
            Self::Sequential(block) => block.add_state(size),
        }
    }
}
