//! The engine thread: takes requests in, steps the batch, sends tokens out.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::handle::{Counters, Submission};
use super::request::EngineError;
use super::scheduler::plan;
use super::sequence::Sequence;
use crate::mlx::{self, Array, MlxError};
use crate::models::{Logits, Model, Row};

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

impl Worker {
    /// Serves until every handle is gone.
    pub fn run(self) {
        let mut waiting = VecDeque::new();
        let mut running: Vec<Sequence> = Vec::new();
        let mut steps = 0usize;
        loop {
            if running.is_empty() && waiting.is_empty() {
                return_free_buffers();
                match self.submissions.recv() {
                    Ok(submission) => waiting.push_back(submission),
                    Err(_) => return,
                }
            }
            waiting.extend(self.submissions.try_iter());
            self.cancel(&mut waiting, &mut running);
            self.admit(&mut waiting, &mut running);
            self.step(&mut running);
            steps += 1;
            if steps.is_multiple_of(STEPS_PER_CLEAR) {
                return_free_buffers();
            }
        }
    }

    fn cancel(&self, waiting: &mut VecDeque<Submission>, running: &mut Vec<Sequence>) {
        waiting.retain(|submission| {
            let cancelled = submission.cancelled.load(Ordering::Acquire);
            if cancelled {
                self.counters.waiting.fetch_sub(1, Ordering::AcqRel);
            }
            !cancelled
        });
        running.retain(|sequence| !sequence.cancelled());
        self.counters
            .running
            .store(running.len(), Ordering::Release);
    }

    fn admit(&self, waiting: &mut VecDeque<Submission>, running: &mut Vec<Sequence>) {
        while running.len() < self.parallel
            && let Some(submission) = waiting.pop_front()
        {
            let sequence = Sequence::new(submission, self.model.new_state(), self.context_length);
            running.push(sequence);
            self.counters
                .running
                .store(running.len(), Ordering::Release);
            self.counters.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// One step: every sequence's share in turn, so that none depends on the others' company.
    fn step(&self, running: &mut Vec<Sequence>) {
        let pending: Vec<usize> = running.iter().map(Sequence::pending).collect();
        let mut ended = Vec::new();
        for share in plan(&pending, PREFILL_BUDGET) {
            let sequence = &mut running[share.sequence];
            if sequence.cancelled() {
                continue;
            }
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn(sequence, share.tokens)));
            let result = turn.unwrap_or_else(|panic| {
                Err(EngineError::Compute(format!(
                    "internal error: {}",
                    panic_message(&*panic)
                )))
            });
            match result {
                Ok(None) => {}
                Ok(Some(reason)) => ended.push((share.sequence, Ok(reason))),
                Err(error) => ended.push((share.sequence, Err(error))),
            }
        }
        ended.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, result) in ended {
            let sequence = running.remove(index);
            // Before the reader learns of the end, so that its next look sees the place free.
            self.counters
                .running
                .store(running.len(), Ordering::Release);
            match result {
                Ok(reason) => sequence.finish(reason),
                Err(error) => {
                    tracing::error!(%error, "a request failed");
                    sequence.fail(error);
                }
            }
        }
    }

    /// Computes `count` tokens of one sequence; its end, if it came.
    fn turn(
        &self,
        sequence: &mut Sequence,
        count: usize,
    ) -> Result<Option<super::request::FinishReason>, EngineError> {
        let last = count == sequence.pending();
        if sequence.in_prefill() {
            self.counters.prompt_tokens.add(count as u64);
        }
        let logits = forward(&*self.model, sequence, count, last)
            .map_err(|error| EngineError::Compute(error.to_string()))?;
        let Some(mut logits) = logits else {
            return Ok(None);
        };
        self.counters.completion_tokens.add(1);
        sequence.advance(&mut logits)
    }
}

/// Runs the model and evaluates; the last position's logits (`[vocab]`) if `wanted`.
fn forward(
    model: &dyn Model,
    sequence: &mut Sequence,
    count: usize,
    wanted: bool,
) -> Result<Option<Vec<f32>>, MlxError> {
    let (tokens, state) = sequence.feed(count);
    let logits = if wanted { Logits::Last } else { Logits::None };
    let mut rows = [Row {
        tokens,
        state,
        logits,
    }];
    let outputs = model.forward(&mut rows)?;
    let logits = outputs.into_iter().flatten().next();
    let mut arrays: Vec<&Array> = sequence.state.arrays();
    arrays.extend(logits.as_ref());
    Array::eval_all(&arrays)?;
    logits.map(|logits| logits.to_vec_f32()).transpose()
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
