//! A request in the engine: its tokens, its state, and where it stands.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::grammar::{GrammarError, Hold, Matcher, SharedMatcher};
use super::handle::Submission;
use super::request::{
    EngineError, Event, Finish, FinishReason, Request, Timings, Token, TokenLogprobs,
};
use super::sampler::batch::{Pick, PickError, Turn, lock};
use super::sampler::{SampleError, Sampler, prompt_logprobs};
use super::scheduler::Running;
use super::siblings::Left;
use super::slots::Task;
use crate::models::{Logits, SequenceState};

/// Bytes of a prompt's logits that are held at once where they are asked for.
const PROMPT_LOGITS_BYTES: usize = 16 << 20;

/// Where a sequence stands among all: the later its request came, the younger it is. The second
/// number is its place among the outputs of the request.
pub(super) type Arrival = (u64, usize);

/// One output, waiting or running; while its prompt is computed, also for its siblings.
pub(super) struct Sequence {
    submission: Submission,
    /// Its name, and its age.
    pub arrival: Arrival,
    /// The prompt and what was generated, a final stop token included.
    pub tokens: Vec<u32>,
    /// How many of them are the prompt.
    pub prompt_len: usize,
    /// Where the prompt parts from an earlier one whose state is not kept there.
    pub branch: Option<usize>,
    /// What the model remembers of `tokens`. Empty until it runs, and again when it is preempted.
    pub state: SequenceState,
    sampler: Arc<Mutex<Sampler>>,
    grammar: Option<SharedMatcher>,
    /// What the grammar says of the next token.
    hold: Hold,
    /// Most tokens to generate, the context considered.
    limit: usize,
    cached_tokens: usize,
    /// Generated tokens that were counted.
    counted: usize,
    /// Of the prompt's tokens after the first, as far as they are known.
    prompt_logprobs: Vec<TokenLogprobs>,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Sequence {
    /// A request that has just come.
    pub fn new(
        mut submission: Submission,
        arrival: Arrival,
        state: SequenceState,
        context: usize,
    ) -> Self {
        let request = &mut submission.request;
        let tokens = std::mem::take(&mut request.prompt);
        let room = context.saturating_sub(tokens.len());
        let (grammar, hold) = grammar(request);
        Self {
            grammar,
            hold,
            sampler: sampler(request, &tokens),
            limit: request.max_tokens.map_or(room, |most| most.min(room)),
            arrival,
            prompt_len: tokens.len(),
            tokens,
            branch: None,
            state,
            cached_tokens: 0,
            counted: 0,
            prompt_logprobs: Vec::new(),
            started: None,
            first_token: None,
            submission,
        }
    }

    /// It has its place, and `cached` tokens of it need not be computed. Told once, also where it
    /// lost the place and got another.
    pub fn start(&mut self, cached: usize) {
        if self.started.is_none() {
            self.started = Some(Instant::now());
            self.cached_tokens = cached;
            self.send_started();
        }
    }

    fn send_started(&self) {
        self.submission.outlet.send(Event::Started {
            queued: self.queued(),
            cached_tokens: self.cached_tokens,
        });
    }

    fn queued(&self) -> Duration {
        let started = self.started.unwrap_or_else(Instant::now);
        started.duration_since(self.submission.submitted)
    }

    /// Gives up the state for that of an empty sequence.
    pub fn reset(&mut self, empty: SequenceState) {
        self.state = empty;
        self.prompt_logprobs.clear();
    }

    /// Splits off the siblings: sequences of their own that share what the prompt's state is.
    ///
    /// Called when the prompt is computed and no token is chosen yet.
    pub fn fork(&mut self) -> Vec<Self> {
        let siblings = self.submission.take_siblings();
        let fork = |(index, mut submission): (usize, Submission)| {
            let (grammar, hold) = grammar(&mut submission.request);
            let sequence = Self {
                grammar,
                hold,
                sampler: sampler(&submission.request, &self.tokens),
                arrival: (self.arrival.0, self.arrival.1 + 1 + index),
                tokens: self.tokens.clone(),
                prompt_len: self.prompt_len,
                branch: None,
                state: self.state.clone(),
                limit: self.limit,
                cached_tokens: self.prompt_len,
                counted: 0,
                prompt_logprobs: self.prompt_logprobs.clone(),
                started: self.started,
                first_token: None,
                submission,
            };
            sequence.send_started();
            sequence
        };
        siblings.into_iter().enumerate().map(fork).collect()
    }

    /// The request itself; its prompt has become `tokens`.
    pub fn request(&self) -> &Request {
        &self.submission.request
    }

    /// Outputs that this sequence still stands for.
    pub fn outputs(&self) -> usize {
        self.submission.outputs()
    }

    /// Drops the outputs whose readers are gone; whether any is left.
    pub fn drop_cancelled(&mut self) -> bool {
        match self.submission.drop_cancelled() {
            Left::Nobody => false,
            Left::First => true,
            Left::Sibling => {
                self.sampler = sampler(&self.submission.request, &self.tokens);
                (self.grammar, self.hold) = grammar(&mut self.submission.request);
                if self.started.is_some() {
                    self.send_started();
                }
                true
            }
        }
    }

    /// Its time is over.
    pub fn overdue(&self, now: Instant) -> bool {
        let deadline = self.request().deadline;
        deadline.is_some_and(|deadline| deadline <= now)
    }

    /// What the scheduler knows of it.
    pub fn standing(&self) -> Running {
        Running {
            held: self.state.len,
            pending: self.tokens.len().saturating_sub(self.state.len),
        }
    }

    /// What it shows of itself.
    pub fn task(&self) -> Task {
        let mut task = Task {
            request: self.arrival.0,
            output: self.arrival.1,
            prompt_tokens: self.prompt_len,
            cached_tokens: self.cached_tokens,
            processed_tokens: 0,
            generated: 0,
            limit: self.limit,
            sampling: Arc::new(self.request().sampling.clone()),
        };
        self.tell(&mut task);
        task
    }

    /// Brings up to date what changes of it.
    pub fn tell(&self, task: &mut Task) {
        task.processed_tokens = self.state.len.min(self.prompt_len);
        task.generated = self.generated();
    }

    /// How many of the next `count` pending tokens are the prompt's.
    pub fn prompt_part(&self, count: usize) -> usize {
        count.min(self.prompt_len.saturating_sub(self.state.len))
    }

    /// How many first tokens both have, the last of this one's not counted; none where the requests
    /// must not share, or this one must see its prompt computed.
    pub fn shared_with(&self, other: &Self) -> usize {
        if self.request().cache_salt != other.request().cache_salt || self.reads_prompt() {
            return 0;
        }
        let own = &self.tokens[..self.tokens.len().saturating_sub(1)];
        let pairs = own.iter().zip(&other.tokens);
        pairs.take_while(|(a, b)| a == b).count()
    }

    /// Whether the logits of all the prompt's positions are to be read.
    pub fn reads_prompt(&self) -> bool {
        self.request().prompt_logprobs.is_some() && self.generated() == 0
    }

    /// Most tokens of one step: a prompt's logits take memory.
    pub fn most_tokens(&self, vocab: usize) -> usize {
        match self.reads_prompt() {
            true => (PROMPT_LOGITS_BYTES / 4 / vocab.max(1)).max(1),
            false => usize::MAX,
        }
    }

    /// The logits that a step of its next `count` tokens is to give.
    pub fn logits(&self, count: usize) -> Logits {
        if self.reads_prompt() {
            Logits::All
        } else if count == self.standing().pending {
            Logits::Last
        } else {
            Logits::None
        }
    }

    /// Reads the prompt's logprobs off `logits` (`[count, vocab]`), those of the `count` tokens that
    /// were computed last.
    pub fn read_prompt(&mut self, logits: &[f32], count: usize) -> Result<(), EngineError> {
        let Some(top) = self.request().prompt_logprobs else {
            return Ok(());
        };
        // What the last position expects is the first token of the output.
        let from = self.state.len - count + 1;
        let targets = &self.tokens[from..(from + count).min(self.prompt_len)];
        let vocab = logits.len() / count.max(1);
        let rows = &logits[..targets.len() * vocab];
        let found = prompt_logprobs(rows, targets, top).map_err(failed)?;
        self.prompt_logprobs.extend(found);
        Ok(())
    }

    /// The prompt is computed: says what was asked about it. The end, if nothing is to follow.
    pub fn end_prompt(&mut self) -> Option<FinishReason> {
        if self.reads_prompt() {
            let logprobs = std::mem::take(&mut self.prompt_logprobs);
            self.submission.outlet.send(Event::Prompt(logprobs));
        }
        (self.limit == 0).then_some(FinishReason::Length)
    }

    /// What the sampler needs to choose the next token.
    pub fn turn(&self) -> Turn {
        Turn {
            sampler: self.sampler.clone(),
            grammar: self.grammar.clone(),
            logprobs: self.request().logprobs,
        }
    }

    /// The grammar whose mask the next choice needs, if it needs one.
    pub fn held(&self) -> Option<&SharedMatcher> {
        self.grammar.as_ref().filter(|_| self.hold == Hold::Held)
    }

    /// Whether the token after the next can be computed before the next is known: it will not be the
    /// last, as far as one can tell, and constrains nothing.
    pub fn goes_on_blindly(&self) -> bool {
        self.hold == Hold::Free && self.generated() + 1 < self.limit
    }

    /// Takes and sends the token that was chosen; the end, if this was the last.
    pub fn advance(
        &mut self,
        picked: Result<Pick, PickError>,
    ) -> Result<Option<FinishReason>, EngineError> {
        picked.map(|pick| self.take(pick)).map_err(unpicked)
    }

    /// Takes the tokens that the grammar leaves no choice about, so that the next pass computes all of
    /// them; the end, if one of them was the last.
    ///
    /// They are those that would be chosen one after the other. Logprobs can only be told by doing so.
    /// No pass that chooses for this sequence may be under way.
    pub fn fast_forward(&mut self) -> Result<Option<FinishReason>, EngineError> {
        if self.request().logprobs.is_some() {
            return Ok(None);
        }
        let Some(grammar) = self.held().cloned() else {
            return Ok(None);
        };
        let mut matcher = grammar.lock();
        loop {
            let forced = matcher.forced().map_err(lost)?;
            if forced.is_empty() {
                return Ok(None);
            }
            for id in forced {
                matcher.commit(id).map_err(lost)?;
                lock(&self.sampler).accept(id);
                let token = Token { id, logprobs: None };
                let hold = matcher.hold();
                if let Some(reason) = self.take(Pick { token, hold }) {
                    return Ok(Some(reason));
                }
            }
        }
    }

    fn take(&mut self, Pick { token, hold }: Pick) -> Option<FinishReason> {
        let id = token.id;
        self.hold = hold;
        self.first_token.get_or_insert_with(Instant::now);
        self.tokens.push(id);
        if self.request().stop_tokens.contains(&id) {
            return Some(FinishReason::Stop);
        }
        self.submission.outlet.send(Event::Token(token));
        if hold == Hold::Over {
            return Some(FinishReason::Stop);
        }
        (self.generated() >= self.limit).then_some(FinishReason::Length)
    }

    /// Generated tokens since the last call.
    pub fn uncounted(&mut self) -> usize {
        let generated = self.generated();
        generated - std::mem::replace(&mut self.counted, generated)
    }

    /// Tokens of the output so far.
    pub fn generated(&self) -> usize {
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
                queued: self.queued(),
                prefill: first.duration_since(started),
                decode: if self.generated() > 1 {
                    now - first
                } else {
                    Duration::ZERO
                },
            },
        };
        self.submission.outlet.send(Event::Finished(finish));
    }

    /// Ends the stream, and those of siblings that were not split off yet, with an error.
    pub fn fail(&mut self, error: &EngineError) {
        for sibling in self.submission.take_siblings() {
            sibling.outlet.send(Event::Failed(error.clone()));
        }
        self.submission.outlet.send(Event::Failed(error.clone()));
    }
}

fn sampler(request: &Request, prompt: &[u32]) -> Arc<Mutex<Sampler>> {
    let sampler = Sampler::new(request.sampling.clone(), prompt);
    Arc::new(Mutex::new(sampler))
}

/// The request's grammar, and what it says of the first token.
fn grammar(request: &mut Request) -> (Option<SharedMatcher>, Hold) {
    let matcher = request.grammar.take();
    let hold = matcher.as_ref().map_or(Hold::Free, Matcher::hold);
    (matcher.map(SharedMatcher::new), hold)
}

fn unpicked(error: PickError) -> EngineError {
    match error {
        PickError::Sample(error) => failed(error),
        PickError::Grammar(error) => lost(error),
    }
}

fn lost(error: GrammarError) -> EngineError {
    let message = error.to_string();
    match error {
        GrammarError::TooComplex(_) => EngineError::GrammarTooComplex(message),
        _ => EngineError::Grammar(message),
    }
}

fn failed(error: SampleError) -> EngineError {
    EngineError::Compute(error.to_string())
}
