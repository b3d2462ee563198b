//! Why a grammar cannot be used, and how llguidance's words are told.

/// Why a grammar cannot be used, or could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The schema asks for what cannot be enforced.
    #[error("the JSON schema uses {keyword}, which cannot be enforced: {reason}")]
    Unsupported {
        /// The keyword.
        keyword: String,
        /// Why.
        reason: String,
    },
    /// The schema is not one, or nothing satisfies it.
    #[error("the JSON schema is invalid: {0}")]
    Invalid(String),
    /// The grammar takes more time or memory than it may.
    #[error("the schema or grammar is too complex: {0}")]
    TooComplex(String),
    /// It was not compiled in time.
    #[error(
        "the schema or grammar is too complex: it was not compiled within {0} s; make it smaller or simpler"
    )]
    TooSlow(u64),
    /// As many grammars are compiled as may be that take too long.
    #[error("other grammars that take long are being compiled; send the request again later")]
    Busy,
    /// The regular expression or the grammar is none.
    #[error("the grammar is invalid: {0}")]
    Grammar(String),
    /// The model's vocabulary cannot be used.
    #[error("structured output is impossible with this tokenizer: {0}")]
    Vocabulary(String),
    /// The output left the grammar, or the grammar failed in the middle.
    #[error("the grammar failed: {0}")]
    Failed(String),
}

impl GrammarError {
    /// Whether the same grammar may do another time.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::TooSlow(_) | Self::Busy)
    }
}

/// What came of an output that had begun.
pub(super) fn failed(error: impl std::fmt::Display) -> GrammarError {
    let line = first_line(&error.to_string()).to_owned();
    match is_limit(&line.to_lowercase()) {
        true => GrammarError::TooComplex(line),
        false => GrammarError::Failed(line),
    }
}

/// Whether llguidance says that one of its bounds was reached; lowercase.
fn is_limit(message: &str) -> bool {
    let words = [
        "fuel",
        "too complex",
        "toocomplex",
        "too large",
        "too big",
        "too many",
        "limit",
        "exceeded",
        "max is",
    ];
    words.iter().any(|word| message.contains(word))
}

/// What follows the first line of a message of llguidance is its state.
pub(super) fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

/// A message of llguidance's without the grammar that it repeats, in one line.
pub(super) fn said(message: &str) -> String {
    const MOST: usize = 300;
    let line = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Sorts llguidance's messages into our errors. The keyword check in [`schema`] has caught most.
pub(super) fn compile_error(message: impl Into<String>) -> GrammarError {
    let message = message.into();
    let line = first_line(&message).to_owned();
    let unsupported = |keyword: &str| GrammarError::Unsupported {
        keyword: keyword.to_owned(),
        reason: line.clone(),
    };
    let lower = message.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if line.contains("NoExtension") {
        GrammarError::Invalid("no value satisfies it".to_owned())
    } else if lower.contains("oneof constraints") {
        unsupported("oneOf")
    } else if lower.contains("unknown format") {
        unsupported("format")
    } else if any(&[
        "regex parse error",
        "unsupported regex",
        "look-around",
        "lookaround",
    ]) {
        unsupported("pattern")
    } else if lower.contains("unimplemented keys") {
        unsupported(
            line.split_once(": ")
                .map_or(line.as_str(), |(_, keys)| keys),
        )
    } else if lower.contains("symbols.len()") {
        // An assertion of llguidance's: it numbers symbols in 16 bits.
        GrammarError::TooComplex("it comes to too many symbols".to_owned())
    } else if is_limit(&lower) {
        GrammarError::TooComplex(line)
    } else {
        GrammarError::Invalid(line)
    }
}
