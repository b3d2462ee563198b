//! Special tokens by name (`bos_token`, `eos_token`, …), and the ids that end a generation.

use std::path::Path;

use serde_json::{Map, Value};

use super::files::{invalid, read_json};
use super::{TextError, Tokenizer};

/// `tokenizer_config.json`, with `special_tokens_map.json` merged in where transformers 5 does
/// (`PreTrainedTokenizerBase._from_pretrained`: only if the config lists no `added_tokens_decoder`).
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    json: Map<String, Value>,
}

impl TokenizerConfig {
    /// Reads a model folder; an absent file is an empty configuration.
    pub(super) fn load(dir: &Path) -> Result<Self, TextError> {
        let mut json = object(read_json(&dir.join("tokenizer_config.json"))?);
        if !json.contains_key("added_tokens_decoder") {
            json.extend(object(read_json(&dir.join("special_tokens_map.json"))?));
        }
        Ok(Self { json })
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key)
    }

    /// Named tokens, for instance `("bos_token", "<s>")`.
    pub(super) fn named_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.json
            .iter()
            .filter(|(key, _)| key.ends_with("_token"))
            .filter_map(|(key, value)| Some((key.as_str(), token_text(value)?)))
    }

    /// The entries of `added_tokens_decoder`: a token's text and whether it is special.
    pub(super) fn added_tokens(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.json
            .get("added_tokens_decoder")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|tokens| tokens.values().filter_map(Value::as_object))
    }
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// A token is written as its text, or as an object with `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The ids that end a generation: `eos_token_id` (a number or a list) of `generation_config.json`
/// and of `config.json` (also in its `text_config`), and the tokenizer's end-of-sequence token.
/// In that order, each once; empty for a model that names none.
///
/// # Errors
/// A file that cannot be read, or an `eos_token_id` that is not a token id.
pub fn stop_token_ids(dir: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>, TextError> {
    let mut ids = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        let path = dir.join(name);
        let Some(json) = read_json(&path)? else {
            continue;
        };
        for scope in [Some(&json), json.get("text_config")].into_iter().flatten() {
            let found = eos_ids(&scope["eos_token_id"]).ok_or_else(|| {
                let value = &scope["eos_token_id"];
                invalid(
                    &path,
                    format!("eos_token_id must be a token id or a list, not {value}"),
                )
            })?;
            ids.extend(found);
        }
    }
    ids.extend(
        tokenizer
            .eos_token()
            .and_then(|token| tokenizer.token_id(token)),
    );
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

fn eos_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Null => Some(Vec::new()),
        // transformers writes -1 for "none"
        Value::Number(number) if number.as_i64() == Some(-1) => Some(Vec::new()),
        Value::Array(values) => values.iter().map(id).collect(),
        value => Some(vec![id(value)?]),
    }
}
