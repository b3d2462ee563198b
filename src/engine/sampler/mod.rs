//! From a row of logits to the next token.
//!
//! The order of the steps, which is part of the contract:
//!
//! 1. logprobs are read off the model's own distribution, before anything changes it ([`logprobs`]);
//! 2. `logit_bias`;
//! 3. repetition penalty (CTRL, <https://arxiv.org/abs/1909.05858>, over a window of prompt and
//!    output), then presence and frequency penalty (OpenAI's formula, over the output);
//! 4. DRY (<https://github.com/oobabooga/text-generation-webui/pull/5677>, with llama.cpp's
//!    sequence breakers);
//! 5. the grammar's mask, and the tokens that are withheld until the output is long enough;
//! 6. temperature 0: the likeliest token, the lowest id among equals, and the end;
//! 7. top-k, typical (<https://arxiv.org/abs/2202.00666>), top-p
//!    (<https://arxiv.org/abs/1904.09751>), min-p (<https://arxiv.org/abs/2407.01082>) and XTC
//!    (<https://github.com/oobabooga/text-generation-webui/pull/6335>), each on what the one before
//!    it left, renormalized, at temperature 1: llama.cpp's order and definitions;
//! 8. temperature, and one draw.
//!
//! A draw is a function of the request's seed, the choice's index and the number of tokens generated
//! so far ([`draw`]), not of a generator's past: the same tokens alone and in company, after a
//! preemption, after a restart. The exponentials are our own ([`exp`]), so that the tokens do not
//! depend on a system's libm either.
//!
//! [`batch`] does it for the rows of a step in one lazy MLX operation.

pub mod batch;
mod candidates;
mod draw;
mod dry;
mod exp;
mod logprobs;
mod penalties;
#[cfg(test)]
mod tests;

pub use dry::{Breakers, Dry};
pub use logprobs::{logprobs, prompt_logprobs};

use std::borrow::Cow;

use self::candidates::Candidates;
use self::draw::Key;
use self::penalties::History;
use super::request::SamplingParams;

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The model computed something that is not a number.
    #[error("the model's logits are not numbers")]
    NotANumber,
    /// Mask and bias leave no token.
    #[error("no token is allowed here")]
    NothingAllowed,
    /// The sampler panicked; its message is in the log.
    #[error("the sampler failed")]
    Panicked,
}

/// A request's sampler: its parameters, its key, and what it has seen.
pub struct Sampler {
    params: SamplingParams,
    key: Key,
    history: History,
    /// Tokens generated so far.
    position: usize,
}

impl Sampler {
    /// A sampler for a request with this prompt.
    pub fn new(params: SamplingParams, prompt: &[u32]) -> Self {
        let seed = params.seed.unwrap_or_else(rand::random);
        let looks_back = params.repetition_penalty != 1.0 || params.dry.is_on();
        Self {
            key: Key::new(seed, params.choice),
            history: History::new(if looks_back { Some(prompt) } else { None }),
            position: 0,
            params,
        }
    }

    /// Chooses the next token from `logits` (`[vocab]`) and remembers it.
    ///
    /// `mask` is a bit set of the allowed tokens (bit `i % 32` of word `i / 32`).
    pub fn sample(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Result<u32, SampleError> {
        let logits = self.adjusted(logits, mask);
        let best = argmax(&logits)?;
        let token = if self.params.temperature == 0.0 {
            best
        } else {
            self.draw(&logits, best)
        };
        self.accept(token);
        Ok(token)
    }

    /// Remembers a token that had to come next.
    pub fn accept(&mut self, token: u32) {
        self.history.push(token);
        self.position += 1;
    }

    /// Steps 2 to 5, on a copy if there is anything to do.
    fn adjusted<'a>(&self, logits: &'a [f32], mask: Option<&[u32]>) -> Cow<'a, [f32]> {
        let withheld = self.withheld(mask);
        if mask.is_none() && withheld.is_empty() && !self.params.has_penalties() {
            return Cow::Borrowed(logits);
        }
        let mut logits = logits.to_vec();
        self.penalize(&mut logits);
        if let Some(mask) = mask {
            apply_mask(&mut logits, mask);
        }
        for token in withheld {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Cow::Owned(logits)
    }

    /// The tokens that come too early; none where the mask allows nothing else.
    fn withheld(&self, mask: Option<&[u32]>) -> Vec<u32> {
        let early = |(_, from): &&(u32, usize)| self.position < *from;
        let withheld = self.params.withheld.iter().filter(early);
        let withheld: Vec<u32> = withheld.map(|(token, _)| *token).collect();
        let Some(mask) = mask.filter(|_| !withheld.is_empty()) else {
            return withheld;
        };
        let mut left = mask.to_vec();
        for &token in &withheld {
            if let Some(word) = left.get_mut(token as usize / 32) {
                *word &= !(1 << (token % 32));
            }
        }
        match left.iter().any(|&word| word != 0) {
            true => withheld,
            false => Vec::new(),
        }
    }

    /// Steps 2 to 4.
    fn penalize(&self, logits: &mut [f32]) {
        let params = &self.params;
        for &(token, bias) in &params.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        self.history
            .repetition(logits, params.repetition_penalty, params.repetition_context);
        self.history.presence_and_frequency(
            logits,
            params.presence_penalty,
            params.frequency_penalty,
        );
        params.dry.apply(logits, self.history.tokens());
    }

    /// Steps 7 and 8; `best` is the likeliest token, whose logit is finite.
    fn draw(&self, logits: &[f32], best: u32) -> u32 {
        let params = &self.params;
        let draws = self.key.at(self.position as u64);
        let largest = logits[best as usize];
        if !params.has_filters() {
            return draw::pick(logits, largest, params.temperature, draws.token) as u32;
        }
        let mut candidates = Candidates::new(logits, largest, params.top_k);
        if params.typical_p < 1.0 {
            candidates.typical(params.typical_p);
        }
        if params.top_p < 1.0 {
            candidates.top_p(params.top_p);
        }
        if params.min_p > 0.0 {
            candidates.min_p(params.min_p);
        }
        if draws.xtc < f64::from(params.xtc_probability) {
            candidates.exclude_top_choices(params.xtc_threshold);
        }
        candidates.pick(params.temperature, draws.token)
    }
}

fn apply_mask(logits: &mut [f32], mask: &[u32]) {
    for (index, tokens) in logits.chunks_mut(32).enumerate() {
        let word = mask.get(index).copied().unwrap_or(0);
        if word == u32::MAX {
            continue;
        }
        for (bit, logit) in tokens.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// The likeliest token, the first of equals.
fn argmax(logits: &[f32]) -> Result<u32, SampleError> {
    let strange = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    if logits
        .chunks(1024)
        .any(|chunk| chunk.iter().fold(false, |any, logit| any | strange(logit)))
    {
        return Err(SampleError::NotANumber);
    }
    let largest = exp::largest(logits);
    if largest == f32::NEG_INFINITY {
        return Err(SampleError::NothingAllowed);
    }
    let first = logits.iter().position(|&logit| logit == largest);
    first
        .map(|token| token as u32)
        .ok_or(SampleError::NothingAllowed)
}
