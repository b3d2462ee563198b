//! A model's tokenizer, through the `tokenizers` library.

use std::path::Path;
use std::sync::OnceLock;

use tokenizers::models::ModelWrapper;
use tokenizers::{AddedToken, Model as _};

use super::TextError;
use super::backend::{self, Backend};
use super::decoder::{Decoder, DecoderState, clean_up};
use super::files::invalid;
use super::special_tokens::TokenizerConfig;

/// A model's tokenizer. `Send + Sync`; share it in an `Arc`.
///
/// Follows transformers 5: `tokenizer.json` decides everything about encoding (its post-processor
/// also whether a BOS is added; `add_bos_token` of `tokenizer_config.json` is consulted only where
/// there is no `tokenizer.json`), and `tokenizer_config.json` names the special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same, deaf to special tokens in a text; made when it is first asked for.
    plain: OnceLock<tokenizers::Tokenizer>,
    decoder: Decoder,
    cleans_up: bool,
    vocab_size: usize,
    bos: Option<String>,
    eos: Option<String>,
}

impl Tokenizer {
    /// Loads the tokenizer of a model folder.
    ///
    /// # Errors
    /// [`TextError::NoTokenizer`] without the files of a tokenizer, [`TextError::Read`], and
    /// [`TextError::Invalid`] for a file that the library does not understand or whose decoder
    /// cannot be streamed.
    pub fn load(dir: &Path) -> Result<Self, TextError> {
        // One text at a time, on a worker of ours: a thread pool beside it only costs.
        tokenizers::parallelism::set_parallelism(false);
        let config = TokenizerConfig::load(dir)?;
        let Backend {
            tokenizer: mut inner,
            path,
            has_post_processor,
        } = backend::load(dir, &config)?;
        // Limits of the tokenizer's training; a prompt is neither cut nor padded.
        inner
            .with_truncation(None)
            .map_err(|error| invalid(&path, error))?;
        inner.with_padding(None);
        let added = added_tokens(&inner, &config);
        inner
            .add_tokens(added)
            .map_err(|error| invalid(&path, error))?;

        if !has_post_processor {
            let around = backend::post_processor(&inner, &config);
            inner.with_post_processor(around.map_err(|error| invalid(&path, error))?);
        }

        let mut decoder = Decoder::new(inner.get_decoder())
            .map_err(|what| invalid(&path, format!("{what} is not supported")))?;
        // transformers cleans up after tokenizers of words only: BPE's spaces are meant.
        let cleans_up = config.flag("clean_up_tokenization_spaces") == Some(true)
            && !matches!(inner.get_model(), ModelWrapper::BPE(_));
        if cleans_up {
            decoder.clean_up();
        }
        let vocab_size = inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1);
        let named = |name: &str| config.named(name).map(str::to_owned);
        let (bos, eos) = (named("bos_token"), named("eos_token"));
        Ok(Self {
            inner,
            plain: OnceLock::new(),
            decoder,
            cleans_up,
            vocab_size,
            bos,
            eos,
        })
    }

    /// Token ids of a text. Special tokens written in the text become themselves; `add_special`
    /// adds those that the post-processor puts around a text (a rendered chat template has its own).
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .inner
            .encode_fast(text, add_special)
            .map_err(|error| TextError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The same, but special tokens written in the text are text.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_plain(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let plain = self.plain.get_or_init(|| {
            let mut plain = self.inner.clone();
            plain.set_encode_special_tokens(true);
            plain
        });
        let encoding = plain
            .encode_fast(text, add_special)
            .map_err(|error| TextError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of a sequence of ids; ids that no token has are left out, as in transformers.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        let text = self
            .inner
            .decode(ids, skip_special)
            .map_err(|error| TextError::Decode(error.to_string()))?;
        Ok(if self.cleans_up { clean_up(text) } else { text })
    }

    /// The bytes that a token adds to a text, not at its start; `None` for an id without a token.
    /// They may be part of a character. Added tokens stand for their own text.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.decoder.bytes(self.token(id)?).ok()
    }

    /// One more than the largest id, which is at least the number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token's text as the vocabulary has it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether a token is marked special: `skip_special` leaves it out.
    pub fn is_special(&self, id: u32) -> bool {
        self.token(id)
            .is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// The text of the beginning-of-sequence token.
    pub fn bos_token(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The text of the end-of-sequence token.
    pub fn eos_token(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// The vocabulary's string for an id, in the decoder's alphabet.
    fn token(&self, id: u32) -> Option<String> {
        self.inner
            .get_added_vocabulary()
            .simple_id_to_token(id)
            .or_else(|| self.inner.get_model().id_to_token(id))
    }

    pub(super) fn start_decoding(&self) -> DecoderState {
        self.decoder.start()
    }

    /// Decodes one more token of a sequence, as [`Tokenizer::decode`] does for the whole.
    pub(super) fn decode_next(
        &self,
        state: &mut DecoderState,
        id: u32,
        skip_special: bool,
    ) -> Result<String, TextError> {
        let mut text = String::new();
        if let Some(token) = self.token(id) {
            let special = || self.inner.get_added_vocabulary().is_special_token(&token);
            if !(skip_special && special()) {
                self.decoder
                    .push(state, token, &mut text)
                    .map_err(TextError::Decode)?;
            }
        }
        Ok(text)
    }

    pub(super) fn finish_decoding(&self, state: &mut DecoderState) -> Result<String, TextError> {
        let mut text = String::new();
        self.decoder
            .finish(state, &mut text)
            .map_err(TextError::Decode)?;
        Ok(text)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .finish_non_exhaustive()
    }
}

/// Tokens that `tokenizer_config.json` marks as added or special and the tokenizer's file does not.
///
/// A token that the vocabulary lacks is added if the configuration gives it the next id. Others are left
/// out: the model has no row for them.
fn added_tokens(inner: &tokenizers::Tokenizer, config: &TokenizerConfig) -> Vec<AddedToken> {
    let mut tokens = Vec::new();
    let mut next = inner.get_vocab_size(true);
    for listed in config.added_tokens() {
        let known = inner.token_to_id(&listed.token.content).is_some();
        let is_next = listed.id as usize == next && inner.id_to_token(listed.id).is_none();
        if known || is_next {
            next += usize::from(!known);
            tokens.push(listed.token.clone());
        }
    }
    let named = config.named_tokens().map(|(_, text)| text);
    for text in named.chain(config.extra_special_tokens()) {
        let marked = inner.get_added_vocabulary().get_vocab().contains_key(text);
        let listed = tokens.iter().any(|token| token.content == text);
        if !marked && !listed && inner.token_to_id(text).is_some() {
            tokens.push(AddedToken::from(text, true));
        }
    }
    tokens
}
