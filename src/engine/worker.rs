//! The engine thread: takes requests in, steps the batch, sends tokens out.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::handle::{Counters, Submission};
use super::request::{EngineError, FinishReason};
use super::sampler::batch::sample;
use super::scheduler::plan;
use super::sequence::Sequence;
use crate::mlx::{self, Array, MlxError};
use crate::models::{Model, Row};

/// Prompt tokens a step computes, over all requests. Larger chunks multiply better, smaller ones
/// keep a running stream's gaps short.
const PREFILL_BUDGET: usize = 256;

/// Steps between two returns of MLX's free buffers to the system while the engine is busy.
const STEPS_PER_CLEAR: usize = 256;

pub(super) struct Worker {
    pub model: Box<dyn Model>,
    pub submissions: Receiver<Submission>,
    pub counters: Arc<Counters>,
    pub context_length: usize,
    pub parallel: usize,
}

/// What the engine has to do. Every output that is not in `running` counts as waiting.
#[derive(Default)]
struct Batch {
    running: Vec<Sequence>,
    /// Split off from their prompt's sequence: ahead of requests that have not begun.
    parted: VecDeque<Sequence>,
    waiting: VecDeque<Submission>,
}

/// How a turn went: whether the sequence ended, and what was split off and goes on.
#[derive(Default)]
struct Turned {
    end: Option<Result<FinishReason, EngineError>>,
    parted: Vec<Sequence>,
}

impl Worker {
    /// Serves until every handle is gone.
    pub fn run(self) {
        let mut batch = Batch::default();
        let mut steps = 0usize;
        loop {
            if batch.running.is_empty() && batch.parted.is_empty() && batch.waiting.is_empty() {
                return_free_buffers();
                match self.submissions.recv() {
                    Ok(submission) => batch.waiting.push_back(submission),
                    Err(_) => return,
                }
            }
            batch.waiting.extend(self.submissions.try_iter());
            self.cancel(&mut batch);
            self.admit(&mut batch);
            self.step(&mut batch);
            steps += 1;
            if steps.is_multiple_of(STEPS_PER_CLEAR) {
                return_free_buffers();
            }
        }
    }

    fn cancel(&self, batch: &mut Batch) {
        let waiting = std::mem::take(&mut batch.waiting);
        batch.waiting.extend(waiting.into_iter().filter_map(|old| {
            let before = old.outputs();
            let left = old.without_cancelled();
            self.no_longer_waiting(before - left.as_ref().map_or(0, Submission::outputs));
            left
        }));
        let parted = std::mem::take(&mut batch.parted);
        batch.parted.extend(parted.into_iter().filter_map(|old| {
            let left = old.without_cancelled();
            self.no_longer_waiting(usize::from(left.is_none()));
            left
        }));
        let running = std::mem::take(&mut batch.running);
        batch.running.extend(running.into_iter().filter_map(|old| {
            let siblings = |sequence: &Sequence| sequence.outputs() - 1;
            let before = siblings(&old);
            let left = old.without_cancelled();
            self.no_longer_waiting(before - left.as_ref().map_or(0, siblings));
            left
        }));
        self.publish(&batch.running);
    }

    fn admit(&self, batch: &mut Batch) {
        while batch.running.len() < self.parallel {
            let sequence = if let Some(sequence) = batch.parted.pop_front() {
                sequence
            } else if let Some(submission) = batch.waiting.pop_front() {
                Sequence::new(submission, self.model.new_state(), self.context_length)
            } else {
                return;
            };
            batch.running.push(sequence);
            self.publish(&batch.running);
            self.no_longer_waiting(1);
        }
    }

