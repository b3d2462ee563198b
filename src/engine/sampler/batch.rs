//! Sampling the rows of a step in one lazy MLX operation.
//!
//! [`sample`] takes the lazy logits of several rows, each row with its own sampler, grammar and wish for
//! logprobs, and gives the lazy ids: an array like any other, from which the next step can be built
//! and queued before anybody has read them. The operation runs on the CPU's stream when the ids are
//! evaluated, in the order of the stream: a sampler that two queued steps share sees the first one's
//! token before it chooses the second.
//!
//! On the CPU backend this is faster than the same steps as MLX operations, each of which is a pass
//! over `[rows, vocab]` and, for every filter but min-p, a whole sort (`bench/sampling.py`). On a GPU
//! the logits lie in memory that the CPU reads too. There is one implementation, so that a request's
//! tokens cannot depend on which one it got.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::{SampleError, Sampler, logprobs};
use crate::engine::grammar::{GrammarError, Hold, SharedMatcher};
use crate::engine::request::Token;
use crate::mlx::{Array, MlxError};

/// A row's part in a step's sampling.
#[derive(Clone)]
pub struct Turn {
    /// Chooses and remembers. Locked only while the operation runs.
    pub sampler: Arc<Mutex<Sampler>>,
    /// Says which tokens are allowed, and is told the one that is chosen.
    pub grammar: Option<SharedMatcher>,
    /// `Some(k)`: report the chosen token's logprob and those of the `k` likeliest.
    pub logprobs: Option<usize>,
}

type Outcome = Result<Pick, PickError>;

/// A row's next token.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    /// The token.
    pub token: Token,
    /// What the grammar says of the one after it.
    pub hold: Hold,
}

/// Why a row has no next token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The sampler found none.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The grammar failed.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

/// The tokens of a step, chosen or yet to be.
pub struct Picks {
    ids: Array,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

/// Chooses a token for each row of `logits` (`[turns, vocab]`, float32).
#[track_caller]
pub fn sample(logits: &Array, turns: Vec<Turn>) -> Result<Picks, MlxError> {
    let rows = turns.len();
    if logits.shape().len() != 2 || logits.dim(0) as usize != rows {
        return Err(MlxError::new(format!(
            "logits of shape {:?} for {rows} rows to sample",
            logits.shape()
        )));
    }
    let outcomes = Arc::new(Mutex::new(vec![Err(SampleError::Panicked.into()); rows]));
    let shared = Arc::clone(&outcomes);
    let ids = logits.per_row(move |values, ids| {
        let vocab = values.len() / rows.max(1);
        let chosen: Vec<Outcome> = turns
            .iter()
            .zip(values.chunks_exact(vocab.max(1)))
            .map(|(turn, row)| {
                let choose = AssertUnwindSafe(|| turn.choose(row));
                catch_unwind(choose).unwrap_or(Err(SampleError::Panicked.into()))
            })
            .collect();
        for (id, outcome) in ids.iter_mut().zip(&chosen) {
            // Whatever was built on a row that failed is thrown away, but must not read out of bounds.
            *id = outcome.as_ref().map_or(0, |pick| pick.token.id);
        }
        *lock(&shared) = chosen;
    })?;
    Ok(Picks { ids, outcomes })
}

impl Turn {
    fn choose(&self, row: &[f32]) -> Outcome {
        let mut matcher = self.grammar.as_ref().map(SharedMatcher::lock);
        let mask = match &mut matcher {
            Some(matcher) => matcher.mask()?,
            None => None,
        };
        let id = lock(&self.sampler).sample(row, mask)?;
        let mut hold = Hold::Free;
        if let Some(matcher) = &mut matcher {
            matcher.commit(id)?;
            hold = matcher.hold();
        }
        let logprobs = self.logprobs.map(|top| logprobs(row, id, top));
        let token = Token { id, logprobs };
        Ok(Pick { token, hold })
    }
}

impl Picks {
    /// The chosen ids `[rows]`, uint32, lazy; 0 where none could be chosen.
    pub fn ids(&self) -> &Array {
        &self.ids
    }

    /// Waits for the evaluation, and tells what came of each row.
    #[track_caller]
    pub fn wait(self) -> Result<Vec<Outcome>, MlxError> {
        Array::eval_all(&[&self.ids])?;
        Ok(std::mem::take(&mut *lock(&self.outcomes)))
    }
}

/// What a panic left half done is dropped with its request.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
