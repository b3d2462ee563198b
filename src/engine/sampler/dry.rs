//! DRY ("don't repeat yourself"): the longer the repetition that a token would continue, the more it
//! is penalized (<https://github.com/oobabooga/text-generation-webui/pull/5677>).
//!
//! If the output ends in `n` tokens that were there before, the token that followed them then loses
//! `multiplier · base^(n - allowed_length)`, for the longest such `n` and from `allowed_length` on.
//! Repetitions do not reach back over a sequence breaker, and a breaker of a single token is never
//! penalized, as in llama.cpp (<https://github.com/ggml-org/llama.cpp/pull/9702>).

use std::collections::HashMap;
use std::sync::Arc;

use super::penalties::last;

/// The parameters of DRY.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    /// The penalty at `allowed_length`; 0 is off.
    pub multiplier: f32,
    /// By how much each further token multiplies it, at least 1.
    pub base: f32,
    /// The shortest repetition that is penalized.
    pub allowed_length: usize,
    /// How many of the last tokens are looked at; 0 is all of them.
    pub window: usize,
    /// What repetitions do not reach over.
    pub breakers: Arc<Breakers>,
}

impl Default for Dry {
    /// llama.cpp's values, off and without breakers.
    fn default() -> Self {
        Self {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            window: 0,
            breakers: Arc::default(),
        }
    }
}

/// Sequences of tokens that a repetition does not reach over, by their first token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breakers(HashMap<u32, Vec<Box<[u32]>>>);

impl Breakers {
    /// From whole sequences; empty ones are left out.
    pub fn new(sequences: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let mut map: HashMap<u32, Vec<Box<[u32]>>> = HashMap::new();
        for sequence in sequences {
            if let Some((&head, tail)) = sequence.split_first() {
                let tails = map.entry(head).or_default();
                if !tails.iter().any(|known| **known == *tail) {
                    tails.push(tail.into());
                }
            }
        }
        Self(map)
    }

    /// Whether the token alone is a breaker.
    fn is_single(&self, token: u32) -> bool {
        let tails = self.0.get(&token);
        tails.is_some_and(|tails| tails.iter().any(|tail| tail.is_empty()))
    }

    /// How many tokens at the end of `tokens` come after the last breaker.
    fn tokens_after(&self, tokens: &[u32]) -> usize {
        if self.0.is_empty() {
            return tokens.len();
        }
        for (start, head) in tokens.iter().enumerate().rev() {
            let Some(tails) = self.0.get(head) else {
                continue;
            };
            let rest = &tokens[start + 1..];
            let longest = tails
                .iter()
                .filter(|tail| rest.starts_with(tail))
                .map(|tail| tail.len())
                .max();
            if let Some(longest) = longest {
                return rest.len() - longest;
            }
        }
        tokens.len()
    }
}

impl Dry {
    /// Whether it does anything.
    pub fn is_on(&self) -> bool {
        self.multiplier != 0.0
    }

    /// Penalizes what would go on with a repetition; `tokens` are prompt and output.
    pub fn apply(&self, logits: &mut [f32], tokens: &[u32]) {
        if !self.is_on() {
            return;
        }
        let tokens = last(tokens, self.window);
        let limit = self.breakers.tokens_after(tokens);
        if limit < self.allowed_length {
            return;
        }
        for (token, length) in continuations(tokens, limit, self.allowed_length) {
            if self.breakers.is_single(token) {
                continue;
            }
            if let Some(logit) = logits.get_mut(token as usize) {
                let exponent = (length - self.allowed_length) as f32;
                // What overflows would make a penalty of 0 · ∞ not a number.
                let penalty = self.multiplier * self.base.powf(exponent);
                *logit -= penalty.min(f32::MAX);
            }
        }
    }
}

/// The tokens that would go on with a repetition of the end of `tokens`, each with the length of the
/// longest one (at least `least`, counted up to `limit`).
fn continuations(tokens: &[u32], limit: usize, least: usize) -> HashMap<u32, usize> {
    let matches = suffix_matches(tokens);
    let mut longest = HashMap::new();
    // `matches[i]` tokens that end before `i` are also the last ones; `tokens[i]` followed them.
    for (&token, &length) in tokens.iter().zip(&matches) {
        let length = length.min(limit);
        if length >= least.max(1) {
            let entry = longest.entry(token).or_insert(0);
            *entry = length.max(*entry);
        }
    }
    longest
}

