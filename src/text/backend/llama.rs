//! The parts of transformers' `LlamaTokenizer` (version 5, `models/llama/tokenization_llama.py`).

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::{TextError, TokenizerConfig, part};
use crate::text::files::read_json;

/// Stands for a space in pieces.
const SPACE: &str = "▁";

/// Whether transformers builds this class around the vocabulary of a `tokenizer.json`, whatever else
/// that file says. It does for Llama's own models; for others that name the class (Mistral's, Phi-3's)
/// it takes the file as it is, and so it does for byte-level files.
pub(super) fn applies(
    dir: &Path,
    config: &TokenizerConfig,
    tokenizer: &tokenizers::Tokenizer,
) -> Result<bool, TextError> {
    if config.class() != Some("LlamaTokenizer") || !is_sentencepiece_bpe(tokenizer) {
        return Ok(false);
    }
    let model = read_json(&dir.join("config.json"))?.unwrap_or_default();
    Ok(model["model_type"] == "llama")
}

fn is_sentencepiece_bpe(tokenizer: &tokenizers::Tokenizer) -> bool {
    let parts = [
        serde_json::to_string(&tokenizer.get_pre_tokenizer()),
        serde_json::to_string(&tokenizer.get_decoder()),
    ];
    let mut parts = parts.iter().flatten();
    matches!(tokenizer.get_model(), ModelWrapper::BPE(_))
        && !parts.any(|part| part.contains("\"ByteLevel\""))
}

/// Puts the class's parts around a vocabulary. `prefix` is whether a text gets a space in front.
pub(super) fn surround(
    tokenizer: &mut tokenizers::Tokenizer,
    normalizer: Option<NormalizerWrapper>,
    config: &TokenizerConfig,
    prefix: bool,
) -> Result<(), String> {
    let scheme = match (prefix, config.flag("legacy").unwrap_or(false)) {
        (false, _) => "never",
        (true, false) => "first",
        // As it was before transformers 4.31: also after each special token.
        (true, true) => "always",
    };
    tokenizer
        .with_normalizer(normalizer)
        .map_err(|error| error.to_string())?;
    tokenizer.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(json!({
        "type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false,
    }))?));
    tokenizer.with_decoder(Some(part::<DecoderWrapper>(decoder(prefix))?));
    Ok(())
}

/// Whether a text gets a space in front: `add_prefix_space`, or else what the model says.
pub(super) fn prefix(config: &TokenizerConfig, model: bool) -> bool {
    config.flag("add_prefix_space").unwrap_or(model)
}

fn decoder(prefix: bool) -> Value {
    let mut stages = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        stages.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": stages})
}
