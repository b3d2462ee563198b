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

    /// The keys and values of all positions; `None` where there are none.
    #[track_caller]
    pub fn held(&self) -> Result<Option<(Array, Array)>, MlxError> {
        match &self.buffers {
            Some((keys, values)) => Ok(Some((first(keys, self.len)?, first(values, self.len)?))),
            None => Ok(None),
        }
    }

    /// Lets go of the first `count` positions; those behind them move up.
    #[track_caller]
    pub(super) fn forget(&mut self, count: i32) -> Result<(), MlxError> {
        if count <= 0 {
            return Ok(());
        }
        if let Some((keys, values)) = self.buffers.take() {
            self.buffers = Some((
                positions(&keys, count, self.len)?,
                positions(&values, count, self.len)?,
            ));
            self.len -= count;
        }
        Ok(())
    }

    /// A copy of the keys and values of positions `start..stop`; `None` where they are not held.
    #[track_caller]
    pub fn segment(&self, start: i32, stop: i32) -> Result<Option<KvSegment>, MlxError> {
        let Some((keys, values)) = &self.buffers else {
            return Ok(None);
        };
        if start < 0 || start >= stop || stop > self.len {
            return Ok(None);
        }
        KvSegment::join(
            &positions(keys, start, stop)?,
            &positions(values, start, stop)?,
        )
        .map(Some)
    }

    /// A cache with the positions of the segments, in their order.
    #[track_caller]
    pub fn restore<'a>(segments: impl Iterator<Item = &'a KvSegment>) -> Result<Self, MlxError> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut len = 0;
        for segment in segments {
            let (segment_keys, segment_values) = segment.parts()?;
            len += segment_keys.dim(2);
            keys.push(segment_keys);
            values.push(segment_values);
        }
        // Whoever restores goes on.
        let room = capacity(len + 1) - len;
        let pad = |parts: Vec<Array>| {
            if parts.is_empty() {
                return Ok(None);
            }
            Array::concatenate_with_room(&parts.iter().collect::<Vec<_>>(), 2, room).map(Some)
        };
        let buffers = pad(keys)?.zip(pad(values)?);
        Ok(Self { buffers, len })
    }

    /// The arrays to be evaluated with a step.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.buffers
            .iter()
            .flat_map(|(keys, values)| [keys, values])
    }
}

/// Keys and values of some consecutive positions of one layer, in memory of their own.
#[derive(Clone)]
pub struct KvSegment {
    /// `[1, kv_heads, positions, key_dim + value_dim]`.
    joined: Array,
    key_dim: i32,
}

impl KvSegment {
    /// Copies `keys` and `values`, each `[1, kv_heads, positions, dim]`.
    #[track_caller]
    fn join(keys: &Array, values: &Array) -> Result<Self, MlxError> {
        Ok(Self {
            joined: Array::concatenate(&[keys, values], 3)?,
            key_dim: keys.dim(3),
        })
    }

    #[track_caller]
    fn parts(&self) -> Result<(Array, Array), MlxError> {
        let [_, heads, len, dim] = *self.joined.shape() else {
            return Err(MlxError::new("a segment has four dimensions"));
        };
        Ok((
            self.joined.slice(&[0; 4], &[1, heads, len, self.key_dim])?,
            self.joined
                .slice(&[0, 0, 0, self.key_dim], &[1, heads, len, dim])?,
        ))
    }

    /// A look at its first `len` positions.
    #[track_caller]
    pub fn first(&self, len: i32) -> Result<Self, MlxError> {
        Ok(Self {
            joined: first(&self.joined, len)?,
            key_dim: self.key_dim,
        })
    }

    /// Copies of what lies before position `at` and of the rest.
    #[track_caller]
    pub fn split(&self, at: i32) -> Result<(Self, Self), MlxError> {
        let (keys, values) = self.parts()?;
        let copy = |start, stop| {
            Self::join(
                &positions(&keys, start, stop)?,
                &positions(&values, start, stop)?,
            )
        };
        Ok((copy(0, at)?, copy(at, self.joined.dim(2))?))
    }

    /// The array to be evaluated before its source goes on.
    pub fn array(&self) -> &Array {
        &self.joined
    }
}

/// Positions that a cache of `len` has room for.
fn capacity(len: i32) -> i32 {
    (len + STEP - 1) / STEP * STEP
}

/// Positions that a cache of `len` has room for, for whoever plans with it.
pub fn capacity_for(len: usize) -> u64 {
    let step = STEP.unsigned_abs().into();
    (len as u64).div_ceil(step).saturating_mul(step)
}

/// The first `len` positions of `buffer` with zeros behind them, enough for `new` as well.
#[track_caller]
fn grow(buffer: Option<&Array>, len: i32, new: &Array) -> Result<Array, MlxError> {
    let room = capacity(len + new.dim(2)) - len;
    match buffer {
        None => Array::zeros(&[1, new.dim(1), room, new.dim(3)], new.dtype()?),
        Some(buffer) => Array::concatenate_with_room(&[&first(buffer, len)?], 2, room),
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
    positions(buffer, 0, len)
}

#[track_caller]
fn positions(buffer: &Array, start: i32, stop: i32) -> Result<Array, MlxError> {
    buffer.slice(&[0, 0, start, 0], &[1, buffer.dim(1), stop, buffer.dim(3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` positions of one head with two features, counting up from `from`.
    fn counting(from: i32, count: i32) -> Array {
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
            let update = counting(len, new);
            let (keys, values) = cache.update(&update, &update).unwrap();
            len += new;
            assert_eq!((cache.len(), cache.capacity()), (len, capacity));
            let expected = counting(0, len).to_vec_f32().unwrap();
            assert_eq!(keys.to_vec_f32().unwrap(), expected);
            assert_eq!(values.to_vec_f32().unwrap(), expected);
        }
    }

    #[test]
    fn a_clone_does_not_see_what_the_other_writes() {
        let mut cache = KvCache::new();
        cache.update(&counting(0, 3), &counting(0, 3)).unwrap();
        let mut other = cache.clone();
        cache.update(&counting(3, 1), &counting(3, 1)).unwrap();
        let (keys, _) = other.update(&counting(7, 1), &counting(7, 1)).unwrap();
        let (own, _) = cache.update(&counting(4, 1), &counting(4, 1)).unwrap();
        let last = |array: &Array| array.to_vec_f32().unwrap()[6];
        assert_eq!(last(&keys), 7.0);
        assert_eq!(last(&own), 3.0);
    }

    #[test]
    fn segments_restore_what_they_were_cut_from() {
        let mut cache = KvCache::new();
        cache.update(&counting(0, 300), &counting(0, 300)).unwrap();
        assert!(cache.segment(200, 301).unwrap().is_none());
        let segment = |start, stop| cache.segment(start, stop).unwrap().unwrap();
        let (left, right) = segment(100, 256).split(50).unwrap();
        let parts = [segment(0, 100), left, right.first(106).unwrap()];
        let mut restored = KvCache::restore(parts.iter()).unwrap();
        assert_eq!((restored.len(), restored.capacity()), (256, 512));
        let (keys, values) = restored
            .update(&counting(256, 1), &counting(256, 1))
            .unwrap();
        let expected = counting(0, 257).to_vec_f32().unwrap();
        assert_eq!(keys.to_vec_f32().unwrap(), expected);
        assert_eq!(values.to_vec_f32().unwrap(), expected);
        assert!(KvCache::restore([].iter()).unwrap().is_empty());
    }
}
