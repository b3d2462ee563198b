//! Keys and values of a sequence's last positions, for one layer with a sliding window.

use crate::mlx::fast::Scores;
use crate::mlx::{Array, MlxError};

use super::kv_cache::KvCache;

/// Positions are let go of in blocks of as many as our attention kernel takes together, counted from
/// the first of the sequence: what it computes then does not depend on how many are still held.
const BLOCK: i32 = 256;

/// Keys and values of the positions that the next token sees, and of some before them.
///
/// A buffer that is full lets go of the blocks that nobody will see again before it grows, so that
/// most updates write in place, and a sequence of any length takes no more than
/// [`most_positions`] beside the tokens of one step. A clone shares the buffers until either writes.
#[derive(Clone)]
pub struct WindowCache {
    window: i32,
    last: KvCache,
}

impl WindowCache {
    /// An empty cache, for tokens that see `window` positions, their own among them.
    pub fn new(window: i32) -> Self {
        Self {
            window,
            last: KvCache::new(),
        }
    }

    /// Appends the keys and values of new positions, each `[1, kv_heads, new, head_dim]`, and gives
    /// those of all positions that are held, the new ones last.
    #[track_caller]
    pub fn update(&mut self, keys: &Array, values: &Array) -> Result<(Array, Array), MlxError> {
        let held = self.last.len();
        if held + keys.dim(2) > self.last.capacity() {
            let unseen = (held + 1 - self.window).max(0);
            self.last.forget(unseen / BLOCK * BLOCK)?;
        }
        self.last.update(keys, values)
    }

    /// What `queries`, which belong to the last positions held, find.
    #[track_caller]
    pub fn find(&self, queries: &Array, scores: &Scores) -> Result<Array, MlxError> {
        self.last.find(queries, scores)
    }

    /// The arrays to be evaluated with a step.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.last.arrays()
    }
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
    fn a_clone_does_not_see_what_the_other_writes() {
        let mut cache = WindowCache::new(2);
        cache.update(&counting(0, 3), &counting(0, 3)).unwrap();
        let mut other = cache.clone();
        cache.update(&counting(7, 1), &counting(7, 1)).unwrap();
        let (keys, _) = other.update(&counting(3, 1), &counting(3, 1)).unwrap();
        assert_eq!(keys.to_vec_f32().unwrap(), [0.0, 1.0, 2.0, 3.0]);
    }
}
