//! Who runs and what the next step computes: pure functions of what the requests need.
//!
//! There are no prefill and decode phases (after vLLM's scheduler). A step has a budget of tokens:
//! every running sequence that decodes gets its one token first, the rest goes to chunks of prompts
//! ([`shares`]). Requests enter in the order they came while places and memory last ([`admit`]); a
//! sequence's whole prompt is reserved when it enters, so only decoding can run short of memory, and
//! then the youngest gives its place back ([`preempt`]). The oldest never does: whatever happens, it
//! goes on, and so does in its turn everyone behind it.

mod pace;
#[cfg(test)]
mod simulation;

pub use pace::Pace;

use crate::models::StateSize;

/// A sequence in the batch. Lists of them are in the order in which their requests came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Tokens that its state holds.
    pub held: usize,
    /// Tokens that it is still to compute before it can choose the next one.
    pub pending: usize,
}

/// A request without a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Tokens of its prompt, and of its output where it ran before.
    pub tokens: usize,
    /// Whether it had better wait: a running sequence computes what both begin with.
    pub held_back: bool,
}

/// What there is to give.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// Places in the batch.
    pub places: usize,
    /// Bytes for the states of the running sequences.
    pub memory: u64,
    /// What a state takes of it.
    pub size: &'a StateSize,
}

/// One sequence's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which sequence, by its place in the list that was planned for.
    pub sequence: usize,
    /// How many of its pending tokens this step computes, at least one.
    pub tokens: usize,
}

impl Limits<'_> {
    /// Bytes that the sequences need until each has chosen its next token.
    pub fn reserved(&self, running: &[Running]) -> u64 {
        let tokens = running.iter().map(|it| it.held + it.pending);
        self.reserve(tokens)
    }

    fn reserve(&self, tokens: impl Iterator<Item = usize>) -> u64 {
        tokens.fold(0, |sum: u64, tokens| {
            sum.saturating_add(self.size.bytes(tokens))
        })
    }
}

/// How many of the youngest sequences must give their places back before the step, so that those
/// which stay have the memory they need.
pub fn preempt(running: &[Running], limits: Limits<'_>) -> usize {
    (0..running.len())
        .find(|&leave| {
            let stay = &running[..running.len() - leave];
            stay.len() <= 1 || limits.reserved(stay) <= limits.memory
        })
        .unwrap_or(0)
}

/// Which of the waiting requests enter beside the running ones, in order.
///
/// The first that finds no place or no memory bars those behind it: a large request is not starved
/// by small ones. One that is held back bars nobody.
pub fn admit(running: &[Running], waiting: &[Waiting], limits: Limits<'_>) -> Vec<usize> {
    let mut places = limits.places.saturating_sub(running.len());
    let mut reserved = limits.reserved(running);
    let mut admitted = Vec::new();
    for (index, request) in waiting.iter().enumerate() {
        if request.held_back {
            continue;
        }
        let needed = limits.size.bytes(request.tokens);
        let alone = running.is_empty() && admitted.is_empty();
        let fits = alone || reserved.saturating_add(needed) <= limits.memory;
        if places == 0 || !fits {
            break;
        }
        places -= 1;
        reserved = reserved.saturating_add(needed);
        admitted.push(index);
    }
    admitted
}

