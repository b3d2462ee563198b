//! From a row of logits to the next token.
//!
//! The order of the steps, which is part of the contract:
//!
//! 1. logprobs are read off the model's own distribution, before anything changes it;
//! 2. `logit_bias`;
//! 3. repetition penalty (CTRL, <https://arxiv.org/abs/1909.05858>, over prompt and output), then
//!    presence and frequency penalty (OpenAI's formula, over the output);
//! 4. the grammar's mask;
//! 5. temperature 0: the likeliest token, the lowest id among equals;
//! 6. top-k, top-p (<https://arxiv.org/abs/1904.09751>), min-p (<https://arxiv.org/abs/2407.01082>),
//!    each on the distribution at temperature 1, as mlx-lm and llama.cpp do;
//! 7. temperature, and one draw from the request's own generator: exactly one a token, so that a
//!    seed gives the same tokens in any company.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::request::{SamplingParams, TokenLogprobs};

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The model computed something that is not a number.
    #[error("the model's logits are not numbers")]
    NotANumber,
    /// Mask and bias leave no token.
    #[error("no token is allowed here")]
    NothingAllowed,
}

/// A request's sampler: its parameters, its generator, and what it has seen.
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha12Rng,
    /// Prompt and output, for the repetition penalty's window.
    seen: Vec<u32>,
    /// How often each token was generated.
    generated: HashMap<u32, u32>,
}

impl Sampler {
    /// A sampler for a request with this prompt.
    pub fn new(params: SamplingParams, prompt: &[u32]) -> Self {
        let rng = match params.seed {
            Some(seed) => ChaCha12Rng::seed_from_u64(seed),
            None => ChaCha12Rng::seed_from_u64(rand::random()),
        };
        let seen = if params.repetition_penalty == 1.0 {
            Vec::new()
        } else {
            prompt.to_vec()
        };
        Self {
            params,
            rng,
            seen,
            generated: HashMap::new(),
        }
    }

    /// Chooses the next token from `logits` (`[vocab]`, changed in place) and remembers it.
    ///
    /// `mask` is a bit set of the allowed tokens (bit `i % 32` of word `i / 32`).
    pub fn sample(&mut self, logits: &mut [f32], mask: Option<&[u32]>) -> Result<u32, SampleError> {
        self.penalize(logits);
        if let Some(mask) = mask {
            apply_mask(logits, mask);
        }
        let best = argmax(logits)?;
        let token = if self.params.temperature == 0.0 {
            best
        } else {
            let draw = self.rng.random::<f64>();
            choose(&self.params, logits, draw)
        };
        if self.params.repetition_penalty != 1.0 {
            self.seen.push(token);
        }
        *self.generated.entry(token).or_default() += 1;
        Ok(token)
    }

    fn penalize(&self, logits: &mut [f32]) {
        let params = &self.params;
        for &(token, bias) in &params.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if params.repetition_penalty != 1.0 {
            let window = match params.repetition_context {
                0 => &self.seen[..],
                last => &self.seen[self.seen.len().saturating_sub(last)..],
            };
            let mut window = window.to_vec();
            window.sort_unstable();
            window.dedup();
            for token in window {
                if let Some(logit) = logits.get_mut(token as usize) {
                    let penalty = params.repetition_penalty;
                    *logit = if *logit > 0.0 {
                        *logit / penalty
                    } else {
                        *logit * penalty
                    };
                }
            }
        }
        if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
            for (&token, &count) in &self.generated {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit -= params.presence_penalty + params.frequency_penalty * count as f32;
                }
            }
        }
    }
}

/// The logprob of `chosen` and of the `top` likeliest tokens, best first, equals by id.
pub fn logprobs(logits: &[f32], chosen: u32, top: usize) -> TokenLogprobs {
    let norm = log_sum_exp(logits);
    let at = |token: u32| (f64::from(logits[token as usize]) - norm) as f32;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let top = keep_best(&mut order, top.min(logits.len()), logits);
    TokenLogprobs {
        logprob: at(chosen),
        top: top.iter().map(|&token| (token, at(token))).collect(),
    }
}

/// Moves the `count` tokens with the largest logits to the front, in order, and returns them.
fn keep_best<'a>(order: &'a mut [u32], count: usize, logits: &[f32]) -> &'a [u32] {
    let by_logit = |a: &u32, b: &u32| {
        logits[*b as usize]
            .total_cmp(&logits[*a as usize])
            .then_with(|| a.cmp(b))
    };
    if count == 0 {
        return &[];
    }
    if count < order.len() {
        order.select_nth_unstable_by(count - 1, by_logit);
    }
    let best = &mut order[..count];
    best.sort_unstable_by(by_logit);
    best
}

