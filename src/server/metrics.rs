//! What requests came to, for `/metrics`. What the engine measures itself is read from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::generate::Summary;
use crate::engine::{FinishReason, Histogram, REQUEST_SECONDS, TOKEN_SECONDS};

/// How an output can end: vLLM's words.
pub const REASONS: [&str; 4] = ["stop", "length", "abort", "error"];

/// Over all outputs since the model was loaded.
pub struct Metrics {
    ended: [AtomicU64; REASONS.len()],
    /// From submission to the last token, in seconds.
    pub whole: Histogram,
    /// From the first step to the last token.
    pub inference: Histogram,
    /// From the first step to the first token.
    pub prefill: Histogram,
    /// From the first token to the last.
    pub decode: Histogram,
    /// An output's mean from token to token.
    pub per_token: Histogram,
    /// Tokens of prompts.
    pub prompt_tokens: Histogram,
    /// Tokens of outputs.
    pub generated_tokens: Histogram,
}

impl Metrics {
    /// For a model whose prompts and outputs have up to `context` tokens.
    pub fn new(context: usize) -> Arc<Self> {
        let tokens = || Histogram::new(token_bounds(context));
        let seconds = || Histogram::new(REQUEST_SECONDS);
        Arc::new(Self {
            ended: Default::default(),
            whole: seconds(),
            inference: seconds(),
            prefill: seconds(),
            decode: seconds(),
            per_token: Histogram::new(TOKEN_SECONDS),
            prompt_tokens: tokens(),
            generated_tokens: tokens(),
        })
    }

    /// How many outputs ended for which of [`REASONS`].
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        REASONS.into_iter().zip(self.ended.iter().map(load))
    }

    fn count(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.ended[at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// 1, 2, 5, 10, 20, 50 and so on up to `most`.
fn token_bounds(most: usize) -> Vec<f64> {
    let decades = (0..).map(|exponent| 10f64.powi(exponent));
    let bounds = decades.flat_map(|ten| [ten, 2.0 * ten, 5.0 * ten]);
    bounds.take_while(|bound| *bound <= most as f64).collect()
}

/// Follows one output to its end; without one it was given up.
pub struct Tally {
    metrics: Arc<Metrics>,
    open: bool,
}

impl Tally {
    /// Of an output that was just submitted.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: metrics.clone(),
            open: true,
        }
    }

    /// It came to its end.
    pub fn end(&mut self, summary: &Summary) {
        self.open = false;
        let (metrics, finish) = (&self.metrics, &summary.finish);
        metrics.count(match finish.reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        });
        let timings = finish.timings;
        let inference = timings.prefill + timings.decode;
        metrics
            .whole
            .add((timings.queued + inference).as_secs_f64());
        metrics.inference.add(inference.as_secs_f64());
        metrics.prefill.add(timings.prefill.as_secs_f64());
        metrics.decode.add(timings.decode.as_secs_f64());
        if finish.completion_tokens > 1 {
            let gaps = (finish.completion_tokens - 1) as f64;
            metrics.per_token.add(timings.decode.as_secs_f64() / gaps);
        }
        metrics.prompt_tokens.add(finish.prompt_tokens as f64);
        metrics
            .generated_tokens
            .add(finish.completion_tokens as f64);
    }

    /// It was lost.
    pub fn fail(&mut self) {
        self.open = false;
        self.metrics.count("error");
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.open {
            self.metrics.count("abort");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_tokens_go_up_to_the_context() {
        assert_eq!(token_bounds(0), [0.0; 0]);
        assert_eq!(token_bounds(100), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(token_bounds(4096).last(), Some(&2000.0));
    }

    #[test]
    fn an_output_without_an_end_was_given_up() {
        let metrics = Metrics::new(512);
        drop(Tally::new(&metrics));
        Tally::new(&metrics).fail();
        let ended: Vec<_> = metrics.ended().collect();
        assert_eq!(
            ended,
            [("stop", 0), ("length", 0), ("abort", 1), ("error", 1)]
        );
    }
}
