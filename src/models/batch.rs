//! A ragged batch: the rows of one step, and where their tokens lie in what the layers see.

use crate::mlx::{Array, Dtype, MlxError};

use super::{Logits, Row, SequenceState};

/// The rows of one forward pass. Their tokens lie behind one another, `[total]`, without padding.
pub struct Batch<'b, 'r> {
    rows: &'b mut [Row<'r>],
    starts: Vec<i32>,
    total: i32,
}

/// One row, as attention sees it.
pub struct RowView<'a> {
    /// Tokens of the row in this step.
    pub len: i32,
    /// Tokens of the sequence before this step.
    pub offset: i32,
    /// The sequence's state.
    pub state: &'a mut SequenceState,
}

impl<'b, 'r> Batch<'b, 'r> {
    /// Lays the rows out, and gives their token ids `[total]`. Fails where a row has no token, or
    /// one that is not below `vocab_size` (MLX would read whatever lies there).
    #[track_caller]
    pub fn new(rows: &'b mut [Row<'r>], vocab_size: usize) -> Result<(Self, Array), MlxError> {
        let mut tokens = Vec::new();
        let mut starts = Vec::with_capacity(rows.len());
        for row in rows.iter() {
            if row.tokens.is_empty() {
                return Err(MlxError::new("a row of the batch has no token"));
            }
            starts.push(tokens.len() as i32);
            tokens.extend_from_slice(row.tokens);
        }
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(MlxError::new(format!(
                "token id {id} is outside of the vocabulary of {vocab_size}"
            )));
        }
        let total = tokens.len() as i32;
        let ids = Array::from_u32(&tokens, &[total])?;
        Ok((
            Self {
                rows,
                starts,
                total,
            },
            ids,
        ))
    }

    /// Calls `f` with each row's share of the arrays (each `[total, features]`), and lays the
    /// results (each `[len, features]`) behind one another.
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
            let stop = start + row.tokens.len() as i32;
            let mut share = arrays.clone();
            for array in &mut share {
                *array = rows_between(array, start, stop)?;
            }
            outputs.push(f(share, view(row))?);
        }
        Array::concatenate(&outputs.iter().collect::<Vec<_>>(), 0)
    }

    /// Ends the step: calls `head` with the hidden states of the positions whose logits are wanted
    /// (`[positions, hidden]` to `[positions, vocab]`), divides its result among the rows in float32,
    /// and advances the sequences.
    #[track_caller]
    pub fn finish(
        self,
        hidden: &Array,
        head: impl FnOnce(&Array) -> Result<Array, MlxError>,
    ) -> Result<Vec<Option<Array>>, MlxError> {
        let mut wanted = Vec::new();
        for (row, &start) in self.rows.iter().zip(&self.starts) {
            let stop = start + row.tokens.len() as i32;
            match row.logits {
                Logits::None => {}
                Logits::Last => wanted.push(stop - 1..stop),
                Logits::All => wanted.push(start..stop),
            }
        }
        let counts: Vec<i32> = wanted.iter().map(|range| range.end - range.start).collect();
        let positions: Vec<i32> = wanted.into_iter().flatten().collect();
        let mut parts = if positions.is_empty() {
            Vec::new()
        } else {
            let logits = head(&select(hidden, &positions, self.total)?)?;
            split(&logits.astype(Dtype::Float32)?, &counts)?
        }
        .into_iter();
        for row in self.rows.iter_mut() {
            row.state.len += row.tokens.len();
        }
        let logits = self.rows.iter().map(|row| match row.logits {
            Logits::None => None,
            Logits::Last | Logits::All => parts.next(),
        });
        Ok(logits.collect())
    }
}

fn view<'a>(row: &'a mut Row<'_>) -> RowView<'a> {
    RowView {
        len: row.tokens.len() as i32,
        offset: row.state.len as i32,
        state: row.state,
    }
}

/// Rows `start..stop` of `[rows, features]`.
#[track_caller]
fn rows_between(array: &Array, start: i32, stop: i32) -> Result<Array, MlxError> {
    array.slice(&[start, 0], &[stop, array.dim(1)])
}

/// The given positions, ascending, of `[total, hidden]`, with as little work as it takes.
#[track_caller]
fn select(hidden: &Array, positions: &[i32], total: i32) -> Result<Array, MlxError> {
    match (positions.first(), positions.last()) {
        (Some(0), Some(_)) if positions.len() == total as usize => Ok(hidden.clone()),
        (Some(&first), Some(&last)) if positions.len() as i32 == last - first + 1 => {
            rows_between(hidden, first, last + 1)
        }
        _ => {
            let ids: Vec<u32> = positions.iter().map(|&p| p as u32).collect();
            hidden.take(&Array::from_u32(&ids, &[ids.len() as i32])?, 0)
        }
    }
}

/// Cuts `[positions, vocab]` into pieces of `counts` positions.
#[track_caller]
fn split(logits: &Array, counts: &[i32]) -> Result<Vec<Array>, MlxError> {
    if counts.len() == 1 {
        return Ok(vec![logits.clone()]);
    }
    let mut start = 0;
    counts
        .iter()
        .map(|count| {
            let piece = rows_between(logits, start, start + count);
            start += count;
            piece
        })
        .collect()
}
