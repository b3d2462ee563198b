//! Structured output: which tokens may come next, by a JSON schema, a regular expression, a choice or a
//! grammar, through llguidance.

mod arguments;
mod gbnf;
mod lark;
mod message;
mod pythonic;
mod qwen_xml;
mod schema;
mod vocabulary;

use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, SimpleVob, TokEnv};
use llguidance::{JsonCompileOptions, ParserFactory};
use serde_json::{Value, json};

pub use self::message::{Answer, Calls, Mark, MessageSpec, Part, Thought};
pub use self::qwen_xml::bare_texts;
use self::vocabulary::Vocabulary;
use crate::text::Tokenizer;

/// Whitespace between JSON tokens: a space, or a line break with its indentation. Anything longer
/// lets a model that is unsure fill the context with blanks.
const WHITESPACE: &str = r"[ ]|\n([ ]{1,32}|\t{1,16})?";

/// Address space for compiling; only what is used becomes memory.
const STACK_BYTES: usize = 256 << 20;

/// What the output has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema(Value),
    /// What a regular expression matches as a whole, in the notation of Rust's `regex` without
    /// look-around.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// What a context-free grammar derives: llguidance's Lark from `start`, or llama.cpp's GBNF from
    /// `root`.
    Grammar(String),
    /// A chat message with thoughts or calls.
    Message(Box<MessageSpec>),
}

impl GrammarSpec {
    /// As the answer within a message.
    ///
    /// # Errors
    /// [`GrammarError::Grammar`].
    pub fn answer(self) -> Result<Answer, GrammarError> {
        Ok(match self {
            Self::JsonObject => Answer::Json(json!({"type": "object"})),
            Self::JsonSchema(schema) => Answer::Json(schema),
            Self::Regex(regex) => Answer::Lark(regex_lark(&regex)),
            Self::Choice(texts) => Answer::Lark(choice_lark(&texts)),
            Self::Grammar(grammar) => Answer::Lark(grammar_lark(grammar)?),
            Self::Message(message) => message.answer.unwrap_or(Answer::Text),
        })
    }
}

fn regex_lark(regex: &str) -> String {
    // A slash ends a regular expression in Lark, and so does the end of the line.
    let mut escaped = String::with_capacity(regex.len());
    let mut after_backslash = false;
    for char in regex.chars() {
        match char {
            '/' if !after_backslash => escaped.push_str(r"\/"),
            '\n' if after_backslash => escaped.push('n'),
            '\n' => escaped.push_str(r"\n"),
            char => escaped.push(char),
        }
        after_backslash = char == '\\' && !after_backslash;
    }
    format!("start: /{escaped}/\n")
}

fn choice_lark(texts: &[String]) -> String {
    // As one regular expression, so that a text that begins another one can still end.
    let texts: Vec<String> = texts.iter().map(|text| lark::exactly(text)).collect();
    format!("start: /({})/\n", texts.join("|"))
}

fn grammar_lark(grammar: String) -> Result<String, GrammarError> {
    if gbnf::is_gbnf(&grammar) {
        return gbnf::to_lark(&grammar).map_err(GrammarError::Grammar);
    }
    Ok(grammar)
}

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

/// Turns schemas into matchers for one model. Built once; sharing it is cheap for its users.
pub struct GrammarCompiler {
    factory: ParserFactory,
    tokenizer: Arc<Tokenizer>,
    stop_ids: Arc<[u32]>,
}

