//! A request in the batch: its tokens, its state, and where it stands.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::handle::Submission;
use super::request::{
    EngineError, Event, Finish, FinishReason, Request, Timings, Token, TokenLogprobs,
};
use super::sampler::{Sampler, logprobs};
use crate::models::SequenceState;

/// One running sequence.
pub(super) struct Sequence {
    submission: Submission,
    pub state: SequenceState,
    sampler: Sampler,
    /// Most tokens to generate, the context considered.
    limit: usize,
    generated: usize,
    /// The token that the state does not hold yet, once the prompt is done.
    last: Option<u32>,
    started: Instant,
    first_token: Option<Instant>,
}

impl Sequence {
    pub fn new(submission: Submission, state: SequenceState, context: usize) -> Self {
        let request = &submission.request;
        let room = context.saturating_sub(request.prompt.len());
        let started = Instant::now();
        let sequence = Self {
            sampler: Sampler::new(request.sampling.clone(), &request.prompt),
            limit: request.max_tokens.map_or(room, |tokens| tokens.min(room)),
            generated: 0,
            last: None,
            started,
            first_token: None,
            state,
            submission,
        };
        sequence.send(Event::Started {
            queued: sequence.queued(),
            cached_tokens: 0,
        });
        sequence
    }

    fn queued(&self) -> Duration {
        self.started.duration_since(self.submission.submitted)
    }

    fn request(&self) -> &Request {
        &self.submission.request
    }

    /// The request's client is gone.
    pub fn cancelled(&self) -> bool {
        self.submission.cancelled.load(Ordering::Acquire)
    }

    /// Tokens that the state does not hold yet.
    pub fn pending(&self) -> usize {
        match self.last {
            Some(_) => 1,
            None => self.request().prompt.len().saturating_sub(self.state.len),
        }
    }

    /// Whether the prompt is still being computed.
    pub fn in_prefill(&self) -> bool {
        self.last.is_none()
    }

    /// The next `count` pending tokens and the state that they go into.
    pub fn feed(&mut self, count: usize) -> (&[u32], &mut SequenceState) {
        let tokens = match &self.last {
            Some(token) => std::slice::from_ref(token),
            None => {
                let from = self.state.len;
                &self.submission.request.prompt[from..from + count]
            }
        };
        (tokens, &mut self.state)
    }

    /// Chooses and sends the next token from `logits` (`[vocab]`); the end, if this was the last.
    pub fn advance(&mut self, logits: &mut [f32]) -> Result<Option<FinishReason>, EngineError> {
        let request = &mut self.submission.request;
        // The masks and penalties change the row, logprobs are of the row as it was.
        let untouched = request.logprobs.map(|top| (top, logits.to_vec()));
        let grammar = |error: super::grammar::GrammarError| EngineError::Grammar(error.to_string());
        let mask = match &mut request.grammar {
            Some(matcher) => Some(matcher.mask().map_err(grammar)?),
            None => None,
        };
        let id = self
            .sampler
            .sample(logits, mask)
            .map_err(|error| EngineError::Compute(error.to_string()))?;

        self.first_token.get_or_insert_with(Instant::now);
        self.generated += 1;
        self.last = Some(id);
        if request.stop_tokens.contains(&id) {
            return Ok(Some(FinishReason::Stop));
        }
        let logprobs: Option<TokenLogprobs> = untouched.map(|(top, row)| logprobs(&row, id, top));
        let mut finished = false;
        if let Some(matcher) = &mut request.grammar {
            matcher.commit(id).map_err(grammar)?;
            finished = matcher.is_finished();
        }
        self.send(Event::Token(Token { id, logprobs }));
        if finished {
            return Ok(Some(FinishReason::Stop));
        }
        Ok((self.generated >= self.limit).then_some(FinishReason::Length))
    }

    /// Ends the stream with what the request took.
    pub fn finish(self, reason: FinishReason) {
        let now = Instant::now();
        let first = self.first_token.unwrap_or(now);
        let finish = Finish {
            reason,
            prompt_tokens: self.request().prompt.len(),
            cached_tokens: 0,
            completion_tokens: self.generated,
            timings: Timings {
                queued: self.queued(),
                prefill: first.duration_since(self.started),
                decode: if self.generated > 1 {
                    now - first
                } else {
                    Duration::ZERO
                },
            },
        };
        self.send(Event::Finished(finish));
    }

    /// Ends the stream with an error.
    pub fn fail(self, error: EngineError) {
        self.send(Event::Failed(error));
    }

    /// A reader that is gone has set `cancelled`; the next step sees it.
    fn send(&self, event: Event) {
        let _ = self.submission.events.send(event);
    }
}
