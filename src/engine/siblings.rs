//! Several outputs of one prompt: they share its computation, and part where it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::UnboundedSender;

use super::handle::Submission;
use super::latency::Stopwatch;
use super::request::{Event, Request, Sibling};

/// Where an output's events go.
pub(super) struct Outlet {
    events: UnboundedSender<Event>,
    cancelled: Arc<AtomicBool>,
    stopwatch: Stopwatch,
}

impl Outlet {
    pub fn new(
        events: UnboundedSender<Event>,
        cancelled: Arc<AtomicBool>,
        stopwatch: Stopwatch,
    ) -> Self {
        Self {
            events,
            cancelled,
            stopwatch,
        }
    }

    /// The reader is gone.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// A reader that is gone has set `cancelled`; the next step sees it.
    pub fn send(&self, event: Event) {
        self.stopwatch.note(&event);
        let _ = self.events.send(event);
    }
}

/// What dropping the outputs without a reader leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The first output, and maybe siblings.
    First,
    /// A sibling, which has become the first.
    Sibling,
    /// Nobody.
    Nobody,
}

impl Submission {
    /// Outputs that somebody may still read.
    pub fn outputs(&self) -> usize {
        1 + self.sibling_outlets.len()
    }

    /// Drops the outputs whose readers are gone. Where the first one's is, a sibling takes its place.
    pub fn drop_cancelled(&mut self) -> Left {
        let siblings = std::mem::take(&mut self.request.siblings);
        let outlets = std::mem::take(&mut self.sibling_outlets);
        let mut live = siblings
            .into_iter()
            .zip(outlets)
            .filter(|(_, outlet)| !outlet.cancelled());
        let mut left = Left::First;
        if self.outlet.cancelled() {
            let Some((Sibling { sampling, grammar }, outlet)) = live.next() else {
                return Left::Nobody;
            };
            self.request.sampling = sampling;
            self.request.grammar = grammar;
            self.outlet = outlet;
            left = Left::Sibling;
        }
        (self.request.siblings, self.sibling_outlets) = live.unzip();
        left
    }

    /// Splits the siblings off, each a submission of its own without a prompt.
    pub fn take_siblings(&mut self) -> Vec<Self> {
        let siblings = std::mem::take(&mut self.request.siblings);
        let outlets = std::mem::take(&mut self.sibling_outlets);
        let request = &self.request;
        siblings
            .into_iter()
            .zip(outlets)
            .map(|(Sibling { sampling, grammar }, outlet)| Self {
                request: Request {
                    prompt: Vec::new(),
                    max_tokens: request.max_tokens,
                    sampling,
                    logprobs: request.logprobs,
                    prompt_logprobs: request.prompt_logprobs,
                    stop_tokens: request.stop_tokens.clone(),
                    grammar,
                    cache_salt: request.cache_salt,
                    deadline: request.deadline,
                    siblings: Vec::new(),
                },
                outlet,
                sibling_outlets: Vec::new(),
                submitted: self.submitted,
            })
            .collect()
    }
}
