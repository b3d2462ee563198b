//! Tokens to text as they come.

use std::sync::Arc;

use super::decoder::DecoderState;
use super::{TextError, Tokenizer};

/// Turns the tokens of one generation into text, piece by piece.
///
/// The pieces of [`push`](Self::push) and [`finish`](Self::finish) join to exactly
/// [`Tokenizer::decode`] of all ids. A character whose bytes are spread over tokens comes out when
/// it is complete. Each step costs by the length of its token, not of the text so far.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    state: DecoderState,
    skip_special: bool,
    /// Special tokens that are shown although others are not.
    shown: Arc<[u32]>,
}

impl Detokenizer {
    /// For the output of a generation: special tokens are not shown.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self::with_special(tokenizer, false)
    }

    /// Shows only these special tokens: the markers that a parser of the text lives by.
    pub fn showing(tokenizer: Arc<Tokenizer>, shown: Arc<[u32]>) -> Self {
        Self {
            shown,
            ..Self::new(tokenizer)
        }
    }

    /// Shows special tokens if `show_special` is set.
    pub fn with_special(tokenizer: Arc<Tokenizer>, show_special: bool) -> Self {
        let state = tokenizer.start_decoding();
        Self {
            tokenizer,
            state,
            skip_special: !show_special,
            shown: Arc::new([]),
        }
    }

    /// The text that one more token completes, which may be none.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        let skip_special = self.skip_special && !self.shown.contains(&id);
        self.tokenizer
            .decode_next(&mut self.state, id, skip_special)
    }

    /// Whether a token is special, and not shown.
    pub fn hides(&self, id: u32) -> bool {
        self.skip_special && !self.shown.contains(&id) && self.tokenizer.is_special(id)
    }

    /// The text still held back: bytes that are no whole character become U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        self.tokenizer.finish_decoding(&mut self.state)
    }
}
