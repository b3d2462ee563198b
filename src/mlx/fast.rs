//! Fused operations: our kernels for float32 on the CPU, else those of `mlx.core.fast`.

use super::array::Array;
use super::bridge::ffi;
use super::error::MlxError;

/// Where the angles of a rotary embedding come from.
#[derive(Debug, Clone)]
pub enum RopeAngles {
    /// Feature pair `i` of `dims` turns by `position · scale · base^(-2i/dims)`.
    Base {
        /// The base, `rope_theta`.
        base: f32,
        /// Stretches the positions; 1 leaves them.
        scale: f32,
    },
    /// Feature pair `i` turns by `position / periods[i]`: `[dims / 2]`, float32.
    Periods(Array),
}

/// How [`rope`] turns.
#[derive(Debug, Clone)]
pub struct RopeParams {
    /// Features that are turned, the first ones of each head; an even number.
    pub dims: i32,
    /// Pairs are neighbours (the paper's order); otherwise halves (GPT-NeoX's order).
    pub traditional: bool,
    /// The angles.
    pub angles: RopeAngles,
    /// The same angles, for our kernels: pair `i` turns by `position · frequencies[i]`, `[dims / 2]`.
    pub frequencies: Array,
}

/// Root-mean-square normalization over the last dimension (Zhang & Sennrich, 2019).
///
/// `x` is `[.., features]`, `weight` is `[features]`.
#[track_caller]
pub fn rms_norm(x: &Array, weight: &Array, eps: f32) -> Result<Array, MlxError> {
    Array::wrap(ffi::rms_norm(x.raw(), weight.raw(), eps))
}

/// Rotary position embedding (Su et al., RoFormer, 2021) of `[tokens, heads, 1, head_dim]`, token `i`
/// standing at `positions[i]` (`[tokens]`, int32).
#[track_caller]
pub fn rope(x: &Array, params: &RopeParams, positions: &Array) -> Result<Array, MlxError> {
    let RopeParams {
        dims, traditional, ..
    } = *params;
    if ffi::computes_here(x.raw()) {
        let frequencies = params.frequencies.raw();
        return Array::wrap(ffi::rotate(
            x.raw(),
            positions.raw(),
            frequencies,
            traditional,
        ));
    }
    Array::wrap(match &params.angles {
        RopeAngles::Base { base, scale } => {
            ffi::rope(x.raw(), dims, traditional, *base, *scale, positions.raw())
        }
        RopeAngles::Periods(periods) => {
            ffi::rope_with_freqs(x.raw(), dims, traditional, periods.raw(), positions.raw())
        }
    })
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of them: a single query at the end.
    None,
    /// Those at or before its own position, the last query standing at the last key.
    Causal,
}

/// `softmax(scale · Q Kᵀ) V` with grouped heads: query head `h` reads key head
/// `h / (heads / kv_heads)`.
///
/// Queries are `[batch, heads, seq, head_dim]`; keys and values `[batch, kv_heads, total, head_dim]`
/// hold the sequence's past and the queries' own positions. Gives `[batch, heads, seq, head_dim]`.
#[track_caller]
pub fn scaled_dot_product_attention(
    queries: &Array,
    keys: &Array,
    values: &Array,
    scale: f32,
    mask: Mask,
) -> Result<Array, MlxError> {
    Array::wrap(ffi::attention(
        queries.raw(),
        keys.raw(),
        values.raw(),
        scale,
        mask == Mask::Causal,
    ))
}
