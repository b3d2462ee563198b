//! How values are spread. Anybody adds, anybody reads, and nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Parts of one that a sum is exact to.
const PARTS: f64 = 1e6;

/// Counts values in buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: Vec<f64>,
    /// One more than there are bounds: the last is for what is above all of them.
    counts: Vec<AtomicU64>,
    /// Of the values, in millionths.
    sum: AtomicU64,
}

/// What a histogram holds at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// Each bucket's upper bound, and the values that are not above it.
    pub buckets: Vec<(f64, u64)>,
    /// All values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Histogram {
    /// `bounds` are the buckets' upper bounds, in ascending order.
    pub fn new(bounds: impl Into<Vec<f64>>) -> Self {
        let bounds = bounds.into();
        Self {
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            bounds,
            sum: AtomicU64::new(0),
        }
    }

    /// Adds a value, which is not negative.
    pub fn add(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum
            .fetch_add((value * PARTS).round() as u64, Ordering::Relaxed);
    }

    /// What was added so far. Values that come meanwhile may be in one number and not yet in another.
    pub fn spread(&self) -> Spread {
        let mut below = 0;
        let mut up_to = |count: &AtomicU64| {
            below += count.load(Ordering::Relaxed);
            below
        };
        let cumulative: Vec<u64> = self.counts.iter().map(&mut up_to).collect();
        Spread {
            count: cumulative.last().copied().unwrap_or(0),
            buckets: self.bounds.iter().copied().zip(cumulative).collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / PARTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_their_bound() {
        let histogram = Histogram::new([0.5, 1.0]);
        for value in [0.0, 0.5, 0.75, 1.0, 7.25] {
            histogram.add(value);
        }
        let want = Spread {
            buckets: vec![(0.5, 2), (1.0, 4)],
            count: 5,
            sum: 9.5,
        };
        assert_eq!(histogram.spread(), want);
    }
}
