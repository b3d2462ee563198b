//! One forward pass over everybody's share of a step, and what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::grammar::Masks;
use super::request::{EngineError, FinishReason};
use super::sampler::batch::{Pick, PickError, Picks, Turn, sample};
use super::scheduler::Share;
use super::sequence::{Arrival, Sequence};
use crate::mlx::{Array, MlxError};
use crate::models::{Logits, Model, Row, token_ids};

/// What a step did for a sequence.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It holds more of its prompt.
    Held,
    /// It has its next token, or several.
    Chosen,
    /// It is at its end.
    Ended(FinishReason),
    /// It is lost.
    Failed(EngineError),
}

/// What a step did.
pub(super) struct Done {
    /// One for each share.
    pub outcomes: Vec<Outcome>,
    /// Siblings that were split off, each with its first token.
    pub parted: Vec<(Sequence, Outcome)>,
}

/// Computes the shares in one pass, and chooses the tokens of those that are up to date.
///
/// What fails the pass fails everybody who had a share in it, as nobody's state can be trusted any
/// more; what fails one sequence's choice of a token fails that one.
///
/// `masks` makes those that are needed for that while the model computes.
pub(super) fn compute(
    model: &dyn Model,
    running: &mut [Sequence],
    plan: &[Share],
    masks: &Masks,
) -> Done {
    for share in plan {
        let sequence = &running[share.sequence];
        if share.tokens == sequence.standing().pending {
            sequence.held().into_iter().for_each(|it| masks.make(it));
        }
    }
    let wanted: Vec<Logits> = plan
        .iter()
        .map(|share| running[share.sequence].logits(share.tokens))
        .collect();
    let failed = |error: EngineError| Done {
        outcomes: plan
            .iter()
            .map(|_| Outcome::Failed(error.clone()))
            .collect(),
        parted: Vec::new(),
    };
    let logits = match guarded(|| forward(model, running, plan, &wanted).map_err(compute_error)) {
        Ok(logits) => logits,
        Err(error) => return failed(error),
    };
    let mut outcomes: Vec<Outcome> = plan.iter().map(|_| Outcome::Held).collect();
    let mut parted = Vec::new();
    // Who chooses from which row of the logits.
    let mut rows = Vec::new();
    let mut turns = Vec::new();
    let mut choosing = Vec::new();
    let mut position = 0;
    for (index, (share, wanted)) in plan.iter().zip(wanted).enumerate() {
        let sequence = &mut running[share.sequence];
        let first = position;
        position += match wanted {
            Logits::None => 0,
            Logits::Last => 1,
            Logits::All => share.tokens,
        };
        if wanted == Logits::All {
            let read = guarded(|| read_prompt(sequence, logits.as_ref(), first, share.tokens));
            if let Err(error) = read {
                outcomes[index] = Outcome::Failed(error);
                continue;
            }
        }
        if sequence.standing().pending > 0 {
            continue;
        }
        let siblings = match sequence.generated() {
            0 => sequence.fork(),
            _ => Vec::new(),
        };
        let (outcome, turn) = turn_of(sequence);
        outcomes[index] = outcome;
        if let Some(turn) = turn {
            turns.push(turn);
            rows.push(position - 1);
            choosing.push(Chooser::Running(index));
        }
        for mut sibling in siblings {
            let (outcome, turn) = turn_of(&mut sibling);
            if let Some(turn) = turn {
                turns.push(turn);
                rows.push(position - 1);
                choosing.push(Chooser::Parted(parted.len()));
            }
            parted.push((sibling, outcome));
        }
    }
    let picked = match choose(logits.as_ref(), &rows, turns) {
        Ok(picked) => picked,
        Err(error) => {
            for (_, outcome) in &mut parted {
                *outcome = Outcome::Failed(error.clone());
            }
            return Done {
                parted,
                ..failed(error)
            };
        }
    };
    for (chooser, picked) in choosing.into_iter().zip(picked) {
        match chooser {
            Chooser::Running(index) => {
                outcomes[index] = go_on(&mut running[plan[index].sequence], picked);
            }
            Chooser::Parted(index) => {
                let (sibling, outcome) = &mut parted[index];
                *outcome = go_on(sibling, picked);
            }
        }
    }
    Done { outcomes, parted }
}

enum Chooser {
    /// By its share.
    Running(usize),
    /// By its place among those split off.
    Parted(usize),
}

/// What the step does for a sequence that is up to date, and its turn if it is to choose a token.
fn turn_of(sequence: &mut Sequence) -> (Outcome, Option<Turn>) {
    if sequence.generated() == 0 {
        if let Some(reason) = sequence.end_prompt() {
            return (Outcome::Ended(reason), None);
        }
        let outcome = fast_forward(sequence);
        if sequence.generated() > 0 {
            return (outcome, None);
        }
    }
    (Outcome::Chosen, Some(sequence.turn()))
}

fn advance(sequence: &mut Sequence, picked: Result<Pick, PickError>) -> Outcome {
    outcome(guarded(|| sequence.advance(picked)))
}

/// Advances by the token that was chosen and by those that have to follow it.
fn go_on(sequence: &mut Sequence, picked: Result<Pick, PickError>) -> Outcome {
    match advance(sequence, picked) {
        Outcome::Chosen => fast_forward(sequence),
        end => end,
    }
}

fn fast_forward(sequence: &mut Sequence) -> Outcome {
    outcome(guarded(|| sequence.fast_forward()))
}

fn outcome(result: Result<Option<FinishReason>, EngineError>) -> Outcome {
    match result {
        Ok(None) => Outcome::Chosen,
        Ok(Some(reason)) => Outcome::Ended(reason),
        Err(error) => Outcome::Failed(error),
    }
}

