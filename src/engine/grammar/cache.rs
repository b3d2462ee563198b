//! What was compiled, for the next request that asks for the same.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sha2::{Digest, Sha256};

/// Grammars that are kept, and bytes that they may take together.
const ENTRIES: usize = 64;
const BYTES: usize = 64 << 20;

type Key = [u8; 32];
type Slot<T, E> = Arc<OnceLock<Result<Arc<T>, E>>>;

/// The last results of a slow function, refusals included, the longest unused dropped first.
pub(super) struct Cache<T, E> {
    entries: Mutex<Vec<(Key, Slot<T, E>)>>,
    bytes: fn(&T) -> usize,
    passes: fn(&E) -> bool,
}

impl<T, E: Clone> Cache<T, E> {
    /// `bytes` says what an entry takes, `passes` which refusals are not kept.
    pub fn new(bytes: fn(&T) -> usize, passes: fn(&E) -> bool) -> Self {
        let entries = Mutex::default();
        Self {
            entries,
            bytes,
            passes,
        }
    }

    /// Whether the result for `what` is there.
    pub fn has(&self, what: &impl Debug) -> bool {
        let key = key(what);
        let entries = self.entries();
        let slot = entries.iter().find(|(other, _)| *other == key);
        slot.is_some_and(|(_, slot)| slot.get().is_some())
    }

    /// The result for `what`. Of those who ask for it at the same time one makes it.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get(&self, what: &impl Debug, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let slot = self.slot(key(what));
        let result = slot.get_or_init(|| make().map(Arc::new)).clone();
        if result.as_ref().is_err_and(self.passes) {
            self.entries()
                .retain(|(_, other)| !Arc::ptr_eq(other, &slot));
        }
        self.shrink();
        result
    }

    fn slot(&self, key: Key) -> Slot<T, E> {
        let mut entries = self.entries();
        let place = entries.iter().position(|(other, _)| *other == key);
        let entry = match place {
            Some(place) => entries.remove(place),
            None => (key, Slot::default()),
        };
        let slot = entry.1.clone();
        entries.push(entry);
        slot
    }

    fn shrink(&self) {
        let mut entries = self.entries();
        let mut room = BYTES;
        let keeps = |slot: &Slot<T, E>| {
            let bytes = match slot.get() {
                Some(Ok(made)) => (self.bytes)(made),
                Some(Err(_)) | None => 0,
            };
            room.checked_sub(bytes).map(|left| room = left).is_some()
        };
        let kept = entries
            .iter()
            .rev()
            .take(ENTRIES)
            .map(|(_, slot)| slot)
            .map(keeps)
            .take_while(|keeps| *keeps)
            .count();
        let gone = entries.len() - kept;
        entries.drain(..gone);
    }

    fn entries(&self) -> MutexGuard<'_, Vec<(Key, Slot<T, E>)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of the whole of it, with the order of its properties: a grammar keeps to that.
fn key(what: &impl Debug) -> Key {
    Sha256::digest(format!("{what:?}")).into()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn cache() -> Cache<usize, String> {
        Cache::new(|bytes| *bytes, |error| error == "later")
    }

    #[test]
    fn a_result_is_made_once_and_so_is_a_refusal() {
        let (cache, made) = (cache(), Cell::new(0));
        let get = |what: &str, result: Result<usize, String>| {
            cache.get(&what, || {
                made.set(made.get() + 1);
                result
            })
        };
        assert!(!cache.has(&"a"));
        for _ in 0..3 {
            assert_eq!(get("a", Ok(1)).map(|it| *it), Ok(1));
            assert_eq!(get("b", Err("no".to_owned())), Err("no".to_owned()));
        }
        assert_eq!(made.get(), 2);
        assert!(cache.has(&"a") && cache.has(&"b"));
        assert_eq!(get("c", Err("later".to_owned())), Err("later".to_owned()));
        assert_eq!(get("c", Ok(3)).map(|it| *it), Ok(3));
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let cache = cache();
        for number in 0..=ENTRIES {
            let _ = cache.get(&number, || Ok(1));
            // In use.
            let _ = cache.get(&0, || Ok(1));
        }
        assert!(cache.has(&0) && cache.has(&2) && cache.has(&ENTRIES));
        assert!(!cache.has(&1));
        let _ = cache.get(&"large", || Ok(BYTES - 2));
        assert!(cache.has(&"large") && cache.has(&0) && cache.has(&ENTRIES));
        assert!(!cache.has(&2));
        let _ = cache.get(&"too large", || Ok(BYTES + 1));
        assert!(!cache.has(&"too large") && !cache.has(&"large"));
    }

    #[test]
    fn who_asks_at_the_same_time_waits() {
        let (cache, made) = (cache(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = || {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(made.fetch_add(1, Ordering::AcqRel))
                    };
                    assert_eq!(cache.get(&"x", make).map(|it| *it), Ok(0));
                });
            }
        });
    }
}
