//! A model's tokenizer out of the files that its folder has.

mod llama;
mod model_proto;
mod protobuf;
mod sentencepiece;
mod vocab_merges;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::model_proto::ModelProto;
use self::vocab_merges::Class;
use super::TextError;
use super::files::{invalid, read_bytes, read_text};
use super::special_tokens::TokenizerConfig;

const SENTENCEPIECE: &str = "tokenizer.model";

/// What to do about a vocabulary that cannot be read here.
const CONVERT: &str = "convert it once with transformers: \
                       AutoTokenizer.from_pretrained(folder).save_pretrained(folder)";

/// A tokenizer of the library, and the file it was read from.
pub(super) struct Backend {
    pub tokenizer: tokenizers::Tokenizer,
    pub path: PathBuf,
    /// Whether the file also says what is put around a text (`add_bos_token` does otherwise).
    pub has_post_processor: bool,
}

/// Reads `tokenizer.json`, otherwise `tokenizer.model`, otherwise `vocab.json` with `merges.txt`.
///
/// # Errors
/// [`TextError::NoTokenizer`] without any of them, [`TextError::Read`] and [`TextError::Invalid`].
pub(super) fn load(dir: &Path, config: &TokenizerConfig) -> Result<Backend, TextError> {
    let path = dir.join("tokenizer.json");
    if let Some(json) = read_text(&path)? {
        let mut tokenizer: tokenizers::Tokenizer = json
            .parse()
            .map_err(|error: tokenizers::Error| invalid(&path, error))?;
        if llama::applies(dir, config, &tokenizer)? {
            let prefix = llama::prefix(config, true);
            llama::surround(&mut tokenizer, None, config, prefix)
                .map_err(|error| invalid(&path, error))?;
        }
        return Ok(Backend {
            tokenizer,
            path,
            has_post_processor: true,
        });
    }
    let (tokenizer, path) = if let Some(model) = model_proto(dir)? {
        let path = dir.join(SENTENCEPIECE);
        let built = sentencepiece::build(model, config);
        (built.map_err(|error| invalid(&path, error))?, path)
    } else if dir.join(vocab_merges::VOCAB).exists() && dir.join(vocab_merges::MERGES).exists() {
        let class = Class::of(config).ok_or_else(|| no_tokenizer(dir, unknown_class(config)))?;
        let path = dir.join(vocab_merges::VOCAB);
        (vocab_merges::build(dir, class, config)?, path)
    } else {
        return Err(no_tokenizer(dir, missing(dir)));
    };
    Ok(Backend {
        tokenizer,
        path,
        has_post_processor: false,
    })
}

/// The named tokens that go without saying: by the model, or by its class.
///
/// # Errors
/// [`TextError::Read`] and [`TextError::Invalid`] for a `tokenizer.model`.
pub(super) fn default_tokens(
    dir: &Path,
    config: &TokenizerConfig,
) -> Result<Vec<(&'static str, String)>, TextError> {
    if dir.join("tokenizer.json").exists() {
        return Ok(Vec::new());
    }
    if let Some(model) = model_proto(dir)? {
        return Ok(sentencepiece::named_tokens(&model));
    }
    Ok(Class::of(config).map_or_else(Vec::new, Class::named_tokens))
}

fn model_proto(dir: &Path) -> Result<Option<ModelProto>, TextError> {
    let path = dir.join(SENTENCEPIECE);
    let Some(bytes) = read_bytes(&path)? else {
        return Ok(None);
    };
    match ModelProto::parse(&bytes) {
        Ok(model) => Ok(Some(model)),
        Err(_) if is_tiktoken(&bytes) => Err(no_tokenizer(
            dir,
            format!("tokenizer.model is a vocabulary of tiktoken; {CONVERT}"),
        )),
        Err(error) => Err(invalid(&path, error)),
    }
}

/// Lines of a token in base64 and its rank.
fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    str::from_utf8(line)
        .ok()
        .and_then(|line| line.split_once(' '))
        .is_some_and(|(token, rank)| !token.is_empty() && rank.trim().parse::<u32>().is_ok())
}

fn no_tokenizer(dir: &Path, remedy: String) -> TextError {
    TextError::NoTokenizer {
        dir: dir.to_owned(),
        remedy,
    }
}

fn unknown_class(config: &TokenizerConfig) -> String {
    let class = match config.class() {
        Some(class) => format!("of a {class}"),
        None => "without a tokenizer_class in tokenizer_config.json".to_owned(),
    };
    format!("vocab.json and merges.txt {class} do not say how a text is cut; {CONVERT}")
}

/// What is there instead of a tokenizer.
fn missing(dir: &Path) -> String {
    for (file, other) in [("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")] {
        if dir.join(file).exists() {
            return format!(
                "{file} is there, but {other} is missing too; copy it from the model's repository"
            );
        }
    }
    let others = dir.read_dir().into_iter().flatten().flatten();
    let mut others: Vec<String> = others
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            name.ends_with(".tiktoken")
                || ["tekken.json", "tiktoken.model"].contains(&name.as_str())
        })
        .collect();
    others.sort();
    match others.first() {
        Some(name) => format!("{name} is of another kind, which is not read; {CONVERT}"),
        None => "copy it from the model's repository".to_owned(),
    }
}

/// What surrounds a text by `add_bos_token` and `add_eos_token`, as transformers'
/// `update_post_processor` has it: neither, where they are not said.
pub(super) fn post_processor(
    tokenizer: &tokenizers::Tokenizer,
    config: &TokenizerConfig,
) -> Result<Option<tokenizers::PostProcessorWrapper>, String> {
    let around = |flag: &str, name: &str| {
        let wanted = config.flag(flag).unwrap_or(false);
        let token = config.named(name).filter(|_| wanted)?;
        Some((token.to_owned(), tokenizer.token_to_id(token)?))
    };
    let bos = around("add_bos_token", "bos_token");
    let eos = around("add_eos_token", "eos_token");
    if bos.is_none() && eos.is_none() {
        return Ok(None);
    }
    let piece = |token: &(String, u32)| json!({"SpecialToken": {"id": token.0, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> = bos
        .iter()
        .map(piece)
        .chain([text])
        .chain(eos.iter().map(piece))
        .collect();
    let pair = [
        single.clone(),
        vec![json!({"Sequence": {"id": "B", "type_id": 1}})],
    ]
    .concat();
    let special_tokens: serde_json::Map<String, Value> = bos
        .iter()
        .chain(&eos)
        .map(|(token, id)| {
            (
                token.clone(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            )
        })
        .collect();
    part(
        json!({"type": "TemplateProcessing", "single": single, "pair": pair,
                "special_tokens": special_tokens}),
    )
    .map(Some)
}

/// A part of a tokenizer, as `tokenizer.json` writes it.
fn part<T: DeserializeOwned>(json: Value) -> Result<T, String> {
    serde_json::from_value(json).map_err(|error| error.to_string())
}
