//! A request in the engine: its tokens, its state, and where it stands.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::handle::Submission;
use super::request::{
    EngineError, Event, Finish, FinishReason, Request, Timings, Token, TokenLogprobs,
};
use super::sampler::{Sampler, logprobs};
use super::scheduler::Running;
use crate::models::SequenceState;

/// One request, waiting or running.
pub(super) struct Sequence {
    submission: Submission,
    /// Where it stands among all requests: the later, the younger.
    pub arrival: u64,
    /// The prompt and what was generated, a final stop token included.
    pub tokens: Vec<u32>,
    /// How many of them are the prompt.
    pub prompt_len: usize,
    /// What the model remembers of `tokens`. Empty until it runs, and again when it is preempted.
    pub state: SequenceState,
    sampler: Sampler,
    /// Most tokens to generate, the context considered.
    limit: usize,
    cached_tokens: usize,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Sequence {
    /// A request that has just come.
    pub fn new(
        mut submission: Submission,
        arrival: u64,
        state: SequenceState,
        context: usize,
    ) -> Self {
        let request = &mut submission.request;
        let tokens = std::mem::take(&mut request.prompt);
        let room = context.saturating_sub(tokens.len());
        Self {
            sampler: Sampler::new(request.sampling.clone(), &tokens),
            limit: request.max_tokens.map_or(room, |most| most.min(room)),
            arrival,
            prompt_len: tokens.len(),
            tokens,
            state,
            cached_tokens: 0,
            started: None,
            first_token: None,
            submission,
        }
    }

    /// It has its place, and `cached` tokens of it need not be computed. Told once, also where it
    /// lost the place and got another.
    pub fn start(&mut self, cached: usize) {
        if self.started.is_some() {
            return;
        }
        let now = Instant::now();
        self.started = Some(now);
        self.cached_tokens = cached;
        self.send(Event::Started {
            queued: now.duration_since(self.submission.submitted),
            cached_tokens: cached,
        });
    }

    /// The request itself; its prompt has become `tokens`.
    pub fn request(&self) -> &Request {
        &self.submission.request
    }

    /// The request's client is gone.
    pub fn cancelled(&self) -> bool {
        self.submission.cancelled.load(Ordering::Acquire)
    }

    /// Its time is over.
    pub fn overdue(&self, now: Instant) -> bool {
        self.request()
            .deadline
            .is_some_and(|deadline| deadline <= now)
    }

    /// What the scheduler knows of it.
    pub fn standing(&self) -> Running {
        Running {
            held: self.state.len,
            pending: self.tokens.len() - self.state.len,
        }
    }

    /// How many of the next `count` pending tokens are the prompt's.
    pub fn prompt_part(&self, count: usize) -> usize {
        count.min(self.prompt_len.saturating_sub(self.state.len))
    }

    /// How many first tokens both have, the last of this one's not counted; none where the requests
    /// must not share.
    pub fn shared_with(&self, other: &Self) -> usize {
        if self.request().cache_salt != other.request().cache_salt {
            return 0;
        }
        let own = &self.tokens[..self.tokens.len() - 1];
        let pairs = own.iter().zip(&other.tokens);
        pairs.take_while(|(a, b)| a == b).count()
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
        self.tokens.push(id);
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
        Ok((self.generated() >= self.limit).then_some(FinishReason::Length))
    }

    fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Ends the stream with what the request took.
    pub fn finish(&self, reason: FinishReason) {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        let finish = Finish {
            reason,
            prompt_tokens: self.prompt_len,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.generated(),
            timings: Timings {
                queued: started.duration_since(self.submission.submitted),
                prefill: first.duration_since(started),
                decode: if self.generated() > 1 {
                    now - first
                } else {
                    Duration::ZERO
                },
            },
        };
        self.send(Event::Finished(finish));
    }

    /// Ends the stream with an error.
    pub fn fail(&self, error: EngineError) {
        self.send(Event::Failed(error));
    }

    /// A reader that is gone has set `cancelled`; the next step sees it.
    fn send(&self, event: Event) {
        let _ = self.submission.events.send(event);
    }
}
