//! The planner against itself: requests that come, run, are preempted and end, without a model.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{Limits, Running, Waiting, admit, preempt, shares};
use crate::models::StateSize;

#[derive(Debug, Clone, Copy)]
struct Job {
    id: usize,
    prompt: usize,
    output: usize,
    made: usize,
    held: usize,
}

impl Job {
    fn pending(&self) -> usize {
        self.prompt + self.made - self.held
    }
}

struct Simulation {
    places: usize,
    memory: u64,
    size: StateSize,
    waiting: VecDeque<Job>,
    running: Vec<Job>,
    ended: Vec<usize>,
}

impl Simulation {
    /// One turn of the engine, as the worker takes it; the tokens computed.
    fn step(&mut self, budget: usize) -> usize {
        let limits = Limits {
            places: self.places,
            memory: self.memory,
            size: &self.size,
        };
        let view = |running: &[Job]| -> Vec<Running> {
            let of = |job: &Job| Running {
                held: job.held,
                pending: job.pending(),
            };
            running.iter().map(of).collect()
        };
        let leave = preempt(&view(&self.running), limits);
        for _ in 0..leave {
            let mut job = self.running.pop().unwrap();
            job.held = 0;
            let at = self.waiting.partition_point(|other| other.id < job.id);
            self.waiting.insert(at, job);
        }
        if leave == 0 {
            let of = |job: &Job| Waiting {
                tokens: job.prompt + job.made,
                held_back: false,
            };
            let waiting: Vec<Waiting> = self.waiting.iter().map(of).collect();
            let admitted = admit(&view(&self.running), &waiting, limits).len();
            self.running.extend(self.waiting.drain(..admitted));
            self.running.sort_by_key(|job| job.id);
        }
        let view = view(&self.running);
        assert!(view.len() <= self.places, "more runs than there are places");
        assert!(
            limits.reserved(&view) <= self.memory,
            "memory over the budget"
        );

        let pending: Vec<usize> = self.running.iter().map(Job::pending).collect();
        let mut spent = 0;
        for share in shares(&pending, budget) {
            let job = &mut self.running[share.sequence];
            spent += share.tokens;
            job.held += share.tokens;
            if job.pending() == 0 {
                job.made += 1;
            }
        }
        let ended = |job: &Job| job.made == job.output;
        self.ended.extend(
            self.running
                .iter()
                .filter(|job| ended(job))
                .map(|job| job.id),
        );
        self.running.retain(|job| !ended(job));
        spent
    }
}

proptest! {
    #[test]
    fn everyone_is_served_in_bounded_time_whatever_the_memory(
        jobs in prop::collection::vec((1usize..1200, 1usize..600), 1..30),
        places in 1usize..10,
        room in 7u64..40,
        budget in 1usize..300,
        fixed in 0u64..50,
    ) {
        let size = StateSize { per_token: 3, windows: Vec::new(), fixed };
        // The longest alone must fit: the engine bounds the context so.
        let memory = (room * 256 * 3).max(size.bytes(1800));
        let mut simulation = Simulation {
            places, memory, size, waiting: VecDeque::new(), running: Vec::new(), ended: Vec::new(),
        };
        let count = jobs.len();
        let mut arrivals = jobs.into_iter().enumerate();
        // All tokens if each job ran alone, times what preemption may repeat: the oldest always goes
        // on, so a job is computed anew at most as often as there are older ones.
        let mut bound = 0;
        loop {
            // One arrives with each step.
            if let Some((id, (prompt, output))) = arrivals.next() {
                simulation.waiting.push_back(Job { id, prompt, output, made: 0, held: 0 });
                bound += 4 * (prompt / budget.div_ceil(2) + 1 + output + (prompt + output) / budget.div_ceil(2)) + 4;
            }
            let oldest = simulation.running.first().map(|job| (job.id, job.held));
            let spent = simulation.step(budget);
            prop_assert!(spent > 0, "a step without progress");
            if let (Some((id, held)), Some(now)) = (oldest, simulation.running.first())
                && now.id == id
            {
                prop_assert!(now.held > held, "the oldest stands still");
            }
            bound -= 1;
            prop_assert!(bound > 0, "too many steps");
            if simulation.ended.len() == count {
                break;
            }
        }
        let mut ended = simulation.ended.clone();
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..count).collect::<Vec<_>>());
    }
}