/// What each sequence computes in a step of about `budget` tokens.
///
/// `pending[i]` are the tokens of sequence `i` that its state does not hold yet, the sequences in
/// the order they came. Those with one (they decode) get it, whatever the budget. Of what is left,
/// and that is at least a quarter of the budget, the oldest prompt gets half; the rest goes to the
/// shortest first. So a short prompt beside a long one starts soon, and no stream of short ones
/// holds up the long one.
pub fn shares(pending: &[usize], budget: usize) -> Vec<Share> {
    let decoding = pending.iter().filter(|tokens| **tokens == 1).count();
    let mut budget = budget.saturating_sub(decoding).max(budget / 4).max(1);
    let mut tokens: Vec<usize> = pending.iter().map(|&left| left.min(1)).collect();

    let mut prompts: Vec<usize> = (0..pending.len()).filter(|&i| pending[i] > 1).collect();
    prompts.iter().for_each(|&prompt| tokens[prompt] = 0);
    if let Some(&oldest) = prompts.first() {
        tokens[oldest] = pending[oldest].min(budget.div_ceil(2));
        budget -= tokens[oldest];
    }
    // A stable sort: of equals the older one.
    prompts.sort_by_key(|&prompt| pending[prompt] - tokens[prompt]);
    for prompt in prompts {
        let more = budget.min(pending[prompt] - tokens[prompt]);
        tokens[prompt] += more;
        budget -= more;
    }

    let shares = tokens.into_iter().enumerate();
    shares
        .filter(|&(_, tokens)| tokens > 0)
        .map(|(sequence, tokens)| Share { sequence, tokens })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(sequence: usize, tokens: usize) -> Share {
        Share { sequence, tokens }
    }

    fn running(held: usize, pending: usize) -> Running {
        Running { held, pending }
    }

    fn waiting(tokens: usize) -> Waiting {
        Waiting {
            tokens,
            held_back: false,
        }
    }

    /// Room for `steps` times 256 tokens.
    fn limits(places: usize, steps: u64, size: &StateSize) -> Limits<'_> {
        Limits {
            places,
            memory: steps * 256,
            size,
        }
    }

    #[test]
    fn nothing_pending_computes_nothing() {
        assert_eq!(shares(&[], 64), []);
        assert_eq!(shares(&[0, 0], 64), []);
    }

    #[test]
    fn a_lone_prompt_takes_the_whole_budget() {
        assert_eq!(shares(&[1000], 64), [share(0, 64)]);
        assert_eq!(shares(&[40], 64), [share(0, 40)]);
    }

    #[test]
    fn decoding_comes_first_and_prompts_get_the_rest() {
        assert_eq!(
            shares(&[1000, 1, 1], 64),
            [share(0, 62), share(1, 1), share(2, 1)]
        );
    }

    #[test]
    fn many_streams_leave_a_prompt_a_quarter() {
        let mut pending = vec![1; 100];
        pending.push(1000);
        let shares = shares(&pending, 64);
        assert_eq!(shares.len(), 101);
        assert_eq!(shares[100], share(100, 16));
    }

    #[test]
    fn a_short_prompt_finishes_beside_a_long_one_which_gets_the_rest() {
        assert_eq!(shares(&[2000, 10], 64), [share(0, 54), share(1, 10)]);
        assert_eq!(shares(&[10, 2000], 64), [share(0, 10), share(1, 54)]);
    }

    #[test]
    fn the_oldest_prompt_keeps_half_against_shorter_ones() {
        assert_eq!(shares(&[2000, 100, 90], 64), [share(0, 32), share(2, 32)]);
    }

    #[test]
    fn of_equal_prompts_the_oldest_goes_first() {
        assert_eq!(shares(&[500, 500], 64), [share(0, 64)]);
        assert_eq!(shares(&[0, 40, 500], 64), [share(1, 40), share(2, 24)]);
    }

    #[test]
    fn requests_enter_in_order_while_places_last() {
        let size = StateSize::growing(1);
        let wait = [waiting(10), waiting(10), waiting(10)];
        assert_eq!(admit(&[], &wait, limits(2, 100, &size)), [0, 1]);
        let busy = [running(5, 1)];
        assert_eq!(admit(&busy, &wait, limits(2, 100, &size)), [0]);
        assert!(admit(&busy, &wait, limits(1, 100, &size)).is_empty());
    }

    #[test]
    fn one_that_does_not_fit_bars_those_behind_it() {
        let size = StateSize::growing(1);
        let wait = [waiting(600), waiting(10)];
        let busy = [running(100, 1)];
        assert!(admit(&busy, &wait, limits(8, 3, &size)).is_empty());
        assert_eq!(admit(&busy, &wait, limits(8, 4, &size)), [0]);
        assert_eq!(admit(&busy, &wait, limits(8, 5, &size)), [0, 1]);
    }

    #[test]
    fn one_that_is_held_back_bars_nobody() {
        let size = StateSize::growing(1);
        let held = Waiting {
            tokens: 10,
            held_back: true,
        };
        assert_eq!(
            admit(&[running(5, 1)], &[held, waiting(10)], limits(8, 9, &size)),
            [1]
        );
    }

    #[test]
    fn the_youngest_make_room_and_the_oldest_never() {
        let size = StateSize::growing(1);
        let all = [running(256, 1), running(255, 1), running(10, 1)];
        assert_eq!(preempt(&all, limits(8, 4, &size)), 0);
        assert_eq!(preempt(&all, limits(8, 3, &size)), 1);
        assert_eq!(preempt(&all, limits(8, 2, &size)), 2);
        assert_eq!(preempt(&all, limits(8, 1, &size)), 2);
        assert_eq!(preempt(&[], limits(8, 1, &size)), 0);
    }

    proptest! {
        #[test]
        fn shares_are_within_what_is_pending_and_about_the_budget(
            pending in prop::collection::vec(0usize..3000, 0..40),
            budget in 1usize..512,
        ) {
            let shares = shares(&pending, budget);
            let mut seen = vec![false; pending.len()];
            for share in &shares {
                prop_assert!(!seen[share.sequence], "a sequence has two shares");
                seen[share.sequence] = true;
                prop_assert!(share.tokens >= 1 && share.tokens <= pending[share.sequence]);
            }
            let decoding = pending.iter().filter(|tokens| **tokens == 1).count();
            for (sequence, tokens) in pending.iter().enumerate() {
                prop_assert!(*tokens != 1 || seen[sequence], "a stream stands still");
            }
            let oldest = pending.iter().position(|tokens| *tokens > 1);
            prop_assert!(oldest.is_none_or(|oldest| seen[oldest]), "the oldest prompt stands still");
            let spent: usize = shares.iter().map(|share| share.tokens).sum();
            prop_assert!(spent <= budget.max(decoding + (budget / 4).max(1)));
        }

        #[test]
        fn no_budget_is_left_while_a_prompt_could_use_it(
            pending in prop::collection::vec(2usize..3000, 1..20),
            budget in 1usize..512,
        ) {
            let spent: usize = shares(&pending, budget).iter().map(|share| share.tokens).sum();
            prop_assert_eq!(spent, budget.min(pending.iter().sum()));
        }
    }
}
