//! A request in the batch: its tokens, its state, and where it stands.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::handle::Submission;
use super::request::{
    EngineError, Event, Finish, FinishReason, Request, Timings, Token, TokenLogprobs,
};
use super::sampler::batch::Turn;
use super::sampler::{SampleError, Sampler, prompt_logprobs};
use crate::models::{Logits, SequenceState};

/// Bytes of a prompt's logits that are held at once where they are asked for.
const PROMPT_LOGITS_BYTES: usize = 16 << 20;

/// One running sequence.
pub(super) struct Sequence {
    submission: Submission,
    pub state: SequenceState,
    sampler: Arc<Mutex<Sampler>>,
    /// Most tokens to generate, the context considered.
    limit: usize,
    generated: usize,
    /// The token that the state does not hold yet, once the prompt is done.
    last: Option<u32>,
    /// Tokens of the prompt that were not computed for this sequence.
    cached: usize,
    /// Of the prompt's tokens after the first, as far as they are known.
    prompt_logprobs: Vec<TokenLogprobs>,
    started: Instant,
    first_token: Option<Instant>,
}

impl Sequence {
    pub fn new(submission: Submission, state: SequenceState, context: usize) -> Self {
        let request = &submission.request;
        let room = context.saturating_sub(request.prompt.len());
        let sequence = Self {
            sampler: sampler(request),
            limit: request.max_tokens.map_or(room, |tokens| tokens.min(room)),
            generated: 0,
            last: None,
            cached: 0,
            prompt_logprobs: Vec::new(),
            started: Instant::now(),
            first_token: None,
            state,
            submission,
        };
        sequence.send_started();
        sequence
    }

    /// Splits off the siblings: sequences of their own that share what the prompt's state is.
    ///
    /// Called when the prompt is computed and no token is chosen yet.
    pub fn fork(&mut self) -> Vec<Self> {
        let siblings = self.submission.take_siblings();
        let fork = |submission: Submission| {
            let sequence = Self {
                sampler: sampler(&submission.request),
                state: self.state.clone(),
                limit: self.limit,
                generated: 0,
                last: None,
                cached: submission.request.prompt.len(),
                prompt_logprobs: self.prompt_logprobs.clone(),
                started: self.started,
                first_token: None,
                submission,
            };
            sequence.send_started();
            sequence
        };
        siblings.into_iter().map(fork).collect()
    }

    fn send_started(&self) {
        self.submission.outlet.send(Event::Started {
            queued: self.queued(),
            cached_tokens: self.cached,
        });
    }

    fn queued(&self) -> Duration {
        self.started.duration_since(self.submission.submitted)
    }

    fn request(&self) -> &Request {
        &self.submission.request
    }

    /// Outputs that this sequence still stands for.
    pub fn outputs(&self) -> usize {
        self.submission.outputs()
    }

    /// Drops the outputs whose readers are gone; `None` where none is left.
    pub fn without_cancelled(self) -> Option<Self> {
        let took_over = self.submission.outlet.cancelled();
        let submission = self.submission.without_cancelled()?;
        let sequence = Self {
            sampler: if took_over {
                sampler(&submission.request)
            } else {
                self.sampler
            },
            submission,
            ..self
        };
        if took_over {
            sequence.send_started();
        }
        Some(sequence)
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

    /// Whether the logits of all the prompt's positions are to be read.
    pub fn wants_prompt(&self) -> bool {
        self.request().prompt_logprobs.is_some()
    }

    /// Most tokens of one step: a prompt's logits take memory.
    pub fn most_tokens(&self, vocab: usize) -> usize {
        match self.request().prompt_logprobs {
            Some(_) => (PROMPT_LOGITS_BYTES / 4 / vocab.max(1)).max(1),
            None => usize::MAX,
        }
    }

    /// The next `count` pending tokens, the state that they go into, and the logits to compute.
    pub fn feed(&mut self, count: usize) -> (&[u32], &mut SequenceState, Logits) {
        let logits = if self.in_prefill() && self.wants_prompt() {
            Logits::All
        } else if count == self.pending() {
            Logits::Last
        } else {
            Logits::None
        };
        let tokens = match &self.last {
            Some(token) => std::slice::from_ref(token),
            None => {
                let from = self.state.len;
                &self.submission.request.prompt[from..from + count]
            }
        };
        (tokens, &mut self.state, logits)
    }

    /// Reads the prompt's logprobs off `logits` (`[count, vocab]`), those of the `count` tokens that
    /// were computed last.
    pub fn read_prompt(&mut self, logits: &[f32], count: usize) -> Result<(), EngineError> {
        let Some(top) = self.request().prompt_logprobs else {
            return Ok(());
        };
        let prompt = &self.request().prompt;
        // What the last position expects is the first token of the output.
        let from = self.state.len - count + 1;
        let targets = &prompt[from..(from + count).min(prompt.len())];
        let vocab = logits.len() / count.max(1);
        let rows = &logits[..targets.len() * vocab];
        let found = prompt_logprobs(rows, targets, top).map_err(failed)?;
        self.prompt_logprobs.extend(found);
        Ok(())
    }

    /// The prompt is computed: says what was asked about it. The end, if nothing is to follow.
    pub fn end_prompt(&mut self) -> Option<FinishReason> {
        if self.wants_prompt() {
            let logprobs = std::mem::take(&mut self.prompt_logprobs);
            self.submission.outlet.send(Event::Prompt(logprobs));
        }
        (self.limit == 0).then_some(FinishReason::Length)
    }

    /// What the sampler needs to choose the next token.
    pub fn turn(&mut self) -> Result<Turn, EngineError> {
        let request = &mut self.submission.request;
        let mask = match &mut request.grammar {
            Some(matcher) => Some(matcher.mask().map_err(grammar)?.to_vec()),
            None => None,
        };
        Ok(Turn {
            sampler: self.sampler.clone(),
            mask,
            logprobs: request.logprobs,
        })
    }

    /// Takes and sends the token that was chosen; the end, if this was the last.
    pub fn advance(
        &mut self,
        picked: Result<Token, SampleError>,
    ) -> Result<Option<FinishReason>, EngineError> {
        let token = picked.map_err(failed)?;
        let id = token.id;
        let request = &mut self.submission.request;
        self.first_token.get_or_insert_with(Instant::now);
        self.generated += 1;
        self.last = Some(id);
        if request.stop_tokens.contains(&id) {
            return Ok(Some(FinishReason::Stop));
        }
        let mut finished = false;
        if let Some(matcher) = &mut request.grammar {
            matcher.commit(id).map_err(grammar)?;
            finished = matcher.is_finished();
        }
        self.submission.outlet.send(Event::Token(token));
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
            cached_tokens: self.cached,
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
        self.submission.outlet.send(Event::Finished(finish));
    }

    /// Ends the stream, and those of siblings that were not split off yet, with an error.
    pub fn fail(mut self, error: EngineError) {
        for sibling in self.submission.take_siblings() {
            sibling.outlet.send(Event::Failed(error.clone()));
        }
        self.submission.outlet.send(Event::Failed(error));
    }
}

fn sampler(request: &Request) -> Arc<Mutex<Sampler>> {
    let sampler = Sampler::new(request.sampling.clone(), &request.prompt);
    Arc::new(Mutex::new(sampler))
}

fn grammar(error: super::grammar::GrammarError) -> EngineError {
    EngineError::Grammar(error.to_string())
}

fn failed(error: SampleError) -> EngineError {
    EngineError::Compute(error.to_string())
}
