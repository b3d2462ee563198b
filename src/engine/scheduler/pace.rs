//! How many tokens a step may have, learnt from how long steps take.

use std::time::Duration;

/// What a step may take while somebody waits for its end.
const TARGET: Duration = Duration::from_millis(100);

/// How much longer it may take while nobody does: larger chunks multiply better.
const ALONE: u32 = 4;

/// A step of so few tokens says more about its fixed cost than about its tokens.
const TELLING: usize = 8;

/// Most tokens of a step.
const MOST: usize = 2048;

/// Tokens of a first step, before anything is known.
const FIRST: usize = 64;

/// A token's cost, as the last steps tell it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    seconds_per_token: Option<f64>,
    largest: usize,
}

impl Pace {
    /// Tokens that the next step may have. `company` says whether anybody waits for its end: a
    /// running stream, or a request behind the one that computes.
    pub fn budget(&self, company: bool) -> usize {
        let Some(cost) = self.seconds_per_token else {
            return FIRST;
        };
        let target = if company { TARGET } else { ALONE * TARGET };
        let tokens = (target.as_secs_f64() / cost) as usize;
        // Twice the largest that was tried: a cost measured on small steps may not hold for large.
        tokens.min(2 * self.largest.max(FIRST)).clamp(1, MOST)
    }

    /// Learns from a step of `tokens` that took `took`.
    pub fn record(&mut self, tokens: usize, took: Duration) {
        if tokens < TELLING
            && self
                .seconds_per_token
                .is_none_or(|cost| cost * 8.0 < TARGET.as_secs_f64())
        {
            return;
        }
        let cost = (took.as_secs_f64() / tokens.max(1) as f64).max(1e-9);
        // Quick to slow down, slow to speed up.
        self.seconds_per_token = Some(match self.seconds_per_token {
            Some(known) if cost < known => known + (cost - known) / 4.0,
            _ => cost,
        });
        self.largest = self.largest.max(tokens);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn learnt(cost: f64, company: bool) -> usize {
        let mut pace = Pace::default();
        for _ in 0..64 {
            let tokens = pace.budget(company);
            pace.record(tokens, Duration::from_secs_f64(cost * tokens as f64));
        }
        pace.budget(company)
    }

    #[test]
    fn the_chunk_grows_and_shrinks_to_the_target() {
        assert_eq!(learnt(1e-3, true), 100);
        assert_eq!(learnt(1e-3, false), 400);
        assert_eq!(learnt(50e-3, true), 2);
        assert_eq!(learnt(1.0, true), 1);
        assert_eq!(learnt(1e-6, true), MOST);
    }

    #[test]
    fn one_slow_step_is_believed_and_forgotten_in_time() {
        let mut pace = Pace::default();
        pace.record(100, Duration::from_millis(100));
        pace.record(100, Duration::from_millis(1000));
        assert_eq!(pace.budget(true), 10);
        for _ in 0..40 {
            let tokens = pace.budget(true);
            pace.record(tokens, Duration::from_secs_f64(1e-3 * tokens as f64));
        }
        assert!(pace.budget(true) >= 95, "{pace:?}");
    }

    #[test]
    fn steps_of_single_tokens_say_nothing_about_chunks() {
        let mut pace = Pace::default();
        pace.record(100, Duration::from_millis(50));
        let before = pace.budget(true);
        pace.record(1, Duration::from_millis(5));
        assert_eq!(pace.budget(true), before);
    }

    proptest! {
        #[test]
        fn a_step_never_exceeds_the_target_by_the_measured_cost(
            steps in prop::collection::vec((1usize..2048, 1e-6f64..0.2), 1..50),
        ) {
            let mut pace = Pace::default();
            for (tokens, cost) in steps {
                pace.record(tokens, Duration::from_secs_f64(cost * tokens as f64));
                let budget = pace.budget(true);
                prop_assert!((1..=MOST).contains(&budget));
                if tokens >= TELLING {
                    prop_assert!(budget == 1 || budget as f64 * cost <= TARGET.as_secs_f64() * 1.001);
                }
            }
        }
    }
}