fn apply_mask(logits: &mut [f32], mask: &[u32]) {
    for (token, logit) in logits.iter_mut().enumerate() {
        let allowed = mask
            .get(token / 32)
            .is_some_and(|word| word >> (token % 32) & 1 == 1);
        if !allowed {
            *logit = f32::NEG_INFINITY;
        }
    }
}

fn argmax(logits: &[f32]) -> Result<u32, SampleError> {
    let mut best = None;
    for (token, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(SampleError::NotANumber);
        }
        if logit > best.map_or(f32::NEG_INFINITY, |(_, largest)| largest) {
            best = Some((token as u32, logit));
        }
    }
    best.map(|(token, _)| token)
        .ok_or(SampleError::NothingAllowed)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    let sum: f64 = logits
        .iter()
        .map(|&logit| (f64::from(logit) - largest).exp())
        .sum();
    largest + sum.ln()
}

/// Filters, then draws: `draw` is uniform in `[0, 1)`. At least one logit is finite.
fn choose(params: &SamplingParams, logits: &[f32], draw: f64) -> u32 {
    let mut candidates: Vec<u32> = (0..logits.len() as u32)
        .filter(|&token| logits[token as usize] > f32::NEG_INFINITY)
        .collect();
    if params.top_k > 0 {
        let count = params.top_k.min(candidates.len());
        keep_best(&mut candidates, count, logits);
        candidates.truncate(count);
    }
    if params.top_p < 1.0 {
        keep_nucleus(&mut candidates, params.top_p, logits);
    }
    let largest = candidates
        .iter()
        .map(|&token| f64::from(logits[token as usize]))
        .fold(f64::NEG_INFINITY, f64::max);
    if params.min_p > 0.0 {
        let floor = largest + f64::from(params.min_p).ln();
        candidates.retain(|&token| f64::from(logits[token as usize]) >= floor);
    }
    // In order of the ids, so that the draw does not depend on how the filters left them.
    candidates.sort_unstable();
    let temperature = f64::from(params.temperature);
    let weights: Vec<f64> = candidates
        .iter()
        .map(|&token| ((f64::from(logits[token as usize]) - largest) / temperature).exp())
        .collect();
    let mut left = draw * weights.iter().sum::<f64>();
    for (&token, weight) in candidates.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return token;
        }
    }
    // Rounding left a crumb: the last token with any weight.
    let last = weights
        .iter()
        .rposition(|&weight| weight > 0.0)
        .unwrap_or(0);
    candidates[last]
}

