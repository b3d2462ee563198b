//! A ragged batch: the rows of one step, and where their tokens lie in what the layers see.

use std::ops::Range;

use crate::mlx::fast::{self, Scores};
use crate::mlx::recurrent::{Advanced, Carried};
use crate::mlx::{Array, Dtype, MlxError};

use super::kv_cache::KvCache;
use super::{Logits, Row, SequenceState};

/// Rows that one operation attends for: each of its results holds all of its inputs.
const ATTEND_AT_ONCE: usize = 16;

/// The rows of one forward pass. Their tokens lie behind one another, `[total]`, without padding.
///
/// What works on single tokens (projections, norms, rotary positions) sees all of them at once;
/// what looks at a sequence's past sees each row with its own state, through [`Batch::per_row`].
pub struct Batch<'b, 'r> {
    rows: &'b mut [Row<'r>],
    starts: Vec<i32>,
    total: i32,
    places: Vec<i32>,
    positions: Array,
}

/// One row, as a layer with a state sees it.
pub struct RowView<'a> {
    /// Tokens of the row in this step.
    pub len: i32,
    /// The sequence's state.
    pub state: &'a mut SequenceState,
}

impl<'b, 'r> Batch<'b, 'r> {
    /// Lays the rows out over `tokens`, the ids of all of them `[total]`.
    #[track_caller]
    pub fn new(tokens: &Array, rows: &'b mut [Row<'r>]) -> Result<Self, MlxError> {
        let mut places = Vec::new();
        let mut starts = Vec::with_capacity(rows.len());
        for row in rows.iter() {
            if row.len == 0 {
                return Err(MlxError::new("a row of the batch has no token"));
            }
            starts.push(places.len() as i32);
            let offset = row.state.len;
            places.extend((offset..offset + row.len).map(|place| place as i32));
        }
        let total = places.len() as i32;
        if tokens.shape() != [total] {
            let message = format!("the rows have {total} tokens, given are {tokens:?}");
            return Err(MlxError::new(message));
        }
        Ok(Self {
            rows,
            starts,
            total,
            positions: Array::from_i32(&places, &[total])?,
            places,
        })
    }

    /// Where each token stands in its own sequence, in numbers.
    pub fn places(&self) -> &[i32] {
        &self.places
    }

    /// The same as an array: `[total]`, int32.
    pub fn positions(&self) -> &Array {
        &self.positions
    }

    /// Calls `f` with each row's share of the arrays (each `[total, ..]`), and lays the results
    /// (each `[len, ..]`) behind one another.
    #[track_caller]
    pub fn per_row<const N: usize>(
        &mut self,
        arrays: [Array; N],
        mut f: impl FnMut([Array; N], RowView<'_>) -> Result<Array, MlxError>,
    ) -> Result<Array, MlxError> {
        if let [row] = &mut *self.rows {
            return f(arrays, view(row));
        }
        let mut outputs = Vec::with_capacity(self.rows.len());
        for (row, &start) in self.rows.iter_mut().zip(&self.starts) {
            let stop = start + row.len as i32;
            let mut share = arrays.clone();
            for array in &mut share {
                *array = between(array, start, stop)?;
            }
            outputs.push(f(share, view(row))?);
        }
        Array::concatenate(&outputs.iter().collect::<Vec<_>>(), 0)
    }

    /// Appends the keys and values of all tokens, `[total, kv_heads, 1, head_dim]`, to those that attention layer
    /// `layer` keeps of each row, and gives what `queries`, `[total, heads, 1, head_dim]`, find in their own row's:
    /// `[total, heads · head_dim]`.
    #[track_caller]
    pub fn attend(
        &mut self,
        layer: usize,
        [queries, keys, values]: [Array; 3],
        scores: &Scores,
    ) -> Result<Array, MlxError> {
        if !fast::keeps_by_itself(&queries) {
            return self.per_row([queries, keys, values], |[queries, keys, values], row| {
                let (queries, keys) = (as_sequence(queries)?, as_sequence(keys)?);
                let values = as_sequence(values)?;
                let (cache, scores) = row.state.for_new(layer, row.len, scores)?;
                cache.attend(&queries, &keys, &values, &scores)
            });
        }
        let mut found = Vec::with_capacity(self.rows.len().div_ceil(ATTEND_AT_ONCE));
        let starts = self.starts.chunks(ATTEND_AT_ONCE);
        for (rows, starts) in self.rows.chunks_mut(ATTEND_AT_ONCE).zip(starts) {
            let start = starts.first().copied().unwrap_or(0);
            let tokens: i32 = rows.iter().map(|row| row.len as i32).sum();
            let mut scores = scores.clone();
            let mut caches = Vec::with_capacity(rows.len());
            for row in rows {
                let new = row.len as i32;
                let (cache, own) = row.state.for_new(layer, new, &scores)?;
                scores = own;
                caches.push((cache, new));
            }
            let part = |array| match tokens == self.total {
                true => Ok(Array::clone(array)),
                false => between(array, start, start + tokens),
            };
            found.push(KvCache::attend_all(
                caches,
                &part(&queries)?,
                &part(&keys)?,
                &part(&values)?,
                &scores,
            )?);
        }
        match &found[..] {
            [found] => Ok(found.clone()),
            found => Array::concatenate(&found.iter().collect::<Vec<_>>(), 0),
        }
    }

    /// Advances what the rows carry in part `part` of layer `layer`, which begins as zeros of `shape` in
    /// `dtype`. `f` sees all rows at once; gives what comes out for their tokens, `[total, ..]`.
    #[track_caller]
    pub fn advance(
        &mut self,
        layer: usize,
        part: usize,
        (shape, dtype): (&[i32], Dtype),
        f: impl FnOnce(Carried<'_>) -> Result<Advanced, MlxError>,
    ) -> Result<Array, MlxError> {
        let mut lengths = Vec::with_capacity(self.rows.len());
        let mut states = Vec::with_capacity(self.rows.len());
        for row in self.rows.iter_mut() {
            lengths.push(row.len as i32);
            states.push(match row.state.rolling(layer)?.get(part) {
                Some(state) => state.clone(),
                None => Array::zeros(shape, dtype)?,
            });
        }
        let advanced = f(Carried {
            states: &states.iter().collect::<Vec<_>>(),
            lengths: &lengths,
        })?;
        for (row, state) in self.rows.iter_mut().zip(advanced.states) {
            let carried = row.state.rolling(layer)?;
            match carried.get_mut(part) {
                Some(before) => *before = state,
                None => carried.push(state),
            }
        }
        Ok(advanced.out)
    }

    /// Ends the step: calls `head` with the hidden states of the positions whose logits are wanted
    /// (`[positions, hidden]` to `[positions, vocab]`), gives its result in float32, and advances the
    /// sequences. `None` where no row wants logits.
    #[track_caller]
    pub fn finish(
        self,
        hidden: &Array,
        head: impl FnOnce(&Array) -> Result<Array, MlxError>,
    ) -> Result<Option<Array>, MlxError> {
        let mut wanted: Vec<Range<i32>> = Vec::with_capacity(self.rows.len());
        for (row, &start) in self.rows.iter().zip(&self.starts) {
            let stop = start + row.len as i32;
            match row.logits {
                Logits::None => {}
                Logits::Last => wanted.push(stop - 1..stop),
                Logits::All => wanted.push(start..stop),
            }
        }
        let positions: Vec<i32> = wanted.into_iter().flatten().collect();
        let logits = if positions.is_empty() {
            None
        } else {
            let logits = head(&select(hidden, &positions, self.total)?)?;
            Some(logits.astype(Dtype::Float32)?)
        };
        for row in self.rows.iter_mut() {
            row.state.len += row.len;
        }
        Ok(logits)
    }
}

fn view<'a>(row: &'a mut Row<'_>) -> RowView<'a> {
    RowView {
        len: row.len as i32,
        state: row.state,
    }
}

/// `[len, heads, 1, head_dim]` to `[1, heads, len, head_dim]`.
#[track_caller]
pub fn as_sequence(x: Array) -> Result<Array, MlxError> {
    swap_ends(x)
}

/// `[1, heads, len, head_dim]` to `[len, heads, 1, head_dim]`.
#[track_caller]
pub fn as_tokens(x: Array) -> Result<Array, MlxError> {
    swap_ends(x)
}

#[track_caller]
fn swap_ends(x: Array) -> Result<Array, MlxError> {
    if (x.dim(0), x.dim(2)) == (1, 1) {
        return Ok(x);
    }
    x.transpose(&[2, 1, 0, 3])
}

/// Entries `start..stop` of the first dimension.
#[track_caller]
fn between(array: &Array, start: i32, stop: i32) -> Result<Array, MlxError> {
    let mut from = vec![0; array.shape().len()];
    let mut to = array.shape().to_vec();
    if let (Some(from), Some(to)) = (from.first_mut(), to.first_mut()) {
        (*from, *to) = (start, stop);
    }
    array.slice(&from, &to)
}

/// The given positions, ascending, of `[total, hidden]`, with as little work as it takes.
#[track_caller]
fn select(hidden: &Array, positions: &[i32], total: i32) -> Result<Array, MlxError> {
    match (positions.first(), positions.last()) {
        (Some(0), Some(_)) if positions.len() == total as usize => Ok(hidden.clone()),
        (Some(&first), Some(&last)) if positions.len() as i32 == last - first + 1 => {
            between(hidden, first, last + 1)
        }
        _ => hidden.take(&Array::from_i32(positions, &[positions.len() as i32])?, 0),
    }
}
