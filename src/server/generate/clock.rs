//! How long a generation takes, and what.

use std::time::{Duration, Instant};

use crate::engine::{Finish, FinishReason, Timings};

/// Times a generation from outside, for the case that a stop string cuts it off before the engine
/// has told how it went.
pub(super) struct Clock {
    prompt_tokens: usize,
    cached_tokens: usize,
    /// Generated so far.
    pub(super) tokens: usize,
    queued: Duration,
    begun: Instant,
    first: Option<Instant>,
}

impl Clock {
    pub(super) fn new(prompt_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            cached_tokens: 0,
            tokens: 0,
            queued: Duration::ZERO,
            begun: Instant::now(),
            first: None,
        }
    }

    pub(super) fn began(&mut self, queued: Duration, cached_tokens: usize) {
        self.queued = queued;
        self.cached_tokens = cached_tokens;
        self.begun = Instant::now();
    }

    pub(super) fn token(&mut self) {
        self.tokens += 1;
        self.first.get_or_insert_with(Instant::now);
    }

    pub(super) fn stopped(&self) -> Finish {
        let first = self.first.unwrap_or_else(Instant::now);
        Finish {
            reason: FinishReason::Stop,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.tokens,
            timings: Timings {
                queued: self.queued,
                prefill: first - self.begun,
                decode: first.elapsed(),
            },
        }
    }
}