/// Keeps the smallest set of likeliest tokens whose probability reaches `top_p`, at least one.
fn keep_nucleus(candidates: &mut Vec<u32>, top_p: f32, logits: &[f32]) {
    let values: Vec<f32> = candidates
        .iter()
        .map(|&token| logits[token as usize])
        .collect();
    let norm = log_sum_exp(&values);
    // Sorting a whole vocabulary takes milliseconds, and the nucleus is nearly always small.
    let mut count = 64.min(candidates.len());
    loop {
        let mut mass = 0.0;
        for (index, &token) in keep_best(candidates, count, logits).iter().enumerate() {
            mass += (f64::from(logits[token as usize]) - norm).exp();
            if mass >= f64::from(top_p) {
                candidates.truncate(index + 1);
                return;
            }
        }
        if count == candidates.len() {
            return;
        }
        count = (count * 8).min(candidates.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(params: SamplingParams) -> Sampler {
        Sampler::new(
            SamplingParams {
                seed: Some(7),
                ..params
            },
            &[],
        )
    }

    fn greedy() -> SamplingParams {
        SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        }
    }

    /// How often each token is drawn in `count` draws.
    fn histogram(params: &SamplingParams, logits: &[f32], count: usize) -> Vec<usize> {
        let mut sampler = sampler(params.clone());
        let mut seen = vec![0; logits.len()];
        for _ in 0..count {
            let token = sampler.sample(&mut logits.to_vec(), None).unwrap();
            sampler.generated.clear();
            seen[token as usize] += 1;
        }
        seen
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_first_of_equals() {
        assert_eq!(sampler(greedy()).sample(&mut [0.0, 3.0, 3.0], None), Ok(1));
    }

    #[test]
    fn a_mask_and_a_bias_decide() {
        assert_eq!(
            sampler(greedy()).sample(&mut [0.0, 3.0, 2.0], Some(&[0b101])),
            Ok(2)
        );
        let params = SamplingParams {
            logit_bias: vec![(0, 10.0), (99, 5.0)],
            ..greedy()
        };
        assert_eq!(sampler(params).sample(&mut [0.0, 3.0, 2.0], None), Ok(0));
        let nothing = sampler(greedy()).sample(&mut [0.0, 3.0], Some(&[0]));
        assert_eq!(nothing, Err(SampleError::NothingAllowed));
    }

    #[test]
    fn not_a_number_is_an_error_at_every_temperature() {
        for temperature in [0.0, 1.0] {
            let params = SamplingParams {
                temperature,
                ..SamplingParams::default()
            };
            let result = sampler(params).sample(&mut [0.0, f32::NAN], None);
            assert_eq!(result, Err(SampleError::NotANumber));
        }
    }

    #[test]
    fn penalties_follow_their_formulas() {
        let params = SamplingParams {
            repetition_penalty: 2.0,
            ..greedy()
        };
        let mut logits = [4.0, -1.0, 3.0];
        Sampler::new(params, &[0, 1, 0]).penalize(&mut logits);
        assert_eq!(logits, [2.0, -2.0, 3.0]);

        let params = SamplingParams {
            presence_penalty: 0.5,
            frequency_penalty: 1.0,
            ..greedy()
        };
        let mut sampler = Sampler::new(params, &[2]);
        sampler.sample(&mut [9.0, 0.0, 0.0], None).unwrap();
        sampler.sample(&mut [9.0, 0.0, 0.0], None).unwrap();
        let mut logits = [9.0, 0.0, 1.0];
        sampler.penalize(&mut logits);
        assert_eq!(logits, [6.5, 0.0, 1.0]);
    }

    #[test]
    fn the_repetition_window_is_the_last_tokens() {
        let params = SamplingParams {
            repetition_penalty: 2.0,
            repetition_context: 1,
            ..greedy()
        };
        let mut logits = [4.0, 4.0];
        Sampler::new(params, &[0, 1]).penalize(&mut logits);
        assert_eq!(logits, [4.0, 2.0]);
    }

    #[test]
    fn filters_leave_only_what_they_promise() {
        // Probabilities 0.5, 0.25, 0.125, 0.125.
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125]
            .iter()
            .map(|p| p.ln())
            .collect();
        let top_k = SamplingParams {
            top_k: 2,
            ..SamplingParams::default()
        };
        let top_p = SamplingParams {
            top_p: 0.7,
            ..SamplingParams::default()
        };
        let min_p = SamplingParams {
            min_p: 0.4,
            ..SamplingParams::default()
        };
        for params in [top_k, top_p, min_p] {
            let seen = histogram(&params, &logits, 600);
            assert!(seen[0] > seen[1] && seen[1] > 0, "{params:?}: {seen:?}");
            assert_eq!(seen[2] + seen[3], 0, "{params:?}: {seen:?}");
        }
    }

    #[test]
    fn draws_follow_the_distribution_and_the_temperature() {
        let logits = [0.8f32.ln(), 0.2f32.ln()];
        let seen = histogram(&SamplingParams::default(), &logits, 4000);
        assert!((3000..3400).contains(&seen[0]), "{seen:?}");
        let hot = SamplingParams {
            temperature: 100.0,
            ..SamplingParams::default()
        };
        let seen = histogram(&hot, &logits, 4000);
        assert!((1850..2200).contains(&seen[0]), "{seen:?}");
    }

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        let run = |seed| {
            let params = SamplingParams {
                seed: Some(seed),
                ..SamplingParams::default()
            };
            let mut sampler = Sampler::new(params, &[]);
            (0..32)
                .map(|_| sampler.sample(&mut [0.0; 50], None).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn logprobs_are_the_models_own() {
        let logits: Vec<f32> = [0.5f32, 0.25, 0.25].iter().map(|p| p.ln() + 3.0).collect();
        let found = logprobs(&logits, 2, 2);
        assert!((found.logprob - 0.25f32.ln()).abs() < 1e-6);
        assert_eq!(
            found.top.iter().map(|top| top.0).collect::<Vec<_>>(),
            [0, 1]
        );
        assert!((found.top[0].1 - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(logprobs(&logits, 2, 0).top, []);
    }

    proptest! {
        #[test]
        fn the_nucleus_is_the_shortest_sorted_prefix_that_reaches_its_mass(
            logits in prop::collection::vec(-8f32..8.0, 1..400),
            top_p in 0.01f32..1.0,
        ) {
            let mut candidates: Vec<u32> = (0..logits.len() as u32).collect();
            keep_nucleus(&mut candidates, top_p, &logits);

            let norm = log_sum_exp(&logits);
            let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
            sorted.sort_by(|a, b| {
                logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b))
            });
            let mut mass = 0.0;
            let mut count = 0;
            while count < sorted.len() && mass < f64::from(top_p) {
                mass += (f64::from(logits[sorted[count] as usize]) - norm).exp();
                count += 1;
            }
            prop_assert_eq!(&candidates[..], &sorted[..count]);
        }
    }
}
