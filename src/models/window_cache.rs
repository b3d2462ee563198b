//! Keys and values of a sequence's last positions, for one layer with a sliding window.

use crate::mlx::fast::Scores;
use crate::mlx::{Array, MlxError};

use super::kv_cache::{KvCache, read_otherwise};

/// Positions are let go of in blocks of as many as our attention kernel takes together, counted from
/// the first of the sequence: what it computes then does not depend on how many are still held.
const BLOCK: i32 = 256;

/// The first positions, which a capped cache never lets go of: as many as in mlx-lm.
pub const KEEP: i32 = 4;

/// Keys and values of the positions that the next token sees, and of some before them.
///
/// A buffer that is full lets go of the blocks that nobody will see again before it grows, so that
/// most updates write in place, and a sequence of any length takes no more than
/// [`most_positions`] beside the tokens of one step. A clone shares the buffers until either writes.
#[derive(Clone)]
pub struct WindowCache {
    window: i32,
    /// Positions from the first of the sequence on that every token sees as well.
    keep: i32,
    last: KvCache,
}

impl WindowCache {
    /// An empty cache, for tokens that see `window` positions, their own among them.
    pub fn new(window: i32) -> Self {
        Self {
            window,
            keep: 0,
            last: KvCache::new(),
        }
    }

    /// An empty cache, for tokens that see `positions` in all: the first [`KEEP`], and the last (mlx-lm's
    /// `RotatingKVCache`). `positions` are more than `KEEP`.
    pub fn capped(positions: i32) -> Self {
        Self {
            window: positions - KEEP,
            keep: KEEP,
            last: KvCache::new(),
        }
    }

    /// How a layer's queries meet the keys that are held.
    fn scores(&self, layer: &Scores) -> Scores {
        match self.keep {
            0 => layer.clone(),
            keep => Scores {
                window: Some(self.window),
                keep,
                ..layer.clone()
            },
        }
    }

    /// Appends the keys and values of new positions, each `[1, kv_heads, new, head_dim]`, and gives
    /// those of all positions that are held, the new ones last.
    #[track_caller]
    pub fn update(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array), MlxError> {
        if self.keep > 0 {
            return Err(read_otherwise());
        }
        self.make_room(keys.dim(2))?;
        self.last.update(keys, values)
    }

    /// Where the keys and values of `new` positions are to be appended, and how `queries` meet those that are held.
    #[track_caller]
    pub(super) fn for_new(
        &mut self,
        new: i32,
        scores: &Scores,
    ) -> Result<(&mut KvCache, Scores), MlxError> {
        self.make_room(new)?;
        let scores = self.scores(scores);
        Ok((&mut self.last, scores))
    }

    fn make_room(&mut self, new: i32) -> Result<(), MlxError> {
        let held = self.last.len();
        if held + new > self.last.capacity() {
            // The block of those that are kept stays as a whole.
            let kept = if self.keep > 0 { BLOCK } else { 0 };
            let unseen = (held + 1 - self.window - kept).max(0);
            self.last.forget(kept, unseen / BLOCK * BLOCK)?;
        }
        Ok(())
    }

    /// What `queries`, which belong to the last positions held, find.
    #[track_caller]
    pub fn find(&self, queries: &Array, scores: &Scores) -> Result<Array, MlxError> {
        self.last.find(queries, &self.scores(scores))
    }

    /// The arrays to be evaluated with a step.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.last.arrays()
    }
}

/// The same of a capped cache for `positions`.
pub fn most_capped(positions: i32) -> usize {
    most_positions(positions) + BLOCK as usize
}

/// Positions that a cache has room for at the utmost, between steps of single tokens.
pub fn most_positions(window: i32) -> usize {
    let most = window.saturating_add(BLOCK - 1) as usize;
    most.div_ceil(BLOCK as usize) * BLOCK as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Positions `from..from + count` of one head with one feature: their numbers.
    fn counting(from: i32, count: i32) -> Array {
        let values: Vec<f32> = (from..from + count).map(|p| p as f32).collect();
        Array::from_f32(&values, &[1, 1, count, 1]).unwrap()
    }

    #[test]
    fn it_holds_the_window_in_whole_blocks_and_no_more() {
        for window in [1, 64, 256, 300, 512] {
            let mut cache = WindowCache::new(window);
            let mut len = 0;
            for new in [5, 700, 1, 33].into_iter().chain([1; 1000]) {
                let update = counting(len, new);
                let (keys, values) = cache.update(&update, &update).unwrap();
                len += new;
                Array::eval_all(&cache.arrays().collect::<Vec<_>>()).unwrap();
                let keys = keys.to_vec_f32().unwrap();
                let first = keys[0] as i32;
                assert!(first % BLOCK == 0 && first <= (len - new + 1 - window).max(0));
                let expected: Vec<f32> = (first..len).map(|p| p as f32).collect();
                assert_eq!(keys, expected);
                assert_eq!(values.to_vec_f32().unwrap(), expected);
            }
            let held = cache.last.capacity() as usize;
            assert!(held <= most_positions(window), "{held} for {window}");
        }
    }

    #[test]
    fn a_capped_cache_holds_its_first_block_too() {
        let mut cache = WindowCache::capped(300);
        let scores = Scores::plain(1);
        let mut len = 0;
        for new in [5, 700, 1, 33].into_iter().chain([1; 1000]) {
            let update = counting(len, new);
            let (last, scores) = cache.for_new(new, &scores).unwrap();
            last.attend(&update, &update, &update, &scores).unwrap();
            len += new;
            Array::eval_all(&cache.arrays().collect::<Vec<_>>()).unwrap();
            let segment = cache.last.len();
            let places = cache.arrays().next().unwrap().to_vec_f32().unwrap();
            let held: Vec<i32> = places[..segment as usize]
                .iter()
                .map(|&p| p as i32)
                .collect();
            let kept: Vec<i32> = (0..len.min(BLOCK)).collect();
            assert!(held.starts_with(&kept));
            let rest = &held[kept.len()..];
            let first = rest.first().copied().unwrap_or(len);
            assert!(first % BLOCK == 0 || rest.is_empty());
            assert!(first <= BLOCK.max(len - new + 1 - (300 - KEEP)));
            assert_eq!(rest, (first..len).collect::<Vec<_>>());
        }
        assert!(cache.last.capacity() as usize <= most_capped(300));
    }

    #[test]
    fn a_clone_does_not_see_what_the_other_writes() {
        let mut cache = WindowCache::new(2);
        cache.update(&counting(0, 3), &counting(0, 3)).unwrap();
        let mut other = cache.clone();
        cache.update(&counting(7, 1), &counting(7, 1)).unwrap();
        let (keys, _) = other.update(&counting(3, 1), &counting(3, 1)).unwrap();
        assert_eq!(keys.to_vec_f32().unwrap(), [0.0, 1.0, 2.0, 3.0]);
    }
}
