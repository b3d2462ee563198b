//! In how many bits keys and values are kept, and of how many positions: models around a model.

use crate::mlx::{Affine, Array, Dtype, MlxError};

use super::error::LoadError;
use super::state::{LayerState, SequenceState};
use super::window_cache::{self, WindowCache};
use super::{Logits, Model, ModelInfo, Row, StateSize, Window, token_ids};

/// How the cache keeps a number of a key or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvFormat {
    /// As it was computed.
    #[default]
    Computed,
    /// As float16.
    Half,
    /// As an integer with a scale and a bias for each group of a head's features, like weights
    /// (mlx-lm's `QuantizedKVCache`).
    Packed(Affine),
}

impl KvFormat {
    /// The arrays that hold `x`, `[1, kv_heads, positions, head_dim]`, each with as many positions.
    #[track_caller]
    pub(super) fn encode(self, x: &Array) -> Result<Vec<Array>, MlxError> {
        Ok(match self {
            Self::Computed => vec![x.clone()],
            Self::Half => vec![x.astype(Dtype::Float16)?],
            Self::Packed(affine) => x.quantize(affine)?.into(),
        })
    }

    /// Features and types of these arrays.
    #[track_caller]
    pub(super) fn shapes(self, x: &Array) -> Result<Vec<(i32, Dtype)>, MlxError> {
        let features = x.dim(3);
        Ok(match self {
            Self::Computed => vec![(features, x.dtype()?)],
            Self::Half => vec![(features, Dtype::Float16)],
            Self::Packed(Affine { group_size, bits }) => {
                if group_size <= 0 || features % group_size != 0 {
                    let message = format!(
                        "heads of {features} features cannot be divided into groups of {group_size}"
                    );
                    return Err(MlxError::new(message));
                }
                let groups = (features / group_size, x.dtype()?);
                vec![(features * bits / 32, Dtype::Uint32), groups, groups]
            }
        })
    }

    /// How [`Packed`](Self::Packed) packs.
    pub(super) fn affine(self) -> Option<Affine> {
        match self {
            Self::Packed(affine) => Some(affine),
            Self::Computed | Self::Half => None,
        }
    }

    /// Bytes for `bytes` of numbers that are computed in `dtype`.
    fn bytes(self, bytes: u64, dtype: Dtype) -> u64 {
        let size = dtype.size() as u64;
        let numbers = bytes / size;
        match self {
            Self::Computed => bytes,
            Self::Half => 2 * numbers,
            Self::Packed(Affine { group_size, bits }) => {
                let groups = numbers / u64::from(group_size.unsigned_abs()).max(1);
                numbers * u64::from(bits.unsigned_abs()) / 8 + groups * 2 * size
            }
        }
    }
}

/// A model whose layers that keep every position keep them in another way.
struct WithOtherState {
    model: Box<dyn Model>,
    info: ModelInfo,
    change: Box<dyn Fn(&mut LayerState)>,
}

/// The model, keeping its keys and values as `format` says; those of sliding windows stay as they are.
/// Fails where the model's heads cannot be kept so.
pub fn with_kv_format(
    model: Box<dyn Model>,
    format: KvFormat,
) -> Result<Box<dyn Model>, LoadError> {
    if format == KvFormat::Computed {
        return Ok(model);
    }
    let info = model.info();
    let computed = Dtype::ALL.into_iter().find(|it| it.name() == info.dtype);
    let dtype = computed.unwrap_or(Dtype::Float32);
    let info = ModelInfo {
        state: StateSize {
            per_token: format.bytes(info.state.per_token, dtype),
            ..info.state.clone()
        },
        ..info.clone()
    };
    let model = WithOtherState {
        model,
        info,
        change: Box::new(move |layer| {
            if let LayerState::Kv(cache) = layer {
                cache.set_format(format);
            }
        }),
    };
    model
        .tried()
        .map_err(|error| LoadError::KvFormat(error.message().to_owned()))
}

/// The model, whose tokens see no more than `positions`: the first four, and the last ones. Layers that
/// have a window or carry a state stay as they are. `positions` are more than four.
/// Fails where a layer reads its cache itself.
pub fn with_kv_size(model: Box<dyn Model>, positions: i32) -> Result<Box<dyn Model>, LoadError> {
    let mut info = model.info().clone();
    info.state.windows.push(Window {
        positions: window_cache::most_capped(positions),
        per_token: std::mem::take(&mut info.state.per_token),
    });
    let model = WithOtherState {
        model,
        info,
        change: Box::new(move |layer| {
            if let LayerState::Kv(_) = layer {
                *layer = LayerState::Window(WindowCache::capped(positions));
            }
        }),
    };
    model
        .tried()
        .map_err(|error| LoadError::KvSize(error.message().to_owned()))
}

impl WithOtherState {
    /// The model, if the graph of one token shows nothing that does not fit. Nothing is computed.
    fn tried(self) -> Result<Box<dyn Model>, MlxError> {
        let mut state = self.new_state();
        let mut rows = [Row {
            len: 1,
            state: &mut state,
            logits: Logits::Last,
        }];
        let tokens = token_ids(&[0], self.info.vocab_size)?;
        self.forward(&tokens, &mut rows)?;
        Ok(Box::new(self))
    }
}

impl Model for WithOtherState {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn new_state(&self) -> SequenceState {
        let mut state = self.model.new_state();
        state.layers.iter_mut().for_each(&self.change);
        state
    }

    fn forward(&self, tokens: &Array, rows: &mut [Row<'_>]) -> Result<Option<Array>, MlxError> {
        self.model.forward(tokens, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_takes_its_bits_and_its_scales() {
        let packed = |bits, group_size| KvFormat::Packed(Affine { group_size, bits });
        // 128 numbers.
        for (format, float32, half) in [
            (KvFormat::Computed, 512, 256),
            (KvFormat::Half, 256, 256),
            (packed(8, 64), 128 + 2 * 8, 128 + 2 * 4),
            (packed(4, 32), 64 + 4 * 8, 64 + 4 * 4),
        ] {
            assert_eq!(format.bytes(512, Dtype::Float32), float32, "{format:?}");
            assert_eq!(format.bytes(256, Dtype::Bfloat16), half, "{format:?}");
        }
    }
}
