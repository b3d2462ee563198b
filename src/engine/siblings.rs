//! Several outputs of one prompt: they share its computation, and part where it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::UnboundedSender;

use super::handle::Submission;
use super::request::{Event, Sibling};

/// Where an output's events go.
pub(super) struct Outlet {
    events: UnboundedSender<Event>,
    cancelled: Arc<AtomicBool>,
}

impl Outlet {
    pub fn new(events: UnboundedSender<Event>, cancelled: Arc<AtomicBool>) -> Self {
        Self { events, cancelled }
    }

    /// The reader is gone.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// A reader that is gone has set `cancelled`; the next step sees it.
    pub fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

impl Submission {
    /// Outputs that somebody may still read.
    pub fn outputs(&self) -> usize {
        1 + self.sibling_outlets.len()
    }

    /// Drops the outputs whose readers are gone. Where the first one's is, a sibling takes its place;
    /// `None` where no reader is left.
    pub fn without_cancelled(mut self) -> Option<Self> {
        let siblings = std::mem::take(&mut self.request.siblings);
        let outlets = std::mem::take(&mut self.sibling_outlets);
        let mut live = siblings
            .into_iter()
            .zip(outlets)
            .filter(|(_, outlet)| !outlet.cancelled());
        if self.outlet.cancelled() {
            let (Sibling { sampling, grammar }, outlet) = live.next()?;
            self.request.sampling = sampling;
            self.request.grammar = grammar;
            self.outlet = outlet;
        }
        let (siblings, outlets) = live.unzip();
        self.request.siblings = siblings;
        self.sibling_outlets = outlets;
        Some(self)
    }

    /// Splits the siblings off, each a submission of its own of the same prompt.
    pub fn take_siblings(&mut self) -> Vec<Self> {
        let siblings = std::mem::take(&mut self.request.siblings);
        let outlets = std::mem::take(&mut self.sibling_outlets);
        siblings
            .into_iter()
            .zip(outlets)
            .map(|(Sibling { sampling, grammar }, outlet)| Self {
                request: super::request::Request {
                    prompt: self.request.prompt.clone(),
                    max_tokens: self.request.max_tokens,
                    sampling,
                    logprobs: self.request.logprobs,
                    prompt_logprobs: self.request.prompt_logprobs,
                    stop_tokens: self.request.stop_tokens.clone(),
                    grammar,
                    siblings: Vec::new(),
                },
                outlet,
                sibling_outlets: Vec::new(),
                submitted: self.submitted,
            })
            .collect()
    }
}
