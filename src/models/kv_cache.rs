//! Keys and values of a sequence's past, for one layer.

use crate::mlx::{Array, MlxError};

/// Positions that are allocated at once, as many as in mlx-lm's `KVCache`.
const STEP: i32 = 256;

/// Keys and values of every position so far, each `[1, kv_heads, capacity, head_dim]`.
///
/// The buffers grow by whole steps of 256 positions, so that most updates write in place. A clone
/// shares them until either writes: MLX then copies.
#[derive(Clone, Default)]
pub struct KvCache {
    buffers: Option<(Array, Array)>,
    len: i32,
}

impl KvCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Positions held.
    pub fn len(&self) -> i32 {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions that the buffers have room for.
    pub fn capacity(&self) -> i32 {
        self.buffers.as_ref().map_or(0, |(keys, _)| keys.dim(2))
    }

    /// Appends the keys and values of new positions, each `[1, kv_heads, new, head_dim]`, and gives
    /// those of all positions, each `[1, kv_heads, len, head_dim]`.
    #[track_caller]
    pub fn update(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array), MlxError> {
        let new = keys.dim(2);
        let end = self.len + new;
        let capacity = self.capacity();
        let (old_keys, old_values) = match self.buffers.take() {
            Some(buffers) if end <= capacity => buffers,
            old => {
                let (old_keys, old_values) = old.unzip();
                (
                    grow(old_keys.as_ref(), self.len, keys)?,
                    grow(old_values.as_ref(), self.len, values)?,
                )
            }
        };
        let keys = write(&old_keys, keys, self.len)?;
        let values = write(&old_values, values, self.len)?;
        let all = (first(&keys, end)?, first(&values, end)?);
        self.buffers = Some((keys, values));
        self.len = end;
        Ok(all)
    }

    /// The arrays to be evaluated with a step.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.buffers
            .iter()
            .flat_map(|(keys, values)| [keys, values])
    }
}

/// The first `len` positions of `buffer` with zeros behind them, enough for `new` as well.
#[track_caller]
fn grow(buffer: Option<&Array>, len: i32, new: &Array) -> Result<Array, MlxError> {
    let capacity = (len + new.dim(2) + STEP - 1) / STEP * STEP;
    let zeros = Array::zeros(&[1, new.dim(1), capacity - len, new.dim(3)], new.dtype()?)?;
    match buffer {
        None => Ok(zeros),
        Some(buffer) => Array::concatenate(&[&first(buffer, len)?, &zeros], 2),
    }
}

#[track_caller]
fn write(buffer: &Array, new: &Array, at: i32) -> Result<Array, MlxError> {
    let stop = [1, new.dim(1), at + new.dim(2), new.dim(3)];
    buffer.slice_update(new, &[0, 0, at, 0], &stop)
}

#[track_caller]
fn first(buffer: &Array, len: i32) -> Result<Array, MlxError> {
    if buffer.dim(2) == len {
        return Ok(buffer.clone());
    }
    buffer.slice(&[0; 4], &[1, buffer.dim(1), len, buffer.dim(3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` positions of one head with two features, counting up from `from`.
    fn positions(from: i32, count: i32) -> Array {
        let values: Vec<f32> = (from..from + count)
            .flat_map(|p| [p as f32, -p as f32])
            .collect();
        Array::from_f32(&values, &[1, 1, count, 2]).unwrap()
    }

    #[test]
    fn it_grows_by_steps_and_keeps_every_position() {
        let mut cache = KvCache::new();
        let mut len = 0;
        let steps = [
            (1, 256),
            (254, 256),
            (1, 256),
            (1, 512),
            (300, 768),
            (211, 768),
            (1, 1024),
        ];
        for (new, capacity) in steps {
            let update = positions(len, new);
            let (keys, values) = cache.update(&update, &update).unwrap();
            len += new;
            assert_eq!((cache.len(), cache.capacity()), (len, capacity));
            let expected = positions(0, len).to_vec_f32().unwrap();
            assert_eq!(keys.to_vec_f32().unwrap(), expected);
            assert_eq!(values.to_vec_f32().unwrap(), expected);
        }
    }

    #[test]
    fn a_clone_does_not_see_what_the_other_writes() {
        let mut cache = KvCache::new();
        cache.update(&positions(0, 3), &positions(0, 3)).unwrap();
        let mut other = cache.clone();
        cache.update(&positions(3, 1), &positions(3, 1)).unwrap();
        let (keys, _) = other.update(&positions(7, 1), &positions(7, 1)).unwrap();
        let (own, _) = cache.update(&positions(4, 1), &positions(4, 1)).unwrap();
        let last = |array: &Array| array.to_vec_f32().unwrap()[6];
        assert_eq!(last(&keys), 7.0);
        assert_eq!(last(&own), 3.0);
    }
}
