//! `vocab.json` and `merges.txt`, in which byte-level BPE came before `tokenizer.json`.
//!
//! They say nothing of how a text is cut before it is merged: the class does, and these are the classes
//! whose cut is known.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::{TextError, TokenizerConfig, part};
use crate::text::files::{invalid, read_json, read_text};

pub(super) const VOCAB: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";

/// A tokenizer class of transformers (`models/gpt2`, `models/qwen2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Gpt2,
    Qwen2,
}

/// A text's words as Qwen2 has them: single digits, and a line break ends a run of punctuation.
const QWEN2_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

impl Class {
    /// By `tokenizer_class`; `None` for one whose cut is not known.
    pub(super) fn of(config: &TokenizerConfig) -> Option<Self> {
        match config.class()? {
            "GPT2Tokenizer" => Some(Self::Gpt2),
            "Qwen2Tokenizer" => Some(Self::Qwen2),
            _ => None,
        }
    }

    /// What the class calls its tokens where the configuration says nothing.
    pub(super) fn named_tokens(self) -> Vec<(&'static str, String)> {
        let names: &[&str] = match self {
            Self::Gpt2 => &["unk_token", "bos_token", "eos_token"],
            Self::Qwen2 => &["unk_token", "eos_token", "pad_token"],
        };
        names
            .iter()
            .map(|name| (*name, "<|endoftext|>".to_owned()))
            .collect()
    }

    fn normalizer(self) -> Option<Value> {
        (self == Self::Qwen2).then(|| json!({"type": "NFC"}))
    }

    fn pre_tokenizer(self, add_prefix_space: bool) -> Value {
        let bytes = |use_regex: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space,
                   "trim_offsets": true, "use_regex": use_regex})
        };
        match self {
            Self::Gpt2 => bytes(true),
            Self::Qwen2 => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated",
                 "invert": false},
                bytes(false),
            ]}),
        }
    }
}

/// Builds the tokenizer of a folder that has both files.
pub(super) fn build(
    dir: &Path,
    class: Class,
    config: &TokenizerConfig,
) -> Result<tokenizers::Tokenizer, TextError> {
    let path = dir.join(VOCAB);
    let failed = |error: String| invalid(&path, error);
    let vocab = vocab(&path)?;
    let merges = merges(&dir.join(MERGES), &vocab)?;
    let model = BPE::builder().vocab_and_merges(vocab, merges).build();
    let mut tokenizer = tokenizers::Tokenizer::new(model.map_err(|error| invalid(&path, error))?);
    let normalizer: Option<tokenizers::NormalizerWrapper> =
        class.normalizer().map(part).transpose().map_err(failed)?;
    tokenizer
        .with_normalizer(normalizer)
        .map_err(|error| invalid(&path, error))?;
    let prefix = config.flag("add_prefix_space").unwrap_or(false);
    let pre_tokenizer = class.pre_tokenizer(prefix);
    tokenizer.with_pre_tokenizer(Some(
        part::<tokenizers::PreTokenizerWrapper>(pre_tokenizer).map_err(failed)?,
    ));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                         "use_regex": true});
    tokenizer.with_decoder(Some(
        part::<tokenizers::DecoderWrapper>(decoder).map_err(failed)?,
    ));
    Ok(tokenizer)
}

fn vocab(path: &Path) -> Result<Vocab, TextError> {
    let json = read_json(path)?.unwrap_or_default();
    let tokens = json.as_object().into_iter().flatten();
    tokens
        .map(|(token, id)| {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| invalid(path, format!("{token:?} has no token id")))?;
            Ok((token.clone(), id))
        })
        .collect()
}

/// The merges in order. Each is checked: the library trusts that their parts and what they make are known.
fn merges(path: &Path, vocab: &Vocab) -> Result<Merges, TextError> {
    let text = read_text(path)?.unwrap_or_default();
    let lines = text.lines().enumerate();
    let mut seen = HashSet::new();
    let mut merges = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.starts_with("#version")) {
        let wrong = |what: &str| invalid(path, format!("line {}: {what}", index + 1));
        if line.is_empty() {
            continue;
        }
        let (left, right) = line
            .split_once(' ')
            .filter(|(_, right)| !right.contains(' '))
            .ok_or_else(|| wrong("not two tokens"))?;
        let known = |token: &str| vocab.contains_key(token);
        if !(known(left) && known(right) && known(&[left, right].concat())) {
            return Err(wrong("a token that vocab.json does not have"));
        }
        if seen.insert((left, right)) {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(merges)
}