/// Builds the pass over all shares and starts computing it; the wanted logits, behind one another.
fn forward(
    model: &dyn Model,
    running: &mut [Sequence],
    plan: &[Share],
    wanted: &[Logits],
) -> Result<Option<Array>, MlxError> {
    let mut tokens = Vec::new();
    let mut rows = Vec::with_capacity(plan.len());
    let mut shares = plan.iter().zip(wanted).peekable();
    for (index, sequence) in running.iter_mut().enumerate() {
        let Some((share, &logits)) = shares.next_if(|(share, _)| share.sequence == index) else {
            continue;
        };
        let held = sequence.state.len;
        tokens.extend_from_slice(&sequence.tokens[held..held + share.tokens]);
        rows.push(Row {
            len: share.tokens,
            state: &mut sequence.state,
            logits,
        });
    }
    let tokens = token_ids(&tokens, model.info().vocab_size)?;
    let logits = model.forward(&tokens, &mut rows)?;
    let mut arrays: Vec<&Array> = rows.iter().flat_map(|row| row.state.arrays()).collect();
    arrays.extend(&logits);
    match logits {
        Some(_) => Array::async_eval_all(&arrays)?,
        // Nobody else will wait for it, and unfinished chunks must not pile up.
        None => Array::eval_all(&arrays)?,
    }
    Ok(logits)
}

/// Reads what the model expected of `count` prompt tokens, from row `first` on.
fn read_prompt(
    sequence: &mut Sequence,
    logits: Option<&Array>,
    first: usize,
    count: usize,
) -> Result<(), EngineError> {
    let Some(logits) = logits else { return Ok(()) };
    let stop = (first + count) as i32;
    let rows = logits
        .slice(&[first as i32, 0], &[stop, logits.dim(1)])
        .and_then(|rows| rows.to_vec_f32())
        .map_err(compute_error)?;
    sequence.read_prompt(&rows, count)
}

/// Waits for the pass and chooses a token for each turn, from its row of the logits.
fn choose(
    logits: Option<&Array>,
    rows: &[usize],
    turns: Vec<Turn>,
) -> Result<Vec<Result<Pick, PickError>>, EngineError> {
    let Some(logits) = logits else {
        return Ok(Vec::new());
    };
    let picked = || {
        if turns.is_empty() {
            Array::eval_all(&[logits])?;
            return Ok(Vec::new());
        }
        let all = rows.iter().copied().eq(0..logits.dim(0) as usize);
        let logits = if all {
            logits.clone()
        } else {
            let ids: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
            logits.take(&Array::from_i32(&ids, &[ids.len() as i32])?, 0)?
        };
        sample(&logits, turns)?.wait()
    };
    guarded(|| picked().map_err(compute_error))
}

/// A pass in which everybody decodes, whose tokens nobody has read yet.
pub(super) struct Flight {
    /// Who has a row in it.
    pub rows: Vec<Arrival>,
    picks: Picks,
}

impl Flight {
    /// Starts a pass over the next token of everybody: those that `before` is about to choose, or
    /// those that are known.
    pub fn launch(
        model: &dyn Model,
        running: &mut [Sequence],
        before: Option<&Self>,
        masks: &Masks,
    ) -> Result<Self, EngineError> {
        let launch = || -> Result<Self, EngineError> {
            for sequence in running.iter() {
                sequence.held().into_iter().for_each(|it| masks.make(it));
            }
            let turns = running.iter().map(Sequence::turn).collect();
            let build = || {
                let tokens = match before {
                    Some(before) => before.picks.ids().clone(),
                    None => {
                        let last = running.iter().filter_map(|it| it.tokens.last());
                        let last: Vec<u32> = last.copied().collect();
                        token_ids(&last, model.info().vocab_size)?
                    }
                };
                let rows = running.iter().map(|it| it.arrival).collect();
                let mut pass: Vec<Row<'_>> = running
                    .iter_mut()
                    .map(|sequence| Row {
                        len: 1,
                        state: &mut sequence.state,
                        logits: Logits::Last,
                    })
                    .collect();
                let logits = model.forward(&tokens, &mut pass)?;
                let logits = logits.ok_or_else(|| MlxError::new("a pass without logits"))?;
                let picks = sample(&logits, turns)?;
                let mut arrays: Vec<&Array> =
                    pass.iter().flat_map(|row| row.state.arrays()).collect();
                arrays.push(picks.ids());
                Array::async_eval_all(&arrays)?;
                Ok(Self { rows, picks })
            };
            build().map_err(compute_error)
        };
        guarded(launch)
    }

    /// Waits for the tokens, and gives everybody who is still there its own. `last` says that no other
    /// pass is under way.
    pub fn land(self, running: &mut [Sequence], last: bool) -> Vec<(Arrival, Outcome)> {
        let Self { rows, picks } = self;
        let picked = match guarded(|| picks.wait().map_err(compute_error)) {
            Ok(picked) => picked,
            Err(error) => {
                let failed = |row| (row, Outcome::Failed(error.clone()));
                return rows.into_iter().map(failed).collect();
            }
        };
        let mut outcomes = Vec::with_capacity(rows.len());
        for (row, picked) in rows.into_iter().zip(picked) {
            if let Some(sequence) = running.iter_mut().find(|it| it.arrival == row) {
                let outcome = match last {
                    true => go_on(sequence, picked),
                    false => advance(sequence, picked),
                };
                outcomes.push((row, outcome));
            }
        }
        outcomes
    }
}

fn compute_error(error: MlxError) -> EngineError {
    EngineError::Compute(error.to_string())
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
