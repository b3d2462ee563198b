//! Fused operations: our kernels for float32 on the CPU, else those of `mlx.core.fast`.

use cxx::UniquePtr;

use super::array::{Array, list};
use super::bridge::ffi;
use super::error::{MlxError, OrMlxError};
use super::packing::Affine;

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
    /// What the turned features are multiplied by.
    pub amplitude: f32,
}

/// Root-mean-square normalization over the last dimension (Zhang & Sennrich, 2019).
///
/// `x` is `[.., features]`, `weight` is `[features]`.
#[track_caller]
pub fn rms_norm(x: &Array, weight: &Array, eps: f32) -> Result<Array, MlxError> {
    Array::wrap(ffi::rms_norm(x.raw(), weight.raw(), eps))
}

/// Layer normalization over the last dimension (Ba et al., 2016).
///
/// `x` is `[.., features]`, `weight` and `bias` are `[features]`.
#[track_caller]
pub fn layer_norm(
    x: &Array,
    weight: &Array,
    bias: Option<&Array>,
    eps: f32,
) -> Result<Array, MlxError> {
    let bias = or_null(bias);
    Array::wrap(ffi::layer_norm(x.raw(), weight.raw(), &bias, eps))
}

/// C++'s way to say that there is none.
pub(super) fn or_null(array: Option<&Array>) -> UniquePtr<ffi::Array> {
    array.map_or_else(UniquePtr::null, |array| ffi::clone_array(array.raw()))
}

/// Rotary position embedding (Su et al., RoFormer, 2021) of `[tokens, heads, 1, head_dim]`, token `i`
/// standing at `positions[i]` (`[tokens]`, int32).
#[track_caller]
pub fn rope(x: &Array, params: &RopeParams, positions: &Array) -> Result<Array, MlxError> {
    let RopeParams {
        dims,
        traditional,
        amplitude,
        ..
    } = *params;
    if ffi::computes_here(x.raw()) {
        let frequencies = params.frequencies.raw();
        return Array::wrap(ffi::rotate(
            x.raw(),
            positions.raw(),
            frequencies,
            traditional,
            amplitude,
        ));
    }
    let amplified;
    let x = if amplitude == 1.0 {
        x
    } else {
        let factor = |feature| if feature < dims { amplitude } else { 1.0 };
        let features = x.dim(-1);
        let factors: Vec<f32> = (0..features).map(factor).collect();
        let factors = Array::from_f32(&factors, &[features])?.astype(x.dtype()?)?;
        amplified = x.multiply(&factors)?;
        &amplified
    };
    Array::wrap(match &params.angles {
        RopeAngles::Base { base, scale } => {
            ffi::rope(x.raw(), dims, traditional, *base, *scale, positions.raw())
        }
        RopeAngles::Periods(periods) => {
            ffi::rope_with_freqs(x.raw(), dims, traditional, periods.raw(), positions.raw())
        }
    })
}

/// What becomes of the products of queries and keys, in [`attention`].
#[derive(Debug, Clone)]
pub struct Scores {
    /// They are multiplied by it.
    pub scale: f32,
    /// Then by way of tanh kept below it.
    pub soft_cap: Option<f32>,
    /// Positions that a query sees, its own the last; `None`: all before it.
    pub window: Option<i32>,
    /// Positions from the first on that are seen beside the window.
    pub keep: i32,
    /// A score a head that belongs to no position, `[heads]`: it takes part in the softmax only
    /// (Xiao et al., Attention Sinks, 2023).
    pub sinks: Option<Array>,
}

impl Scores {
    /// Of heads with `head_dim` features, everything else plain.
    pub fn plain(head_dim: i32) -> Self {
        Self {
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: None,
            window: None,
            keep: 0,
            sinks: None,
        }
    }
}

/// `softmax(scores(Q Kᵀ)) V`, causal and with grouped heads: query head `h` reads key head
/// `h / (heads / kv_heads)`, and the last query stands at the last key.
///
/// Queries are `[1, heads, seq, head_dim]`; keys and values `[1, kv_heads, total, head_dim]` hold the
/// sequence's past and the queries' own positions. Gives `[1, heads, seq, head_dim]`.
#[track_caller]
pub fn attention(
    queries: &Array,
    keys: &Array,
    values: &Array,
    scores: &Scores,
) -> Result<Array, MlxError> {
    attention_over(queries, &[keys], &[values], None, scores)
}

/// The same over a cache in any format: keys and values are one array each, in the queries' type or in
/// float16, or packed: words, scales and biases of each, as [`quantize`](Array::quantize) gives them.
#[track_caller]
pub fn attention_over(
    queries: &Array,
    keys: &[&Array],
    values: &[&Array],
    packed: Option<Affine>,
    scores: &Scores,
) -> Result<Array, MlxError> {
    Array::wrap(ffi::attention(
        queries.raw(),
        &list(keys),
        &list(values),
        packed.map_or(0, |affine| affine.group_size),
        packed.map_or(0, |affine| affine.bits),
        scores.scale,
        scores.window.unwrap_or(0),
        scores.keep,
        scores.soft_cap.unwrap_or(0.0),
        &or_null(scores.sinks.as_ref()),
    ))
}

/// Whether [`attend_and_keep`] is there for `x`: on the CPU, in float32.
pub fn keeps_by_itself(x: &Array) -> bool {
    ffi::computes_here(x.raw())
}

/// A sequence in [`attend_and_keep`].
pub struct Kept<'a> {
    /// The arrays of its keys, then those of its values, as in [`attention_over`], `[1, kv_heads, capacity, ..]`.
    pub buffers: &'a [Array],
    /// Positions that are filled.
    pub filled: i32,
    /// Tokens that it has in the step; their positions come behind those that are filled.
    pub added: i32,
    /// Whether nobody else writes there: if not, what is filled is copied first.
    pub own: bool,
}

/// Writes the keys and values of new tokens, `[tokens, kv_heads, 1, head_dim]`, behind what each sequence keeps, in
/// its format, and has every token attend to its own sequence. The sequences' tokens lie behind one another.
///
/// Gives what is found, the heads of a token side by side (`[tokens, heads · head_dim]`), and each sequence's buffers.
#[track_caller]
pub fn attend_and_keep(
    queries: &Array,
    keys: &Array,
    values: &Array,
    rows: &[Kept<'_>],
    packed: Option<Affine>,
    scores: &Scores,
) -> Result<(Array, Vec<Vec<Array>>), MlxError> {
    let buffers: Vec<&Array> = rows.iter().flat_map(|row| row.buffers).collect();
    let places: Vec<ffi::KeptRow> = rows
        .iter()
        .map(|row| ffi::KeptRow {
            filled: row.filled,
            added: row.added,
            own: row.own,
        })
        .collect();
    let all = ffi::attend_and_keep(
        queries.raw(),
        keys.raw(),
        values.raw(),
        &list(&buffers),
        &places,
        packed.map_or(0, |affine| affine.group_size),
        packed.map_or(0, |affine| affine.bits),
        scores.scale,
        scores.window.unwrap_or(0),
        scores.keep,
        scores.soft_cap.unwrap_or(0.0),
        &or_null(scores.sinks.as_ref()),
    )
    .or_mlx()?;
    let mut next = (0..).map(|index| Array::wrap(ffi::list_get(&all, index)));
    let mut take = || {
        next.next()
            .unwrap_or_else(|| Err(MlxError::new("an array is missing")))
    };
    let found = take()?;
    let buffers = rows
        .iter()
        .map(|row| row.buffers.iter().map(|_| take()).collect())
        .collect::<Result<_, _>>()?;
    Ok((found, buffers))
}
