//! Keys and values of a sequence's past, for one layer.

use std::rc::Rc;

use crate::mlx::fast::{self, Kept, Scores};
use crate::mlx::{Array, MlxError};

use super::kv_format::KvFormat;

/// Positions that are allocated at once, as many as in mlx-lm's `KVCache`.
const STEP: i32 = 256;

/// What a layer gets that takes its keys and values from a cache which only attention can read.
#[track_caller]
pub(super) fn read_otherwise() -> MlxError {
    MlxError::new("a layer of this architecture reads its cache in another way than attention does")
}

/// Keys and values of every position so far.
///
/// The buffers grow by whole steps of 256 positions, so that most updates write in place. A clone
/// shares them until either writes: MLX then copies.
#[derive(Clone, Default)]
pub struct KvCache {
    format: KvFormat,
    /// The arrays that the format takes for the keys, then those for the values, each
    /// `[1, kv_heads, capacity, ..]`; none in an empty cache.
    buffers: Vec<Array>,
    len: i32,
    /// Held by every cache that may write to the same memory.
    writers: Rc<()>,
}

impl KvCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps keys and values in this format from now on. For an empty cache.
    pub(super) fn set_format(&mut self, format: KvFormat) {
        self.format = format;
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
        self.buffers.first().map_or(0, |buffer| buffer.dim(2))
    }

    /// Appends the keys and values of new positions, each `[1, kv_heads, new, head_dim]`, and gives
    /// those of all positions, each `[1, kv_heads, len, head_dim]`. Fails where they are packed.
    #[track_caller]
    pub fn update(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array), MlxError> {
        if let KvFormat::Packed(_) = self.format {
            return Err(read_otherwise());
        }
        self.append(keys, values)?;
        match &self.held()?[..] {
            [keys, values] => Ok((keys.clone(), values.clone())),
            _ => Err(MlxError::new("keys and values are two arrays")),
        }
    }

    /// Appends the keys and values of new positions, `[1, kv_heads, new, head_dim]`, and gives what `queries` find
    /// ([`attention`](fast::attention)), the heads of a token side by side: `[new, heads · head_dim]`.
    #[track_caller]
    pub fn attend(
        &mut self,
        queries: &Array,
        keys: &Array,
        values: &Array,
        scores: &Scores,
    ) -> Result<Array, MlxError> {
        self.append(keys, values)?;
        self.find(queries, scores)?
            .transpose(&[0, 2, 1, 3])?
            .reshape(&[queries.dim(2), -1])
    }

    /// The same for several sequences at once, where our kernels compute ([`fast::keeps_by_itself`]). `queries`, `keys`
    /// and `values` are those of all of them, `[tokens, heads, 1, head_dim]`; each cache comes with its tokens.
    #[track_caller]
    pub fn attend_all(
        mut caches: Vec<(&mut Self, i32)>,
        queries: &Array,
        keys: &Array,
        values: &Array,
        scores: &Scores,
    ) -> Result<Array, MlxError> {
        let mut packed = None;
        for (cache, new) in &mut caches {
            cache.make_room(*new, keys)?;
            packed = cache.format.affine();
        }
        let rows: Vec<Kept<'_>> = caches
            .iter()
            .map(|(cache, new)| Kept {
                buffers: &cache.buffers,
                filled: cache.len,
                added: *new,
                // Nobody looks behind what is filled, so only another writer matters.
                own: Rc::strong_count(&cache.writers) == 1,
            })
            .collect();
        let (found, buffers) = fast::attend_and_keep(queries, keys, values, &rows, packed, scores)?;
        for ((cache, new), buffers) in caches.into_iter().zip(buffers) {
            cache.buffers = buffers;
            cache.len += new;
            if Rc::strong_count(&cache.writers) > 1 {
                cache.writers = Rc::default();
            }
        }
        Ok(found)
    }

    /// Has buffers with room for `new` positions of what is like `keys`, `[tokens, kv_heads, 1, head_dim]`.
    #[track_caller]
    fn make_room(&mut self, new: i32, keys: &Array) -> Result<(), MlxError> {
        if !self.buffers.is_empty() && self.len + new <= self.capacity() {
            return Ok(());
        }
        if self.buffers.is_empty() {
            let shapes = self.format.shapes(keys)?;
            let room = capacity(new);
            for (features, dtype) in shapes.iter().chain(&shapes) {
                let shape = [1, keys.dim(1), room, *features];
                self.buffers.push(Array::zeros(&shape, *dtype)?);
            }
        } else {
            for buffer in &mut self.buffers {
                *buffer = grown(buffer, self.len, new)?;
            }
        }
        self.writers = Rc::default();
        Ok(())
    }

    /// What `queries`, which belong to the last positions held, find.
    #[track_caller]
    pub fn find(&self, queries: &Array, scores: &Scores) -> Result<Array, MlxError> {
        let held = self.held()?;
        let held: Vec<&Array> = held.iter().collect();
        let (keys, values) = held.split_at(held.len() / 2);
        fast::attention_over(queries, keys, values, self.format.affine(), scores)
    }

    /// The buffers as far as they are filled.
    #[track_caller]
    fn held(&self) -> Result<Vec<Array>, MlxError> {
        let filled = self.buffers.iter().map(|buffer| first(buffer, self.len));
        filled.collect()
    }

    #[track_caller]
    fn append(&mut self, keys: &Array, values: &Array) -> Result<(), MlxError> {
        let mut new = self.format.encode(keys)?;
        new.append(&mut self.format.encode(values)?);
        let end = self.len + keys.dim(2);
        let fits = end <= self.capacity();
        let mut old = std::mem::take(&mut self.buffers).into_iter();
        for new in &new {
            // Moved, so that it is written in place where nobody else has it.
            let buffer = match old.next() {
                Some(buffer) if fits => buffer,
                Some(buffer) => grown(&buffer, self.len, keys.dim(2))?,
                None => {
                    let room = capacity(end);
                    Array::zeros(&[1, new.dim(1), room, new.dim(3)], new.dtype()?)?
                }
            };
            self.buffers.push(write(&buffer, new, self.len)?);
        }
        self.len = end;
        Ok(())
    }

    /// Lets go of `count` positions behind the first `keep`; those behind them move up.
    #[track_caller]
    pub(super) fn forget(&mut self, keep: i32, count: i32) -> Result<(), MlxError> {
        if count <= 0 || self.buffers.is_empty() {
            return Ok(());
        }
        for buffer in &mut self.buffers {
            let rest = positions(buffer, keep + count, self.len)?;
            *buffer = match keep {
                0 => rest,
                _ => Array::concatenate(&[&positions(buffer, 0, keep)?, &rest], 2)?,
            };
        }
        self.len -= count;
        Ok(())
    }

    /// A copy of the keys and values of positions `start..stop`; `None` where they are not held.
    #[track_caller]
    pub fn segment(&self, start: i32, stop: i32) -> Result<Option<KvSegment>, MlxError> {
        if self.buffers.is_empty() || start < 0 || start >= stop || stop > self.len {
            return Ok(None);
        }
        let copies = self.buffers.iter().map(|buffer| copy(buffer, start, stop));
        Ok(Some(KvSegment(copies.collect::<Result<_, _>>()?)))
    }

    /// Fills an empty cache with the positions of the segments, in their order.
    #[track_caller]
    pub fn restore<'a>(
        &mut self,
        segments: impl Iterator<Item = &'a KvSegment>,
    ) -> Result<(), MlxError> {
        let segments: Vec<_> = segments.collect();
        let Some(one) = segments.first() else {
            return Ok(());
        };
        let len: i32 = segments.iter().map(|segment| segment.len()).sum();
        // Whoever restores goes on.
        let room = capacity(len + 1) - len;
        self.buffers = (0..one.0.len())
            .map(|index| {
                let parts = segments.iter().filter_map(|segment| segment.0.get(index));
                Array::concatenate_with_room(&parts.collect::<Vec<_>>(), 2, room)
            })
            .collect::<Result<_, _>>()?;
        self.len = len;
        Ok(())
    }

    /// The arrays to be evaluated with a step.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.buffers.iter()
    }
}

