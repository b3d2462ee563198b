//! How many tokens, in all and lately.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seconds that the rate looks back, the running one included.
const WINDOW: u64 = 10;

/// More than the window, so that a second that is read is not the one that is being emptied.
const SLOTS: usize = 16;

/// Counts tokens. The engine thread adds, anybody reads, and neither waits for the other.
pub(super) struct Meter {
    since: Instant,
    total: AtomicU64,
    /// Tokens of a second `s`, in the slot `s` modulo their number.
    slots: [Slot; SLOTS],
}

#[derive(Default)]
struct Slot {
    second: AtomicU64,
    tokens: AtomicU64,
}

impl Meter {
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            total: AtomicU64::new(0),
            slots: Default::default(),
        }
    }

    /// Counts tokens. Only ever called from one thread.
    pub fn add(&self, tokens: u64) {
        self.add_at(self.since.elapsed(), tokens);
    }

    fn add_at(&self, now: Duration, tokens: u64) {
        let second = now.as_secs();
        let slot = &self.slots[second as usize % SLOTS];
        if slot.second.load(Ordering::Relaxed) != second {
            slot.tokens.store(0, Ordering::Relaxed);
            slot.second.store(second, Ordering::Relaxed);
        }
        slot.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.total.fetch_add(tokens, Ordering::Relaxed);
    }

    /// All tokens so far.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Tokens a second over the last ten, or over all of them while they are fewer.
    pub fn per_second(&self) -> f64 {
        self.per_second_at(self.since.elapsed())
    }

    fn per_second_at(&self, now: Duration) -> f64 {
        let first = (now.as_secs() + 1).saturating_sub(WINDOW);
        let recent =
            |slot: &&Slot| (first..=now.as_secs()).contains(&slot.second.load(Ordering::Relaxed));
        let tokens: u64 = self
            .slots
            .iter()
            .filter(recent)
            .map(|slot| slot.tokens.load(Ordering::Relaxed))
            .sum();
        let seconds = (now - Duration::from_secs(first)).as_secs_f64();
        if seconds > 0.0 {
            tokens as f64 / seconds
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_rate_is_of_the_last_seconds_and_the_total_of_all() {
        let meter = Meter::new();
        assert_eq!(meter.per_second_at(Duration::ZERO), 0.0);
        for half in 0..100 {
            meter.add_at(at(f64::from(half) / 2.0), 50);
        }
        assert_eq!(meter.per_second_at(at(50.0 - 1e-9)).round(), 100.0);
        assert_eq!(meter.per_second_at(at(54.5)).round(), 53.0);
        assert_eq!(meter.per_second_at(at(59.0)), 0.0);
        assert_eq!(meter.per_second_at(at(1e6)), 0.0);
        assert_eq!(meter.total(), 5000);
    }

    #[test]
    fn a_young_meter_counts_the_time_that_it_has() {
        let meter = Meter::new();
        meter.add_at(at(0.25), 100);
        assert_eq!(meter.per_second_at(at(0.5)), 200.0);
        meter.add_at(at(3.0), 20);
        assert_eq!(meter.per_second_at(at(4.0)), 30.0);
    }
}
