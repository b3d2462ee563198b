//! Special tokens by name (`bos_token`, `eos_token`, …), and the ids that end a generation.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::files::{invalid, read_json};
use super::{TextError, Tokenizer, backend};

/// `tokenizer_config.json`, with `special_tokens_map.json` and `added_tokens.json` merged in where
/// transformers 5 does (`PreTrainedTokenizerBase._from_pretrained`: only if the config lists no
/// `added_tokens_decoder`), and the names that go without saying.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    json: Map<String, Value>,
    added: Vec<ListedToken>,
}

/// A token that the configuration lists, with what it says of it.
#[derive(Debug)]
pub(super) struct ListedToken {
    /// Where in the vocabulary it is to be.
    pub id: u32,
    pub token: AddedToken,
}

impl TokenizerConfig {
    /// Reads a model folder; an absent file is an empty configuration.
    pub(super) fn load(dir: &Path) -> Result<Self, TextError> {
        let mut json = object(read_json(&dir.join("tokenizer_config.json"))?);
        let listed = json.get("added_tokens_decoder").and_then(Value::as_object);
        let mut config = match listed.map(listed_tokens) {
            Some(added) => Self { json, added },
            None => {
                json.extend(object(read_json(&dir.join("special_tokens_map.json"))?));
                let mut config = Self {
                    json,
                    added: Vec::new(),
                };
                let older = object(read_json(&dir.join("added_tokens.json"))?);
                config.added = config.older_added_tokens(&older);
                config
            }
        };
        for (name, token) in backend::default_tokens(dir, &config)? {
            config.json.entry(name).or_insert_with(|| token.into());
        }
        Ok(config)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key)
    }

    /// A setting that is on or off; `None` where it is neither.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The tokenizer's class in transformers, without the `Fast` of earlier versions.
    pub(super) fn class(&self) -> Option<&str> {
        let class = self.get("tokenizer_class")?.as_str()?;
        Some(class.strip_suffix("Fast").unwrap_or(class))
    }

    /// Named tokens, for instance `("bos_token", "<s>")`.
    pub(super) fn named_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.json
            .iter()
            .filter(|(key, _)| key.ends_with("_token"))
            .filter_map(|(key, value)| Some((key.as_str(), token_text(value)?)))
    }

    /// A named token's text.
    pub(super) fn named(&self, name: &str) -> Option<&str> {
        token_text(self.get(name)?)
    }

    /// Special tokens without a name of their own.
    pub(super) fn extra_special_tokens(&self) -> impl Iterator<Item = &str> {
        let lists = ["extra_special_tokens", "additional_special_tokens"];
        let listed = lists.into_iter().filter_map(|key| self.get(key));
        listed
            .flat_map(|tokens| -> Box<dyn Iterator<Item = &Value>> {
                match tokens {
                    Value::Array(tokens) => Box::new(tokens.iter()),
                    Value::Object(tokens) => Box::new(tokens.values()),
                    _ => Box::new(std::iter::empty()),
                }
            })
            .filter_map(token_text)
    }

    /// The tokens that were added to the vocabulary, by their ids.
    pub(super) fn added_tokens(&self) -> &[ListedToken] {
        &self.added
    }

    /// `{token: id}` of `added_tokens.json`.
    fn older_added_tokens(&self, tokens: &Map<String, Value>) -> Vec<ListedToken> {
        let special: HashSet<&str> = self
            .named_tokens()
            .map(|(_, text)| text)
            .chain(self.extra_special_tokens())
            .collect();
        let listed = tokens.iter().filter_map(|(content, id)| {
            let special = special.contains(content.as_str());
            Some(ListedToken {
                id: u32::try_from(id.as_u64()?).ok()?,
                token: AddedToken::from(content.as_str(), special),
            })
        });
        by_id(listed)
    }
}

/// `added_tokens_decoder`: tokens by their ids.
fn listed_tokens(tokens: &Map<String, Value>) -> Vec<ListedToken> {
    let listed = tokens.iter().filter_map(|(id, token)| {
        let flag = |key: &str| token.get(key).and_then(Value::as_bool);
        let special = flag("special").unwrap_or(false);
        let added = AddedToken::from(token.get("content")?.as_str()?, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special));
        Some(ListedToken {
            id: id.parse().ok()?,
            token: added,
        })
    });
    by_id(listed)
}

fn by_id(tokens: impl Iterator<Item = ListedToken>) -> Vec<ListedToken> {
    let mut tokens: Vec<_> = tokens.collect();
    tokens.sort_by_key(|token| token.id);
    tokens
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
    let mut seen = HashSet::new();
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
