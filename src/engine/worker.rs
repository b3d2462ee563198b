//! The engine thread: takes requests in, gives them places, steps the batch, sends tokens out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::grammar::Masks;
use super::handle::{Counters, Submission};
use super::memory;
use super::prefix_cache::{PrefixCache, WORTHWHILE};
use super::request::{EngineError, FinishReason};
use super::scheduler::{Limits, Pace, Running, Share, Waiting, admit, preempt, shares};
use super::sequence::{Arrival, Sequence};
use super::step::{Done, Flight, Outcome, compute};
use crate::mlx::Device;
use crate::models::Model;

/// How long the engine is at rest before free memory goes back to the system: the next request of a
/// conversation would only have to fault it in again.
const REST_BEFORE_RETURN: Duration = Duration::from_millis(500);

/// Between two returns of free memory while the engine is busy.
const BUSY_BEFORE_RETURN: Duration = Duration::from_secs(5);

/// What the engine may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// Where it computes.
    pub device: Device,
    /// Tokens of one request, prompt and output.
    pub context: usize,
    /// Places in the batch.
    pub places: usize,
    /// Bytes for the states of running sequences and the prefix cache.
    pub kv_bytes: u64,
    /// How much of them the prefix cache may take; `None` keeps nothing.
    pub prefix_cache: Option<u64>,
}

pub(super) struct Worker {
    model: Box<dyn Model>,
    submissions: Receiver<Submission>,
    counters: Arc<Counters>,
    capacity: Capacity,
    cache: Option<PrefixCache>,
    pace: Pace,
    masks: Masks,
    arrivals: u64,
    /// How many outputs without a place the counters know of.
    counted: usize,
    /// A pass that was started and not read.
    flight: Option<Flight>,
    /// Both in the order in which the requests came.
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
}

impl Worker {
    pub fn new(
        model: Box<dyn Model>,
        submissions: Receiver<Submission>,
        counters: Arc<Counters>,
        capacity: Capacity,
    ) -> Self {
        let size = model.info().state.clone();
        let cache = capacity
            .prefix_cache
            .map(|_| PrefixCache::new(&model.new_state(), size));
        Self {
            model,
            submissions,
            counters,
            capacity,
            cache,
            pace: Pace::default(),
            masks: Masks::default(),
            arrivals: 0,
            counted: 0,
            flight: None,
            waiting: VecDeque::new(),
            running: Vec::new(),
        }
    }

