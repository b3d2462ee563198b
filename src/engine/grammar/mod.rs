//! Structured output: which tokens may come next, by a JSON schema, a regular expression, a choice or a
//! grammar, through llguidance.

mod ahead;
mod arguments;
mod beginning;
mod cache;
mod error;
mod gbnf;
mod lark;
mod limits;
mod matcher;
mod message;
mod pythonic;
mod qwen_xml;
mod relaxed;
mod schema;
mod vocabulary;
mod watch;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{JsonCompileOptions, ParserFactory};
use serde_json::{Value, json};

pub use self::ahead::{Masks, SharedMatcher};
use self::beginning::Beginning;
use self::cache::Cache;
pub use self::error::GrammarError;
use self::error::{compile_error, said};
use self::matcher::Compiled;
pub use self::matcher::{Hold, Matcher};
pub use self::message::{Answer, Call, Calls, Mark, MessageSpec, Part, Thought};
pub use self::qwen_xml::bare_texts;
use self::vocabulary::Vocabulary;
use self::watch::{Lookout, Watch};
use crate::text::Tokenizer;
use crate::text::output::{CallReader, Functions};

/// Whitespace between JSON tokens: a space, or a line break with its indentation. Anything longer
/// lets a model that is unsure fill the context with blanks.
const WHITESPACE: &str = r"[ ]|\n([ ]{1,32}|\t{1,16})?";

/// How long a grammar may be as text: llguidance takes time by more than its length.
const MAX_GRAMMAR_BYTES: usize = 256 << 10;

/// How long a vocabulary may be indexed: nobody's request is at fault for it.
const INDEXING: Duration = Duration::from_secs(600);

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
        within_length(&self)?;
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

/// Refuses a grammar of the user's own that is too long.
fn within_length(spec: &GrammarSpec) -> Result<(), GrammarError> {
    let bytes = match spec {
        GrammarSpec::Regex(text) | GrammarSpec::Grammar(text) => text.len(),
        GrammarSpec::Choice(texts) => texts.iter().map(String::len).sum(),
        GrammarSpec::JsonObject | GrammarSpec::JsonSchema(_) | GrammarSpec::Message(_) => 0,
    };
    if bytes > MAX_GRAMMAR_BYTES {
        let message = format!("it is {bytes} bytes long, the limit is {MAX_GRAMMAR_BYTES}");
        return Err(GrammarError::TooComplex(message));
    }
    Ok(())
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

/// Turns schemas into matchers for one model. Built once; sharing it is cheap for its users.
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
    tokenizer: Arc<Tokenizer>,
    vocab_size: usize,
    stop_ids: Arc<[u32]>,
    cache: Cache<Template, GrammarError>,
}

