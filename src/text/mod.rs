//! Text in, text out: tokenizer, streaming detokenizer, stop strings and chat templates.
//!
//! A leaf: it knows neither the engine nor the server.

mod backend;
mod decoder;
mod detokenizer;
mod files;
pub mod output;
mod special_tokens;
mod stop;
mod template;
mod tokenizer;

use std::path::PathBuf;

pub use detokenizer::Detokenizer;
pub use special_tokens::stop_token_ids;
pub use stop::{StopMatcher, StopStep};
pub use template::{ChatTemplate, TemplateError, TemplateInput};
pub use tokenizer::Tokenizer;

/// Why a model's text files could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The folder has no tokenizer that can be read; the text says how to get one.
    #[error("{dir}: tokenizer.json is missing; {remedy}")]
    NoTokenizer {
        /// The model's folder.
        dir: PathBuf,
        /// What to do about it.
        remedy: String,
    },
    /// A file exists and cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file's content is not what it should be.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The tokenizer refused a text.
    #[error("cannot tokenize the text: {0}")]
    Encode(String),
    /// The tokenizer refused a sequence of ids.
    #[error("cannot decode the tokens: {0}")]
    Decode(String),
}