    /// One step: every sequence's share in turn, so that none depends on the others' company.
    fn step(&self, batch: &mut Batch) {
        let pending: Vec<usize> = batch.running.iter().map(Sequence::pending).collect();
        let mut ended = Vec::new();
        for share in plan(&pending, PREFILL_BUDGET) {
            let sequence = &mut batch.running[share.sequence];
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn(sequence, share.tokens)));
            let result = turn.unwrap_or_else(|panic| {
                Err(EngineError::Compute(format!(
                    "internal error: {}",
                    panic_message(&*panic)
                )))
            });
            let Turned { end, parted } = result.unwrap_or_else(|error| Turned {
                end: Some(Err(error)),
                parted: Vec::new(),
            });
            batch.parted.extend(parted);
            ended.extend(end.map(|end| (share.sequence, end)));
        }
        ended.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, result) in ended {
            let sequence = batch.running.remove(index);
            // Before the reader learns of the end, so that its next look sees the place free.
            self.publish(&batch.running);
            self.no_longer_waiting(sequence.outputs() - 1);
            end_stream(sequence, result);
        }
    }

    /// Computes `count` tokens of one sequence.
    fn turn(&self, sequence: &mut Sequence, count: usize) -> Result<Turned, EngineError> {
        let count = count.min(sequence.most_tokens(self.model.info().vocab_size));
        let (prefill, last) = (sequence.in_prefill(), count == sequence.pending());
        if prefill {
            self.counters
                .prompt_tokens
                .fetch_add(count as u64, Ordering::Relaxed);
        }
        let logits = self.forward(sequence, count).map_err(compute)?;
        if prefill && let Some(logits) = logits.as_ref().filter(|_| sequence.wants_prompt()) {
            sequence.read_prompt(&logits.to_vec_f32().map_err(compute)?, count)?;
        }
        let Some(logits) = logits.filter(|_| last) else {
            return Ok(Turned::default());
        };
        if !prefill {
            let end = self.choose(&logits, &mut [sequence]).map_err(compute)?;
            return Ok(Turned {
                end: end.into_iter().next().and_then(Result::transpose),
                parted: Vec::new(),
            });
        }
        Ok(self.first_tokens(sequence, &logits))
    }

    /// The end of a prompt: splits the siblings off, and chooses everybody's first token.
    fn first_tokens(&self, sequence: &mut Sequence, logits: &Array) -> Turned {
        let mut siblings = sequence.fork();
        let mut all: Vec<&mut Sequence> = std::iter::once(sequence).chain(&mut siblings).collect();
        let ends: Vec<Option<FinishReason>> = all.iter_mut().map(|s| s.end_prompt()).collect();
        let results = if ends.iter().all(Option::is_some) {
            ends.into_iter().map(Ok).collect()
        } else {
            let count = all.len();
            let failed = |error: MlxError| vec![Err(compute(error)); count];
            self.choose(logits, &mut all).unwrap_or_else(failed)
        };
        let mut ends = results.into_iter().map(Result::transpose);
        let end = ends.next().flatten();
        let mut parted = Vec::new();
        for (sibling, result) in siblings.into_iter().zip(ends) {
            match result {
                None => parted.push(sibling),
                Some(result) => {
                    self.no_longer_waiting(1);
                    end_stream(sibling, result);
                }
            }
        }
        Turned { end, parted }
    }

    /// Builds a sequence's part of the step, and starts computing it; the wanted logits.
    fn forward(&self, sequence: &mut Sequence, count: usize) -> Result<Option<Array>, MlxError> {
        let (tokens, state, logits) = sequence.feed(count);
        let mut rows = [Row {
            tokens,
            state,
            logits,
        }];
        let outputs = self.model.forward(&mut rows)?;
        let logits = outputs.into_iter().flatten().next();
        let mut arrays: Vec<&Array> = sequence.state.arrays();
        arrays.extend(logits.as_ref());
        match logits {
            // Waits, so that a long prompt does not pile up unfinished chunks.
            None => Array::eval_all(&arrays)?,
            Some(_) => Array::async_eval_all(&arrays)?,
        }
        Ok(logits)
    }

    /// Chooses a token for each sequence from the last row of `logits` (`[positions, vocab]`).
    fn choose(
        &self,
        logits: &Array,
        sequences: &mut [&mut Sequence],
    ) -> Result<Vec<Result<Option<FinishReason>, EngineError>>, MlxError> {
        let mut turns = Vec::with_capacity(sequences.len());
        let mut errors = Vec::with_capacity(sequences.len());
        for sequence in sequences.iter_mut() {
            match sequence.turn() {
                Ok(turn) => {
                    turns.push(turn);
                    errors.push(None);
                }
                Err(error) => errors.push(Some(error)),
            }
        }
        let mut picked = if turns.is_empty() {
            Vec::new()
        } else {
            sample(&last_row(logits, turns.len())?, turns)?.wait()?
        }
        .into_iter();
        let advance = |(sequence, error): (&mut &mut Sequence, Option<EngineError>)| {
            if let Some(error) = error {
                return Err(error);
            }
            self.counters
                .completion_tokens
                .fetch_add(1, Ordering::Relaxed);
            let lost = || EngineError::Compute("a row was not sampled".to_owned());
            sequence.advance(picked.next().ok_or_else(lost)?)
        };
        Ok(sequences.iter_mut().zip(errors).map(advance).collect())
    }

    fn no_longer_waiting(&self, outputs: usize) {
        self.counters.waiting.fetch_sub(outputs, Ordering::AcqRel);
    }

    fn publish(&self, running: &[Sequence]) {
        self.counters
            .running
            .store(running.len(), Ordering::Release);
    }
}

/// The last row of `[positions, vocab]`, `copies` times.
fn last_row(logits: &Array, copies: usize) -> Result<Array, MlxError> {
    let (positions, vocab) = (logits.dim(0), logits.dim(1));
    let row = if positions == 1 {
        logits.clone()
    } else {
        logits.slice(&[positions - 1, 0], &[positions, vocab])?
    };
    if copies == 1 {
        return Ok(row);
    }
    Array::concatenate(&vec![&row; copies], 0)
}

/// Tells a sequence's reader how it ended.
fn end_stream(sequence: Sequence, result: Result<FinishReason, EngineError>) {
    match result {
        Ok(reason) => sequence.finish(reason),
        Err(error) => {
            tracing::error!(%error, "a request failed");
            sequence.fail(error);
        }
    }
}

fn compute(error: MlxError) -> EngineError {
    EngineError::Compute(error.to_string())
}

/// Gives MLX's free buffers back to the system.
fn return_free_buffers() {
    if let Err(error) = mlx::clear_cache() {
        tracing::warn!(%error, "MLX kept its free buffers");
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}
