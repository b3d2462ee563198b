//! The places of the batch as they look from outside.

use std::sync::{Arc, Mutex, PoisonError};

use super::request::SamplingParams;
use super::sequence::{Arrival, Sequence};

/// What an output in the batch is at.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Counts the requests, from 0.
    pub request: u64,
    /// Which of its outputs this is.
    pub output: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of them, those that were not computed again.
    pub cached_tokens: usize,
    /// Of them, those that are computed, or were not to be.
    pub processed_tokens: usize,
    /// Tokens generated.
    pub generated: usize,
    /// Most tokens to generate.
    pub limit: usize,
    /// How its tokens are chosen.
    pub sampling: Arc<SamplingParams>,
}

/// Shows what the engine thread does. It writes a few numbers a step; whoever reads copies them.
#[derive(Default)]
pub(super) struct Board(Mutex<Vec<Option<(Arrival, Task)>>>);

impl Board {
    /// Shows the running sequences, which are sorted by arrival. Each keeps its place.
    pub fn show(&self, running: &[Sequence]) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown = vec![false; running.len()];
        for place in places.iter_mut() {
            let Some((arrival, task)) = place else {
                continue;
            };
            match running.binary_search_by_key(arrival, |it| it.arrival) {
                Ok(at) => {
                    shown[at] = true;
                    running[at].tell(task);
                }
                Err(_) => *place = None,
            }
        }
        let mut from = 0;
        for (sequence, _) in running.iter().zip(shown).filter(|(_, shown)| !shown) {
            let free = (from..places.len()).find(|&at| places[at].is_none());
            let at = free.unwrap_or(places.len());
            if at == places.len() {
                places.push(None);
            }
            places[at] = Some((sequence.arrival, sequence.task()));
            from = at + 1;
        }
    }

    /// What is at each place, as far as one was ever taken.
    pub fn tasks(&self) -> Vec<Option<Task>> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let task = |place: &Option<(Arrival, Task)>| place.as_ref().map(|(_, task)| task.clone());
        places.iter().map(task).collect()
    }
}