/// For each `i`, how many of the tokens that end before `i` equal those at the end of `tokens`: the
/// Z-function of the reversed sequence, in linear time.
fn suffix_matches(tokens: &[u32]) -> Vec<usize> {
    let n = tokens.len();
    let at = |i: usize| tokens[n - 1 - i];
    let mut z = vec![0; n];
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut length = if i < right {
            z[i - left].min(right - i)
        } else {
            0
        };
        while i + length < n && at(length) == at(i + length) {
            length += 1;
        }
        if i + length > right {
            (left, right) = (i, i + length);
        }
        z[i] = length;
    }
    // A match that begins at `i` of the reversed sequence ends before `n - i` of the sequence.
    let mut matches = vec![0; n];
    for (i, &length) in z.iter().enumerate().skip(1) {
        matches[n - i] = length;
    }
    matches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: u32 = 0;
    const B: u32 = 1;
    const C: u32 = 2;
    const Y: u32 = 3;

    fn dry() -> Dry {
        Dry {
            multiplier: 1.0,
            base: 2.0,
            ..Dry::default()
        }
    }

    fn penalties(dry: &Dry, tokens: &[u32]) -> Vec<f32> {
        let mut logits = vec![0.0; 6];
        dry.apply(&mut logits, tokens);
        logits.iter().map(|logit| -logit).collect()
    }

    /// The example in the comments of llama.cpp's implementation: after `a b c c b c y a b c`,
    /// `c` would go on with `a b c` (3), `b` with `c` (1), `y` with `b c` (2).
    #[test]
    fn the_longest_repetition_counts() {
        let tokens = [A, B, C, C, B, C, Y, A, B, C];
        assert_eq!(penalties(&dry(), &tokens), [0.0, 0.0, 2.0, 1.0, 0.0, 0.0]);
        let from_one = Dry {
            allowed_length: 1,
            ..dry()
        };
        let found = penalties(&from_one, &tokens);
        assert_eq!(found, [0.0, 1.0, 4.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn a_breaker_ends_repetitions_and_is_not_penalized() {
        let tokens = [A, B, C, A, B];
        assert_eq!(penalties(&dry(), &tokens)[C as usize], 1.0);
        let broken = |sequences: &[&[u32]]| {
            let sequences = sequences.iter().map(|sequence| sequence.to_vec());
            Dry {
                breakers: Arc::new(Breakers::new(sequences)),
                ..dry()
            }
        };
        assert_eq!(penalties(&broken(&[&[C]]), &tokens)[C as usize], 0.0);
        assert_eq!(penalties(&broken(&[&[B]]), &tokens)[C as usize], 0.0);
        assert_eq!(penalties(&broken(&[&[A, B]]), &tokens)[C as usize], 0.0);
        assert_eq!(penalties(&broken(&[&[B, A]]), &tokens)[C as usize], 1.0);
    }

    #[test]
    fn the_window_is_the_last_tokens() {
        let tokens = [A, B, C, A, B];
        let near = |window| {
            let dry = Dry { window, ..dry() };
            penalties(&dry, &tokens)[C as usize]
        };
        assert_eq!((near(4), near(5), near(0)), (0.0, 1.0, 1.0));
    }

    #[test]
    fn long_repetitions_do_not_overflow() {
        let mut logits = vec![0.0; 2];
        dry().apply(&mut logits, &[A; 5000]);
        assert_eq!(logits, [f32::MIN, 0.0]);
    }

    proptest! {
        #[test]
        fn matches_are_what_comparing_everything_finds(
            tokens in prop::collection::vec(0u32..3, 0..40),
        ) {
            let slow: Vec<usize> = (0..tokens.len())
                .map(|i| {
                    let back = tokens[..i].iter().rev().zip(tokens.iter().rev());
                    back.take_while(|(a, b)| a == b).count()
                })
                .collect();
            prop_assert_eq!(suffix_matches(&tokens), slow);
        }
    }
}
