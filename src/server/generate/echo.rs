//! A prompt as the beginning of its own output.

use std::sync::Arc;

use super::{Delta, ShownToken};
use crate::engine::TokenLogprobs;
use crate::text::{Detokenizer, TextError, Tokenizer};

/// A prompt that is repeated before its output.
#[derive(Debug, Clone, PartialEq)]
pub struct Echo {
    text: String,
    /// Where their logprobs are asked for.
    tokens: Vec<ShownToken>,
}

impl Echo {
    /// Of the prompt's text alone.
    pub fn of_text(text: String) -> Self {
        let tokens = Vec::new();
        Self { text, tokens }
    }

    /// Of a prompt whose tokens come with logprobs. `text` is what it was encoded from; `None` decodes
    /// the tokens.
    pub fn of_tokens(
        tokenizer: Arc<Tokenizer>,
        tokens: &[u32],
        text: Option<String>,
    ) -> Result<Self, TextError> {
        let mut detokenizer = Detokenizer::new(tokenizer);
        let mut decoded = String::new();
        let mut starts = Vec::with_capacity(tokens.len());
        for &id in tokens {
            starts.push(decoded.len());
            decoded.push_str(&detokenizer.push(id)?);
        }
        decoded.push_str(&detokenizer.finish()?);
        let text = text.unwrap_or(decoded);
        // A tokenizer that normalizes decodes to another text: its places are then only about right.
        let place = |start: usize| {
            let within = start.min(text.len());
            (0..=within).rev().find(|&at| text.is_char_boundary(at))
        };
        let shown = |(&id, start)| ShownToken {
            id,
            start: place(start).unwrap_or(0),
            logprobs: None,
        };
        let tokens = tokens.iter().zip(starts).map(shown).collect();
        Ok(Self { text, tokens })
    }

    /// Bytes of its text.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether logprobs of its tokens are awaited.
    pub(super) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// `logprobs` are those of the tokens from the second on.
    pub(super) fn told(mut self, logprobs: Vec<TokenLogprobs>) -> Delta {
        for (token, logprobs) in self.tokens.iter_mut().skip(1).zip(logprobs) {
            token.logprobs = Some(logprobs);
        }
        Delta {
            text: self.text,
            tokens: self.tokens,
            ..Delta::default()
        }
    }
}
