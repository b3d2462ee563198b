//! Penalties on tokens that were seen before.

use std::collections::HashMap;

/// What a sampler remembers of the tokens before.
pub struct History {
    /// Prompt and output, where a penalty looks back at both.
    tokens: Option<Vec<u32>>,
    /// How often each token was generated.
    generated: HashMap<u32, u32>,
}

impl History {
    /// `prompt` is needed only where a penalty looks back at it.
    pub fn new(prompt: Option<&[u32]>) -> Self {
        Self {
            tokens: prompt.map(<[u32]>::to_vec),
            generated: HashMap::new(),
        }
    }

    /// Remembers a generated token.
    pub fn push(&mut self, token: u32) {
        if let Some(tokens) = &mut self.tokens {
            tokens.push(token);
        }
        *self.generated.entry(token).or_default() += 1;
    }

    /// Prompt and output; empty where nothing looks back.
    pub fn tokens(&self) -> &[u32] {
        self.tokens.as_deref().unwrap_or_default()
    }

    /// Divides positive and multiplies other logits of the tokens among the last `window` ones (0 is
    /// all), each once.
    pub fn repetition(&self, logits: &mut [f32], penalty: f32, window: usize) {
        if penalty == 1.0 {
            return;
        }
        let mut window = last(self.tokens(), window).to_vec();
        window.sort_unstable();
        window.dedup();
        for token in window {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
    }

    /// Subtracts `presence` once, and `frequency` for each time, from generated tokens.
    pub fn presence_and_frequency(&self, logits: &mut [f32], presence: f32, frequency: f32) {
        if presence == 0.0 && frequency == 0.0 {
            return;
        }
        for (&token, &count) in &self.generated {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= presence + frequency * count as f32;
            }
        }
    }
}

/// The last `window` tokens; 0 is all.
pub fn last(tokens: &[u32], window: usize) -> &[u32] {
    match window {
        0 => tokens,
        window => &tokens[tokens.len().saturating_sub(window)..],
    }
}