/// What outputs start from.
enum Template {
    /// A grammar of the whole output.
    Whole(Box<Compiled>),
    /// What begins somewhere within it.
    Watched(Arc<Lookout>),
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
        let words = Vocabulary::new(Arc::clone(&tokenizer), vocab_size, &stop_ids);
        let build = || {
            let env: TokEnv = Arc::new(words);
            let slices = SlicedBiasComputer::json_slices();
            ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
                .map_err(|error| GrammarError::Vocabulary(format!("{error:#}")))
        };
        let mut factory = limits::isolated(INDEXING, build)?;
        factory.quiet();
        *factory.limits_mut() = limits::counts();
        Ok(Self {
            factory: Arc::new(factory),
            tokenizer,
            vocab_size,
            stop_ids,
            cache: Cache::new(Template::bytes, GrammarError::is_passing),
        })
    }

    /// Whether a grammar was compiled lately, so that it costs next to nothing.
    pub fn knows(&self, spec: &GrammarSpec) -> bool {
        self.cache.has(spec)
    }

    /// Compiles a grammar: milliseconds for usual schemas, and bounded for any. What was compiled
    /// lately is kept.
    ///
    /// # Errors
    /// [`GrammarError::Unsupported`] names a keyword, [`GrammarError::Invalid`],
    /// [`GrammarError::Grammar`], [`GrammarError::TooComplex`].
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Matcher, GrammarError> {
        let template = self.cache.get(spec, || self.template(spec))?;
        let stop_ids = Arc::clone(&self.stop_ids);
        Ok(match &*template {
            Template::Whole(compiled) => Matcher::held(compiled.start(), stop_ids),
            Template::Watched(lookout) => {
                Matcher::watched(Watch::new(Arc::clone(lookout)), stop_ids)
            }
        })
    }

    fn template(&self, spec: &GrammarSpec) -> Result<Template, GrammarError> {
        within_length(spec)?;
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
            GrammarSpec::Message(message) if watch::is_watched(message) => {
                return self
                    .lookout(message)
                    .map(|it| Template::Watched(Arc::new(it)));
            }
            GrammarSpec::Message(message) => {
                GrammarWithLexer::from_lark(message.lark(&self.tokenizer, prepare)?)
            }
        };
        let json = match spec {
            GrammarSpec::JsonObject | GrammarSpec::JsonSchema(_) => true,
            GrammarSpec::Message(message) => !matches!(message.answer, Some(Answer::Lark(_))),
            _ => false,
        };
        let compiled = self.compiled(grammar, json)?;
        Ok(Template::Whole(Box::new(compiled)))
    }

    /// What a free message is watched for.
    fn lookout(&self, message: &MessageSpec) -> Result<Lookout, GrammarError> {
        let mut unenforced = Vec::new();
        let calls = match &message.calls {
            None => None,
            Some(calls) => Some(match self.beginning(calls) {
                Err(error) if !error.is_passing() && calls.each.iter().any(|it| !it.strict) => {
                    let compile = |calls: Calls| self.calls(calls).map(drop);
                    let relaxed = relaxed::relaxed(calls.clone(), &compile)?;
                    unenforced = relaxed.1;
                    self.beginning(&relaxed.0)?
                }
                beginning => beginning?,
            }),
        };
        let (tokenizer, thought) = (Arc::clone(&self.tokenizer), message.thought.as_ref());
        Lookout::new(tokenizer, self.vocab_size, thought, calls, unenforced)
    }

    /// Where calls begin, and what holds them from there.
    fn beginning(&self, calls: &Calls) -> Result<Beginning, GrammarError> {
        let (size, many) = (self.vocab_size, calls.between.is_some());
        let reader = match &calls.mark {
            Mark::Read(format) => {
                let names = calls.each.iter().map(|call| call.function.clone());
                let functions = names.map(|name| (name, HashSet::new())).collect();
                CallReader::new(*format, Functions::new(functions))
            }
            Mark::Marker(_) | Mark::Text => None,
        };
        if let Some(reader) = reader {
            let mut rest = calls.clone();
            rest.between = None;
            let grammar = self.calls(rest)?;
            let tokenizer = &self.tokenizer;
            return Ok(Beginning::read(tokenizer, size, reader, grammar, many));
        }
        let (marker, rest) = watch::behind_marker(calls).ok_or_else(|| {
            let reason = "calls do not all begin with one marker";
            GrammarError::Vocabulary(reason.to_owned())
        })?;
        let grammar = self.calls(rest)?;
        let tokenizer = &self.tokenizer;
        Ok(Beginning::at_marker(tokenizer, size, marker, grammar, many))
    }

    /// The grammar of calls and nothing else.
    fn calls(&self, calls: Calls) -> Result<Compiled, GrammarError> {
        let message = MessageSpec {
            calls: Some(calls),
            ..MessageSpec::default()
        };
        let lark = message.lark(&self.tokenizer, prepare)?;
        self.compiled(GrammarWithLexer::from_lark(lark), true)
    }

    /// Compiles what is a JSON schema or has one in it, or else is the user's own grammar.
    fn compiled(&self, grammar: GrammarWithLexer, json: bool) -> Result<Compiled, GrammarError> {
        let compile_error = move |message: String| match compile_error(message.as_str()) {
            error if json => error,
            GrammarError::TooComplex(line) => GrammarError::TooComplex(line),
            _ => GrammarError::Grammar(said(&message)),
        };
        let factory = Arc::clone(&self.factory);
        let build = move || {
            let grammar = TopLevelGrammar::from_grammar(grammar);
            let parser = factory.create_parser(grammar);
            let parser = parser.map_err(|error| compile_error(format!("{error:#}")))?;
            let bytes = parser.parser.lexer_stats().num_bytes;
            let mut inner = llguidance::Matcher::new(Ok(parser)).into_cancellable();
            if let Some(error) = inner.get_error() {
                return Err(compile_error(error));
            }
            // Lexer states are made on the way: the first mask shows whether the limits hold.
            let mask = inner.compute_mask();
            let mask = mask.map_err(|error| compile_error(error.to_string()))?;
            Ok(Compiled::new(inner, mask, bytes))
        };
        limits::isolated(limits::COMPILING, build)
    }
}

impl Template {
    fn bytes(&self) -> usize {
        match self {
            Self::Whole(compiled) => compiled.bytes(),
            Self::Watched(lookout) => lookout.bytes_taken(),
        }
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

#[cfg(test)]
mod tests;
