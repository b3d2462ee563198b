//! Short convolutions over the tokens of a sequence.

use crate::mlx::recurrent::ShortConv;
use crate::mlx::{Array, MlxError};
use crate::models::batch::Batch;
use crate::models::builder::Builder;
use crate::models::{LoadError, StateSize};

/// A causal depthwise convolution. Part 0 of its layer's state is the last `taps - 1` tokens.
pub struct Convolution {
    conv: ShortConv,
    features: i32,
    taps: i32,
}

impl Convolution {
    /// Takes `{path}.weight` and maybe `{path}.bias`. With `silu` the result goes through that.
    pub fn build(
        builder: &mut Builder<'_, '_>,
        path: &str,
        features: i32,
        taps: i32,
        bias: bool,
        silu: bool,
    ) -> Result<Self, LoadError> {
        if taps < 2 {
            let message = format!("a convolution over {taps} tokens is not supported");
            return Err(LoadError::config(path, message));
        }
        let (weight, bias) = builder.depthwise(path, features, taps, bias)?;
        Ok(Self {
            conv: ShortConv::new(&weight, bias.as_ref(), silu)?,
            features,
            taps,
        })
    }

    /// `[tokens, features]` to the same; advances the rows' states of layer `layer`.
    #[track_caller]
    pub fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        let state = [self.taps - 1, self.features];
        batch.advance(layer, 0, (&state, x.dtype()?), |carried| {
            self.conv.forward(x, carried)
        })
    }

    /// Adds what a sequence keeps of this layer, as if it were float32.
    pub fn add_state(&self, size: &mut StateSize) {
        size.fixed += 4 * (self.taps as u64 - 1) * self.features as u64;
    }
}
