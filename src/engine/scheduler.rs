//! What the next step computes: a pure function of what the running sequences still need.
//!
//! There are no prefill and decode phases (after vLLM's scheduler): in one step every running
//! sequence advances. A decoding sequence gets its one token first; a budget of prefill tokens is
//! then shared out evenly, so that a short prompt beside a long one is not kept waiting for the
//! long one's end, and no step grows longer than the budget lets it.

/// One sequence's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which sequence, by its place in the list that was planned for.
    pub sequence: usize,
    /// How many of its pending tokens this step computes, at least one.
    pub tokens: usize,
}

/// Plans a step.
///
/// `pending[i]` is how many tokens sequence `i` has that its state does not hold yet: one for a
/// decoding sequence, the rest of the prompt for one in prefill, none for one that has nothing to
/// do. Each sequence with something pending gets a share, decoding ones first, in order. Prefill
/// shares add up to at most `prefill_budget`, or to one token each where even that is more.
pub fn plan(pending: &[usize], prefill_budget: usize) -> Vec<Share> {
    let mut shares: Vec<Share> = pending
        .iter()
        .enumerate()
        .filter(|(_, tokens)| **tokens == 1)
        .map(|(sequence, _)| Share {
            sequence,
            tokens: 1,
        })
        .collect();

    // Shortest first: what a short one does not use goes to the longer ones.
    let mut prefills: Vec<usize> = (0..pending.len()).filter(|&i| pending[i] > 1).collect();
    prefills.sort_by_key(|&i| pending[i]);
    let mut budget = prefill_budget;
    let mut left = prefills.len();
    let mut chunks: Vec<Share> = Vec::with_capacity(left);
    for sequence in prefills {
        let tokens = pending[sequence].min(budget / left).max(1);
        budget = budget.saturating_sub(tokens);
        left -= 1;
        chunks.push(Share { sequence, tokens });
    }
    chunks.sort_by_key(|share| share.sequence);
    shares.extend(chunks);
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(sequence: usize, tokens: usize) -> Share {
        Share { sequence, tokens }
    }

    #[test]
    fn nothing_pending_plans_nothing() {
        assert_eq!(plan(&[], 64), []);
        assert_eq!(plan(&[0, 0], 64), []);
    }

    #[test]
    fn a_lone_prompt_takes_the_whole_budget() {
        assert_eq!(plan(&[1000], 64), [share(0, 64)]);
        assert_eq!(plan(&[40], 64), [share(0, 40)]);
    }

    #[test]
    fn decoding_comes_first_and_costs_no_prefill_budget() {
        assert_eq!(
            plan(&[1000, 1, 1], 64),
            [share(1, 1), share(2, 1), share(0, 64)]
        );
    }

    #[test]
    fn a_short_prompt_finishes_beside_a_long_one_which_gets_the_rest() {
        assert_eq!(plan(&[2000, 10], 64), [share(0, 54), share(1, 10)]);
    }

    #[test]
    fn equal_prompts_share_evenly() {
        assert_eq!(plan(&[500, 500], 64), [share(0, 32), share(1, 32)]);
    }

    proptest! {
        #[test]
        fn every_sequence_progresses_once_and_within_the_budget(
            pending in prop::collection::vec(0usize..3000, 0..40),
            budget in 1usize..512,
        ) {
            let shares = plan(&pending, budget);
            let mut seen = vec![false; pending.len()];
            for share in &shares {
                prop_assert!(!seen[share.sequence]);
                seen[share.sequence] = true;
                prop_assert!(share.tokens >= 1 && share.tokens <= pending[share.sequence]);
            }
            for (sequence, tokens) in pending.iter().enumerate() {
                prop_assert_eq!(seen[sequence], *tokens > 0);
            }
            let prefills = pending.iter().filter(|tokens| **tokens > 1).count();
            let spent: usize = shares
                .iter()
                .filter(|share| pending[share.sequence] > 1)
                .map(|share| share.tokens)
                .sum();
            prop_assert!(spent <= budget.max(prefills));
        }

        #[test]
        fn no_budget_is_left_while_a_prompt_could_use_it(
            pending in prop::collection::vec(2usize..3000, 1..20),
            budget in 64usize..512,
        ) {
            let spent: usize = plan(&pending, budget).iter().map(|share| share.tokens).sum();
            prop_assert_eq!(spent, budget.min(pending.iter().sum()));
        }
    }
}