/// Keys and values of some consecutive positions of one layer, in memory of their own: the arrays of a
/// [`KvCache`], cut to these positions.
#[derive(Clone)]
pub struct KvSegment(Vec<Array>);

impl KvSegment {
    fn len(&self) -> i32 {
        self.0.first().map_or(0, |array| array.dim(2))
    }

    /// A look at its first `len` positions.
    #[track_caller]
    pub fn first(&self, len: i32) -> Result<Self, MlxError> {
        let looks = self.0.iter().map(|array| first(array, len));
        Ok(Self(looks.collect::<Result<_, _>>()?))
    }

    /// Copies of what lies before position `at` and of the rest.
    #[track_caller]
    pub fn split(&self, at: i32) -> Result<(Self, Self), MlxError> {
        let part = |start, stop| {
            let copies = self.0.iter().map(|array| copy(array, start, stop));
            copies.collect::<Result<_, _>>().map(Self)
        };
        Ok((part(0, at)?, part(at, self.len())?))
    }

    /// The arrays to be evaluated before their source goes on.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.0.iter()
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

/// The first `len` positions of `buffer` with zeros behind them, enough for `new` ones.
#[track_caller]
fn grown(buffer: &Array, len: i32, new: i32) -> Result<Array, MlxError> {
    let room = capacity(len + new) - len;
    Array::concatenate_with_room(&[&first(buffer, len)?], 2, room)
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

/// Positions `start..stop` in memory of their own.
#[track_caller]
fn copy(buffer: &Array, start: i32, stop: i32) -> Result<Array, MlxError> {
    Array::concatenate(&[&positions(buffer, start, stop)?], 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::Device;

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

    /// What is written to one cache is seen by nobody else, whoever came first or was there before.
    #[test]
    fn clones_that_attend_do_not_see_what_the_others_write() {
        Device::Cpu.make_default().unwrap();
        let scores = Scores::plain(2);
        let attend = |cache: &mut KvCache, from, count: i32| {
            let new = counting(from, count).transpose(&[2, 1, 0, 3]).unwrap();
            KvCache::attend_all(vec![(cache, count)], &new, &new, &new, &scores).unwrap()
        };
        let numbers = |cache: &KvCache| {
            let KvSegment(arrays) = cache.segment(0, cache.len()).unwrap().unwrap();
            arrays[1].to_vec_f32().unwrap()
        };
        let expected = |parts: &[(i32, i32)]| -> Vec<f32> {
            let parts = parts.iter().map(|&(from, count)| counting(from, count));
            parts.flat_map(|it| it.to_vec_f32().unwrap()).collect()
        };
        let mut cache = KvCache::new();
        attend(&mut cache, 0, 3);
        let early = cache.segment(0, 3).unwrap().unwrap();
        let mut other = cache.clone();
        let third = other.clone();
        attend(&mut cache, 3, 1);
        attend(&mut other, 70, 2);
        attend(&mut cache, 4, 1);
        assert_eq!(numbers(&cache), expected(&[(0, 5)]));
        assert_eq!(numbers(&other), expected(&[(0, 3), (70, 2)]));
        assert_eq!(numbers(&third), expected(&[(0, 3)]));
        let mut restored = KvCache::new();
        restored.restore([&early].into_iter()).unwrap();
        attend(&mut restored, 9, 300);
        assert_eq!(numbers(&restored), expected(&[(0, 3), (9, 300)]));
        drop((other, third));
        attend(&mut cache, 5, 252);
        assert_eq!(numbers(&cache), expected(&[(0, 257)]));
    }

    #[test]
    fn segments_restore_what_they_were_cut_from() {
        let mut cache = KvCache::new();
        cache.update(&counting(0, 300), &counting(0, 300)).unwrap();
        assert!(cache.segment(200, 301).unwrap().is_none());
        let segment = |start, stop| cache.segment(start, stop).unwrap().unwrap();
        let (left, right) = segment(100, 256).split(50).unwrap();
        let parts = [segment(0, 100), left, right.first(106).unwrap()];
        let mut restored = KvCache::new();
        restored.restore(parts.iter()).unwrap();
        assert_eq!((restored.len(), restored.capacity()), (256, 512));
        let (keys, values) = restored
            .update(&counting(256, 1), &counting(256, 1))
            .unwrap();
        let expected = counting(0, 257).to_vec_f32().unwrap();
        assert_eq!(keys.to_vec_f32().unwrap(), expected);
        assert_eq!(values.to_vec_f32().unwrap(), expected);
        let mut empty = KvCache::new();
        empty.restore([].iter()).unwrap();
        assert!(empty.is_empty());
    }
}
