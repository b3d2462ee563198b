//! What a request took, in tokens and in time.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::Finish;
use crate::server::generate::Summary;

/// OpenAI's `usage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompts, each counted once however many outputs it has.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Their sum.
    pub total_tokens: usize,
    /// What the prompts' tokens are made of.
    pub prompt_tokens_details: PromptTokensDetails,
    /// What the generated tokens are made of.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// A part of [`Usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens that were not computed again.
    pub cached_tokens: usize,
}

/// A part of [`Usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct CompletionTokensDetails {
    /// Tokens of thoughts.
    pub reasoning_tokens: usize,
}

/// llama-server's `timings`, in milliseconds; `queued_ms` is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = Timings)]
pub struct TimingsOut {
    /// Prompt tokens that were not computed again.
    pub cache_n: usize,
    /// Prompt tokens that were computed.
    pub prompt_n: usize,
    /// From the first step to the first token.
    pub prompt_ms: f64,
    /// Tokens per second of the prompt.
    pub prompt_per_second: f64,
    /// Tokens generated.
    pub predicted_n: usize,
    /// From the first token to the last.
    pub predicted_ms: f64,
    /// Tokens per second after the first, which came with the prompt.
    pub predicted_per_second: f64,
    /// Wait for a place in the batch.
    pub queued_ms: f64,
}

/// Sums up outputs as they end.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// By prompt: its tokens, and the fewest cached ones of its outputs.
    prompts: Vec<Option<(usize, usize)>>,
    outputs: usize,
    completion_tokens: usize,
    reasoning_tokens: usize,
    timings: TimingsOut,
}

impl Account {
    /// For `prompts` prompts.
    pub fn new(prompts: usize) -> Self {
        Self {
            prompts: vec![None; prompts],
            ..Self::default()
        }
    }

    /// Adds an output of the prompt with this index.
    pub fn add(&mut self, prompt: usize, summary: &Summary) {
        let finish = &summary.finish;
        if let Some(entry) = self.prompts.get_mut(prompt) {
            let cached = entry.map_or(finish.cached_tokens, |(_, old)| {
                old.min(finish.cached_tokens)
            });
            *entry = Some((finish.prompt_tokens, cached));
        }
        self.outputs += 1;
        self.completion_tokens += finish.completion_tokens;
        self.reasoning_tokens += summary.reasoning_tokens;
        let one = TimingsOut::of(finish);
        let all = &mut self.timings;
        all.cache_n += one.cache_n;
        all.prompt_n += one.prompt_n;
        all.predicted_n += one.predicted_n;
        // They ran side by side.
        all.prompt_ms = all.prompt_ms.max(one.prompt_ms);
        all.predicted_ms = all.predicted_ms.max(one.predicted_ms);
        all.queued_ms = all.queued_ms.max(one.queued_ms);
    }

    /// All tokens so far.
    pub fn usage(&self) -> Usage {
        let prompts = self.prompts.iter().flatten();
        let (prompt_tokens, cached_tokens) =
            prompts.fold((0, 0), |(tokens, cached), (t, c)| (tokens + t, cached + c));
        Usage {
            prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: prompt_tokens + self.completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
            completion_tokens_details: CompletionTokensDetails {
                reasoning_tokens: self.reasoning_tokens,
            },
        }
    }

    /// Writes what the request took to the log.
    pub fn log(&self) {
        let (usage, timings) = (self.usage(), self.timings());
        tracing::info!(
            outputs = self.outputs,
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.prompt_tokens_details.cached_tokens,
            completion_tokens = usage.completion_tokens,
            queued_ms = timings.queued_ms,
            prompt_ms = timings.prompt_ms,
            predicted_ms = timings.predicted_ms,
            "generated"
        );
    }

    /// Counts summed over the outputs so far, times of the slowest.
    pub fn timings(&self) -> TimingsOut {
        self.timings.with_rates(self.outputs)
    }
}

impl TimingsOut {
    /// Of one output.
    pub fn of(finish: &Finish) -> Self {
        let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
        Self {
            cache_n: finish.cached_tokens,
            prompt_n: finish.prompt_tokens.saturating_sub(finish.cached_tokens),
            prompt_ms: ms(finish.timings.prefill),
            predicted_n: finish.completion_tokens,
            predicted_ms: ms(finish.timings.decode),
            queued_ms: ms(finish.timings.queued),
            ..Self::default()
        }
        .with_rates(1)
    }

    fn with_rates(self, outputs: usize) -> Self {
        let rate = |count: usize, ms: f64| {
            if ms > 0.0 {
                count as f64 / ms * 1e3
            } else {
                0.0
            }
        };
        Self {
            prompt_per_second: rate(self.prompt_n, self.prompt_ms),
            predicted_per_second: rate(self.predicted_n.saturating_sub(outputs), self.predicted_ms),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{FinishReason, Timings};
    use std::time::Duration;

    fn finish(prompt: usize, cached: usize, completion: usize, decode_ms: u64) -> Summary {
        let finish = Finish {
            reason: FinishReason::Stop,
            prompt_tokens: prompt,
            cached_tokens: cached,
            completion_tokens: completion,
            timings: Timings {
                queued: Duration::from_millis(1),
                prefill: Duration::from_millis(10),
                decode: Duration::from_millis(decode_ms),
            },
        };
        Summary {
            finish,
            stop: None,
            calls: 0,
            reasoning_tokens: 1,
            mean_logprob: None,
        }
    }

    #[test]
    fn a_prompt_counts_once_however_many_outputs_it_has() {
        let mut account = Account::new(2);
        account.add(0, &finish(10, 0, 3, 100));
        account.add(0, &finish(10, 8, 4, 200));
        account.add(1, &finish(5, 2, 1, 50));
        let usage = account.usage();
        assert_eq!(
            (
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.total_tokens
            ),
            (15, 8, 23)
        );
        assert_eq!(usage.prompt_tokens_details.cached_tokens, 2);
        assert_eq!(usage.completion_tokens_details.reasoning_tokens, 3);
        let timings = account.timings();
        assert_eq!((timings.predicted_n, timings.predicted_ms), (8, 200.0));
        assert_eq!(timings.predicted_per_second, 25.0);
    }

    #[test]
    fn rates_of_nothing_are_zero_not_infinite() {
        let timings = TimingsOut::of(&finish(3, 0, 1, 0).finish);
        assert_eq!(timings.predicted_per_second, 0.0);
        assert_eq!(timings.prompt_per_second, 300.0);
    }
}
