//! How long requests wait for what, measured where it happens: a client that reads late changes
//! nothing of it. The buckets are vLLM's, so that its dashboards fit.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use super::histogram::Histogram;
use super::request::Event;

const FIRST_TOKEN: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

/// Of the time from token to token.
pub const TOKEN: [f64; 19] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];

/// Of a request's parts, and of all of it.
pub const REQUEST: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// In seconds, over all outputs since the start.
#[derive(Debug)]
pub struct Latencies {
    /// From submission to the first step.
    pub queued: Histogram,
    /// From submission to the first token.
    pub first_token: Histogram,
    /// From a token to the next.
    pub between_tokens: Histogram,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            queued: Histogram::new(REQUEST),
            first_token: Histogram::new(FIRST_TOKEN),
            between_tokens: Histogram::new(TOKEN),
        }
    }
}

/// Times one output by its events, on the engine thread.
pub(super) struct Stopwatch {
    latencies: Arc<Latencies>,
    submitted: Instant,
    last: Cell<Option<Instant>>,
    queued: Cell<bool>,
}

impl Stopwatch {
    pub fn start(latencies: Arc<Latencies>) -> Self {
        Self {
            latencies,
            submitted: Instant::now(),
            last: Cell::new(None),
            queued: Cell::new(true),
        }
    }

    /// Before the event is sent.
    pub fn note(&self, event: &Event) {
        match event {
            // A place that was lost and found again is told again, and counts once.
            Event::Started { queued, .. } if self.queued.replace(false) => {
                self.latencies.queued.add(queued.as_secs_f64());
            }
            Event::Token(_) => {
                let now = Instant::now();
                let (histogram, since) = match self.last.replace(Some(now)) {
                    Some(last) => (&self.latencies.between_tokens, last),
                    None => (&self.latencies.first_token, self.submitted),
                };
                histogram.add(now.duration_since(since).as_secs_f64());
            }
            _ => {}
        }
    }
}