impl GrammarCompiler {
    /// Indexes a vocabulary: seconds for 150,000 tokens.
    ///
    /// `vocab_size` is the length of the model's logits; tokens beyond it do not exist, and places
    /// without a token are never allowed. Special tokens are no text: only those in `stop_ids` are
    /// ever allowed, once the output is complete.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`].
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        vocab_size: usize,
        stop_ids: &[u32],
    ) -> Result<Self, GrammarError> {
        let stop_ids: Arc<[u32]> = stop_ids
            .iter()
            .copied()
            .filter(|id| (*id as usize) < vocab_size)
            .collect();
        let build = || {
            let words = Vocabulary::new(Arc::clone(&tokenizer), vocab_size, &stop_ids);
            let env: TokEnv = Arc::new(words);
            let slices = SlicedBiasComputer::json_slices();
            ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
        };
        let mut factory = isolated(build).map_err(GrammarError::Vocabulary)?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self {
            factory,
            tokenizer,
            stop_ids,
        })
    }

    /// Compiles a grammar: milliseconds for usual schemas, and bounded for any.
    ///
    /// # Errors
    /// [`GrammarError::Unsupported`] names a keyword, [`GrammarError::Invalid`],
    /// [`GrammarError::Grammar`], [`GrammarError::TooComplex`].
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Matcher, GrammarError> {
        let grammar = match spec {
            GrammarSpec::JsonObject => {
                GrammarWithLexer::from_json_schema(with_options(json!({"type": "object"})))
            }
            GrammarSpec::JsonSchema(schema) => GrammarWithLexer::from_json_schema(prepare(schema)?),
            GrammarSpec::Regex(regex) => GrammarWithLexer::from_lark(regex_lark(regex)),
            GrammarSpec::Choice(texts) => GrammarWithLexer::from_lark(choice_lark(texts)),
            GrammarSpec::Grammar(grammar) => {
                GrammarWithLexer::from_lark(grammar_lark(grammar.clone())?)
            }
            GrammarSpec::Message(message) => {
                GrammarWithLexer::from_lark(message.lark(&self.tokenizer, prepare)?)
            }
        };
        let json = matches!(
            spec,
            GrammarSpec::JsonObject | GrammarSpec::JsonSchema(_) | GrammarSpec::Message(_)
        );
        let compile_error = |message: String| match compile_error(message.as_str()) {
            error if json => error,
            GrammarError::TooComplex(line) => GrammarError::TooComplex(line),
            _ => GrammarError::Grammar(said(&message)),
        };
        let grammar = TopLevelGrammar::from_grammar(grammar);
        let parser = isolated(|| self.factory.create_parser(grammar)).map_err(compile_error)?;
        let mut inner = llguidance::Matcher::new(Ok(parser));
        if let Some(error) = inner.get_error() {
            return Err(compile_error(error));
        }
        // Lexer states are made on the way: the first mask shows whether the limits hold.
        let mask = inner
            .compute_mask()
            .map_err(|error| compile_error(error.to_string()))?;
        Ok(Matcher {
            inner,
            mask,
            fresh: true,
            stop_ids: Arc::clone(&self.stop_ids),
        })
    }
}

fn prepare(schema: &Value) -> Result<Value, GrammarError> {
    schema::prepare(schema).map(with_options)
}

fn with_options(mut schema: Value) -> Value {
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITESPACE.to_owned()),
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    schema
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarCompiler")
            .field("stop_ids", &self.stop_ids)
            .finish_non_exhaustive()
    }
}

/// llguidance's own bounds on one mask are kept; those on a grammar are lowered to about a second
/// and some tens of megabytes.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// The state of one constrained generation.
pub struct Matcher {
    inner: llguidance::Matcher,
    mask: SimpleVob,
    /// Whether `mask` is that of the current state.
    fresh: bool,
    stop_ids: Arc<[u32]>,
}

impl Matcher {
    /// The tokens that may come next: bit `id % 32` of word `id / 32`. A stop token is allowed when
    /// the output may end here, and nothing else is once it must.
    ///
    /// # Errors
    /// [`GrammarError::Failed`] if the state is beyond the limits; the matcher is of no use then.
    pub fn mask(&mut self) -> Result<&[u32], GrammarError> {
        if !self.fresh {
            self.mask = self.inner.compute_mask_or_eos().map_err(failed)?;
            self.fresh = true;
        }
        Ok(self.mask.as_slice())
    }

    /// Advances by the token that was chosen.
    ///
    /// # Errors
    /// [`GrammarError::Failed`] for a token that the mask does not allow.
    pub fn commit(&mut self, token: u32) -> Result<(), GrammarError> {
        if self.is_finished() && self.stop_ids.contains(&token) {
            return Ok(());
        }
        self.fresh = false;
        self.inner.consume_token(token).map_err(failed)
    }

    /// Whether the output is complete and nothing but a stop token may follow.
    pub fn is_finished(&self) -> bool {
        self.inner.is_stopped() && !self.inner.is_error()
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher")
            .field("state", &self.inner.stop_reason())
            .finish_non_exhaustive()
    }
}

fn failed(error: impl std::fmt::Display) -> GrammarError {
    GrammarError::Failed(first_line(&error.to_string()).to_owned())
}

/// What follows the first line of a message of llguidance is its state.
fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

/// A message of llguidance's without the grammar that it repeats, in one line.
fn said(message: &str) -> String {
    const MOST: usize = 300;
    let line = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Runs llguidance's recursive code on a stack that the longest schema cannot exhaust (a stack
/// overflow would end the process), and turns a panic on odd input into an error.
fn isolated<T: Send, E: std::fmt::Display>(
    build: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || build().map_err(|error| format!("{error:#}")))
            .map_err(|error| format!("no thread for it: {error}"))?;
        thread
            .join()
            .unwrap_or_else(|_| Err("llguidance panicked".to_owned()))
    })
}

/// Sorts llguidance's messages into our errors. The keyword check in [`schema`] has caught most.
fn compile_error(message: impl Into<String>) -> GrammarError {
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
    } else if any(&[
        "fuel",
        "too complex",
        "toocomplex",
        "too large",
        "too big",
        "too many",
        "limit",
        "exceeded",
    ]) {
        GrammarError::TooComplex(line)
    } else {
        GrammarError::Invalid(line)
    }
}

#[cfg(test)]
mod tests;