    /// Serves until every handle is gone.
    pub fn run(mut self) {
        let mut returned = Instant::now();
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                let Some(submission) = self.rest() else {
                    return;
                };
                self.enqueue(submission);
            }
            while let Ok(submission) = self.submissions.try_recv() {
                self.enqueue(submission);
            }
            self.drop_cancelled_and_overdue();
            match self.flight.take() {
                Some(flight) => self.land(flight),
                None => {
                    self.make_places();
                    self.step();
                }
            }
            if returned.elapsed() > BUSY_BEFORE_RETURN {
                memory::return_free_buffers();
                returned = Instant::now();
            }
        }
    }

    /// Waits for a request, and gives free memory back when none comes; `None` when every handle is
    /// gone.
    fn rest(&self) -> Option<Submission> {
        match self.submissions.recv_timeout(REST_BEFORE_RETURN) {
            Ok(submission) => Some(submission),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                memory::return_free_buffers();
                self.submissions.recv().ok()
            }
        }
    }

    fn enqueue(&mut self, submission: Submission) {
        // Whoever submitted it has counted it.
        self.counted += submission.outputs();
        let state = self.model.new_state();
        let arrival = (self.arrivals, 0);
        self.arrivals += 1;
        let sequence = Sequence::new(submission, arrival, state, self.capacity.context);
        self.waiting.push_back(sequence);
    }

    fn drop_cancelled_and_overdue(&mut self) {
        let now = Instant::now();
        let stays = |sequence: &mut Sequence| {
            if sequence.overdue(now) {
                sequence.fail(&EngineError::DeadlineExceeded);
                return false;
            }
            sequence.drop_cancelled()
        };
        self.waiting.retain_mut(stays);
        self.running.retain_mut(stays);
        self.land_for_nobody();
        self.count();
    }

    /// Tells the others how many run and wait.
    fn count(&mut self) {
        let counters = &self.counters;
        counters
            .running
            .store(self.running.len(), Ordering::Release);
        // By the difference: requests that are still in the channel are counted as well.
        let waiting: usize = self.waiting.iter().map(Sequence::outputs).sum();
        let siblings: usize = self.running.iter().map(|it| it.outputs() - 1).sum();
        let waiting = waiting + siblings;
        if waiting > self.counted {
            counters
                .waiting
                .fetch_add(waiting - self.counted, Ordering::AcqRel);
        } else {
            counters
                .waiting
                .fetch_sub(self.counted - waiting, Ordering::AcqRel);
        }
        self.counted = waiting;
        let size = &self.model.info().state;
        let held = self.running.iter().map(|it| size.bytes(it.state.len)).sum();
        counters.kv_bytes.store(held, Ordering::Relaxed);
        let cached = self.cache.as_ref().map_or(0, PrefixCache::bytes);
        counters.cache_bytes.store(cached, Ordering::Relaxed);
        counters.board.show(&self.running);
    }

    fn limits(&self) -> Limits<'_> {
        Limits {
            places: self.capacity.places,
            memory: self.capacity.kv_bytes,
            size: &self.model.info().state,
        }
    }

    fn standings(&self) -> Vec<Running> {
        self.running.iter().map(Sequence::standing).collect()
    }

    /// Takes places from those that memory does not suffice for, or else gives out what is free.
    fn make_places(&mut self) {
        let leave = preempt(&self.standings(), self.limits());
        if leave > 0 {
            for mut sequence in self.running.drain(self.running.len() - leave..) {
                sequence.reset(self.model.new_state());
                let at = self
                    .waiting
                    .partition_point(|other| other.arrival < sequence.arrival);
                self.waiting.insert(at, sequence);
            }
            self.counters
                .preemptions
                .fetch_add(leave as u64, Ordering::Relaxed);
        } else {
            self.give_places();
        }
        // What the running sequences need is taken from the cache.
        let room = self.room_for_cache();
        if let Some(cache) = &mut self.cache {
            cache.shrink(room);
        }
        self.count();
    }

    /// Gives out the places that are free.
    fn give_places(&mut self) {
        if !self.waiting.is_empty() && self.running.len() < self.capacity.places {
            self.admit();
        }
    }

    fn room_for_cache(&self) -> u64 {
        let reserved = self.limits().reserved(&self.standings());
        let most = self.capacity.prefix_cache.unwrap_or(0);
        self.capacity.kv_bytes.saturating_sub(reserved).min(most)
    }

    fn admit(&mut self) {
        let waiting = self.candidates();
        let admitted = admit(&self.standings(), &waiting, self.limits());
        for (gone, index) in admitted.into_iter().enumerate() {
            let Some(mut sequence) = self.waiting.remove(index - gone) else {
                continue;
            };
            match self.recall(&mut sequence) {
                Ok(cached) => {
                    self.counters
                        .cached_tokens
                        .fetch_add(cached as u64, Ordering::Relaxed);
                    sequence.start(cached);
                    self.running.push(sequence);
                }
                Err(error) => {
                    tracing::error!(%error, "a request failed");
                    sequence.fail(&EngineError::Compute(error.to_string()));
                }
            }
        }
        self.running.sort_by_key(|sequence| sequence.arrival);
    }

    /// The waiting requests, as far as there are places for them.
    ///
    /// One is held back where another that runs, or enters before it, is to compute what both begin
    /// with: it will be a hit.
    fn candidates(&self) -> Vec<Waiting> {
        let mut ahead: Vec<&Sequence> = Vec::new();
        let mut candidates = Vec::new();
        for sequence in &self.waiting {
            if self.running.len() + ahead.len() >= self.capacity.places {
                break;
            }
            let held_back = self.cache.as_ref().is_some_and(|cache| {
                if sequence.reads_prompt() {
                    return false;
                }
                let known = cache.known(&sequence.request().cache_salt, &sequence.tokens);
                let computes = |other: &&Sequence| {
                    let shared = sequence.shared_with(other);
                    shared >= known + WORTHWHILE && shared > other.state.len
                };
                self.running
                    .iter()
                    .chain(ahead.iter().copied())
                    .any(|it| computes(&it))
            });
            if !held_back {
                ahead.push(sequence);
            }
            candidates.push(Waiting {
                tokens: sequence.tokens.len(),
                held_back,
            });
        }
        candidates
    }

    /// Fills a sequence's state with what is known of it: kept from earlier requests, or held by a
    /// running one. Gives the number of tokens.
    fn recall(&mut self, sequence: &mut Sequence) -> Result<usize, crate::mlx::MlxError> {
        let room = self.room_for_cache();
        let Some(cache) = &mut self.cache else {
            return Ok(0);
        };
        if sequence.reads_prompt() {
            return Ok(0);
        }
        self.counters
            .queried_tokens
            .fetch_add(sequence.tokens.len() as u64, Ordering::Relaxed);
        let salt = sequence.request().cache_salt;
        let mut known = cache.known(&salt, &sequence.tokens);
        for running in self.running.iter().filter(|it| !it.state.rolls()) {
            let held = sequence.shared_with(running).min(running.state.len);
            if held >= known + WORTHWHILE {
                cache.publish(&salt, &sequence.tokens[..held], &running.state, room)?;
                known = cache.known(&salt, &sequence.tokens);
            }
        }
        let hit = cache.find(&salt, &sequence.tokens)?;
        hit.restore(&mut sequence.state)?;
        sequence.branch = cache.branch(&salt, &sequence.tokens, hit.len);
        Ok(hit.len)
    }

    /// One step of everybody who has a share in it.
    fn step(&mut self) {
        let decodes = |it: &Sequence| it.generated() > 0 && it.standing().pending == 1;
        if self.running.iter().all(decodes) && self.nobody_can_enter() {
            return self.launch(None);
        }
        let pending: Vec<usize> = self.standings().iter().map(|it| it.pending).collect();
        let company = self.running.len() + self.waiting.len() > 1;
        let mut plan = shares(&pending, self.pace.budget(company));
        self.cut(&mut plan);
        if plan.is_empty() {
            return;
        }
        let began = Instant::now();
        let prompt: usize = plan
            .iter()
            .map(|share| self.running[share.sequence].prompt_part(share.tokens))
            .sum();
        self.counters.prompt_tokens.add(prompt as u64);
        let Done { outcomes, parted } =
            compute(&*self.model, &mut self.running, &plan, &self.masks);
        let tokens = plan.iter().map(|share| share.tokens).sum();
        self.pace.record(tokens, began.elapsed());

        for (share, outcome) in plan.iter().zip(&outcomes) {
            if matches!(outcome, Outcome::Held | Outcome::Chosen) {
                self.keep_at_mark(share.sequence);
            }
        }
        let who = |share: &Share| self.running[share.sequence].arrival;
        let who: Vec<Arrival> = plan.iter().map(who).collect();
        let placed: Vec<(Arrival, Outcome)> = self.place(parted);
        self.settle(who.into_iter().zip(outcomes).chain(placed).collect());
    }

    /// Gives siblings that were split off a place beside their prompt's first output, or lets them
    /// wait for one.
    fn place(&mut self, parted: Vec<(Sequence, Outcome)>) -> Vec<(Arrival, Outcome)> {
        let mut outcomes = Vec::with_capacity(parted.len());
        for (mut sequence, outcome) in parted {
            let goes_on = matches!(outcome, Outcome::Chosen);
            let mut standings = self.standings();
            standings.push(sequence.standing());
            let limits = self.limits();
            let fits =
                standings.len() <= limits.places && limits.reserved(&standings) <= limits.memory;
            outcomes.push((sequence.arrival, outcome));
            if fits || !goes_on {
                self.running.push(sequence);
            } else {
                let tokens = sequence.uncounted();
                self.counters.completion_tokens.add(tokens as u64);
                outcomes.pop();
                sequence.reset(self.model.new_state());
                let at = self
                    .waiting
                    .partition_point(|other| other.arrival < sequence.arrival);
                self.waiting.insert(at, sequence);
            }
        }
        self.running.sort_by_key(|sequence| sequence.arrival);
        outcomes
    }

    /// Whether the batch can stay as it is for another step: everybody decodes, and nobody waits for
    /// a place that there is.
    fn nobody_can_enter(&self) -> bool {
        let limits = self.limits();
        let next: Vec<Running> = self
            .running
            .iter()
            .map(|sequence| Running {
                held: sequence.tokens.len(),
                pending: 1,
            })
            .collect();
        !next.is_empty()
            && (self.waiting.is_empty() || next.len() >= limits.places)
            && limits.reserved(&next) <= limits.memory
    }

    /// Starts a pass in which everybody decodes, and does not wait for it.
    fn launch(&mut self, before: Option<&Flight>) {
        match Flight::launch(&*self.model, &mut self.running, before, &self.masks) {
            Ok(flight) => self.flight = Some(flight),
            Err(error) => {
                let failed =
                    |sequence: &Sequence| (sequence.arrival, Outcome::Failed(error.clone()));
                let failed = self.running.iter().map(failed).collect();
                self.settle(failed);
            }
        }
    }

    /// Reads the tokens of a pass. Where they do not matter for what comes next, that is started
    /// first, so that it is computed while these are sent.
    fn land(&mut self, flight: Flight) {
        let same = self.running.iter().map(|it| &it.arrival).eq(&flight.rows);
        let blind = self.running.iter().all(Sequence::goes_on_blindly);
        if same && blind && self.nobody_can_enter() {
            self.launch(Some(&flight));
        }
        let last = self.flight.is_none();
        let outcomes = flight.land(&mut self.running, last);
        self.settle(outcomes);
        self.land_for_nobody();
    }

    /// Waits for a pass that nobody is left to read, so that an engine at rest computes nothing.
    fn land_for_nobody(&mut self) {
        if self.running.is_empty()
            && let Some(flight) = self.flight.take()
        {
            flight.land(&mut [], true);
        }
    }

    /// Ends what came to its end, and lets the others be.
    fn settle(&mut self, outcomes: Vec<(Arrival, Outcome)>) {
        let mut ended = Vec::new();
        for (arrival, outcome) in outcomes {
            let place = self.running.iter().position(|it| it.arrival == arrival);
            let Some(place) = place else { continue };
            let tokens = self.running[place].uncounted();
            self.counters.completion_tokens.add(tokens as u64);
            let result = match outcome {
                Outcome::Held | Outcome::Chosen => continue,
                Outcome::Ended(reason) => Ok(reason),
                Outcome::Failed(error) => Err(error),
            };
            ended.push((self.running.remove(place), result));
        }
        if !ended.is_empty() {
            self.end(ended);
        }
    }

    /// Shortens the chunks whose logits would take too much memory, and lets others end where a
    /// state that cannot be cut is to be kept.
    fn cut(&self, plan: &mut [Share]) {
        let vocab = self.model.info().vocab_size;
        for share in plan {
            let sequence = &self.running[share.sequence];
            share.tokens = share.tokens.min(sequence.most_tokens(vocab));
            let held = sequence.state.len;
            if let Some(cache) = &self.cache
                && held < sequence.prompt_len
            {
                let mark = cache.next_mark(held, sequence.prompt_len, sequence.branch);
                share.tokens = share.tokens.min(mark - held);
            }
        }
    }

    fn keep_at_mark(&mut self, index: usize) {
        let room = self.room_for_cache();
        let (Some(cache), Some(sequence)) = (&mut self.cache, self.running.get(index)) else {
            return;
        };
        if cache.is_mark(sequence.state.len, sequence.prompt_len, sequence.branch) {
            keep(cache, sequence, room);
        }
    }

    /// Tells readers that their sequences, which have left the batch, are at their ends.
    fn end(&mut self, mut ended: Vec<(Sequence, Result<FinishReason, EngineError>)>) {
        let awaited = !self.waiting.is_empty();
        if awaited {
            // Who waits for the places may begin like those that had them, and has them at once, also
            // beside a pass that is being computed.
            self.keep_ended(&ended);
            self.give_places();
        }
        // Before a reader learns of the end, so that its next look sees a free place.
        self.count();
        for (sequence, result) in &mut ended {
            match result {
                Ok(reason) => sequence.finish(*reason),
                Err(error) => {
                    tracing::error!(%error, "a request failed");
                    sequence.fail(error);
                }
            }
        }
        if !awaited {
            self.keep_ended(&ended);
        }
    }

    /// Keeps the states of those that were not lost.
    fn keep_ended(&mut self, ended: &[(Sequence, Result<FinishReason, EngineError>)]) {
        for (sequence, _) in ended.iter().filter(|(_, result)| result.is_ok()) {
            let own = self.limits().reserved(&[sequence.standing()]);
            let room = self.room_for_cache().saturating_sub(own);
            if let Some(cache) = &mut self.cache {
                keep(cache, sequence, room);
            }
        }
    }
}

fn keep(cache: &mut PrefixCache, sequence: &Sequence, room: u64) {
    let tokens = &sequence.tokens[..sequence.state.len];
    let salt = &sequence.request().cache_salt;
    if let Err(error) = cache.publish(salt, tokens, &sequence.state, room) {
        // The request has its answer; only a later one is slower for it.
        tracing::warn!(%error, "a prompt could not be kept");
    }
}
