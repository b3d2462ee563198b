//! One forward pass over everybody's share of a step, and what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::request::{EngineError, FinishReason};
use super::scheduler::Share;
use super::sequence::Sequence;
use crate::mlx::{Array, MlxError};
use crate::models::{Logits, Model, Row, token_ids};

/// What a step did for a sequence.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It holds more of its prompt.
    Held,
    /// It has its next token.
    Chosen,
    /// It has its last one.
    Ended(FinishReason),
    /// It is lost.
    Failed(EngineError),
}

/// Computes the shares in one pass; an outcome for each.
///
/// What fails the pass fails everybody who had a share in it, as nobody's state can be trusted any
/// more; what fails one sequence's choice of a token fails that one.
pub(super) fn compute(model: &dyn Model, running: &mut [Sequence], plan: &[Share]) -> Vec<Outcome> {
    let chosen: Vec<bool> = plan
        .iter()
        .map(|share| share.tokens == running[share.sequence].standing().pending)
        .collect();
    let logits = guarded(|| {
        forward(model, running, plan, &chosen)
            .map_err(|error| EngineError::Compute(error.to_string()))
    });
    let mut logits = match logits {
        Ok(logits) => logits,
        Err(error) => {
            let failed = |_: &Share| Outcome::Failed(error.clone());
            return plan.iter().map(failed).collect();
        }
    };
    let mut rows = logits.chunks_mut(model.info().vocab_size);
    plan.iter()
        .zip(chosen)
        .map(|(share, chosen)| {
            let Some(row) = chosen.then(|| rows.next()).flatten() else {
                return Outcome::Held;
            };
            let sequence = &mut running[share.sequence];
            match guarded(|| sequence.advance(row)) {
                Ok(None) => Outcome::Chosen,
                Ok(Some(reason)) => Outcome::Ended(reason),
                Err(error) => Outcome::Failed(error),
            }
        })
        .collect()
}

/// Runs the model over all shares and evaluates once; the logits of those that choose a token,
/// behind one another.
fn forward(
    model: &dyn Model,
    running: &mut [Sequence],
    plan: &[Share],
    chosen: &[bool],
) -> Result<Vec<f32>, MlxError> {
    let mut tokens = Vec::new();
    let mut rows = Vec::with_capacity(plan.len());
    let mut shares = plan.iter().zip(chosen).peekable();
    for (index, sequence) in running.iter_mut().enumerate() {
        let Some((share, &chosen)) = shares.next_if(|(share, _)| share.sequence == index) else {
            continue;
        };
        let held = sequence.state.len;
        tokens.extend_from_slice(&sequence.tokens[held..held + share.tokens]);
        rows.push(Row {
            len: share.tokens,
            state: &mut sequence.state,
            logits: if chosen { Logits::Last } else { Logits::None },
        });
    }
    let tokens = token_ids(&tokens, model.info().vocab_size)?;
    let logits = model.forward(&tokens, &mut rows)?;
    let mut arrays: Vec<&Array> = rows.iter().flat_map(|row| row.state.arrays()).collect();
    arrays.extend(&logits);
    Array::eval_all(&arrays)?;
    logits.map_or(Ok(Vec::new()), |logits| logits.to_vec_f32())
}

/// Turns a panic into an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        Err(EngineError::Compute(format!("internal error: {message}")))
    })
}
