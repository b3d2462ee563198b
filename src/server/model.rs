//! A loaded model with all that turns requests into tokens and back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::body::Body;
use super::breakers::BreakerIndex;
use super::defaults::{DefaultsError, SamplingDefaults};
use super::dialect::Dialect;
use super::error::ApiError;
use super::metrics::Metrics;
use super::terms::Policy;
use crate::engine::EngineHandle;
use crate::engine::grammar::{GrammarCompiler, GrammarError, GrammarSpec, Matcher};
use crate::engine::sampler::Breakers;
use crate::text::output::ToolFormat;
use crate::text::{ChatTemplate, TextError, Tokenizer, stop_token_ids};

/// Everything about text that comes with a model's folder.
pub struct TextFiles {
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Messages to text; base models have none.
    pub template: Option<ChatTemplate>,
    /// Tokens that end a generation.
    pub stop_tokens: Vec<u32>,
    /// What a request that does not say is sampled with.
    pub defaults: SamplingDefaults,
    /// What the template makes of outputs.
    pub dialect: Dialect,
}

/// Why a model's text files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextFilesError {
    /// The tokenizer or the template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// `generation_config.json`.
    #[error(transparent)]
    Defaults(#[from] DefaultsError),
}

impl TextFiles {
    /// Reads a model's folder. `tools` is how calls are written, where the template is not to say.
    pub fn load(dir: &Path, tools: Option<ToolFormat>) -> Result<Self, TextFilesError> {
        let tokenizer = Arc::new(Tokenizer::load(dir)?);
        let template = ChatTemplate::load(dir)?;
        let stop_tokens = stop_token_ids(dir, &tokenizer)?;
        let defaults = SamplingDefaults::load(dir)?;
        let dialect = Dialect::new(template.as_ref(), tools);
        Ok(Self {
            tokenizer,
            template,
            stop_tokens,
            defaults,
            dialect,
        })
    }
}

/// What requests are answered with.
pub struct ServedModel {
    /// The name clients see.
    pub id: String,
    /// Whether `id` was given as an alias.
    pub alias: Option<String>,
    /// The folder.
    pub path: PathBuf,
    /// When it was ready, in seconds since 1970.
    pub created: u64,
    /// Most tokens of one answer, whatever a request says.
    pub n_predict: Option<usize>,
    /// On which terms requests are served.
    pub policy: Policy,
    /// The way to the engine thread.
    pub engine: EngineHandle,
    /// Tokenizer, template, defaults.
    pub text: TextFiles,
    /// What requests came to.
    pub metrics: Arc<Metrics>,
    grammar: OnceLock<GrammarCompiler>,
    breakers: BreakerIndex,
}

impl ServedModel {
    /// Joins what was loaded.
    pub fn new(
        names: Names,
        path: PathBuf,
        n_predict: Option<usize>,
        policy: Policy,
        engine: EngineHandle,
        text: TextFiles,
    ) -> Self {
        let Names { id, alias } = names;
        let grammar = OnceLock::new();
        let breakers = BreakerIndex::default();
        let created = super::clock::unix_seconds();
        let metrics = Metrics::new(engine.context_length());
        Self {
            id,
            alias,
            path,
            created,
            n_predict,
            policy,
            engine,
            text,
            metrics,
            grammar,
            breakers,
        }
    }

    /// What requests can ask of it.
    pub fn capabilities(&self) -> Vec<Capability> {
        use Capability::{Chat, Completion, Reasoning, StructuredOutput, Tools};
        let (template, dialect) = (&self.text.template, &self.text.dialect);
        let has = [
            (Completion, true),
            (Chat, template.is_some()),
            (Tools, template.is_some() && dialect.tools().is_some()),
            (Reasoning, dialect.habits().thinks),
            (StructuredOutput, true),
        ];
        has.into_iter()
            .filter_map(|(capability, has)| has.then_some(capability))
            .collect()
    }

    /// Refuses a request that names another model, where that matters.
    pub fn check_name(&self, body: &mut Body) -> Result<(), ApiError> {
        const FIELD: &str = "model";
        body.know([FIELD]);
        match body.get(FIELD) {
            None => Ok(()),
            Some(Value::String(asked)) if self.policy.strict_model && *asked != self.id => {
                Err(ApiError::model_not_found(asked, &self.id))
            }
            Some(Value::String(_)) => Ok(()),
            Some(_) => Err(ApiError::wrong_type(FIELD, "`model` must be a string")),
        }
    }

    /// Turns a grammar into masks. Slow: not for a thread that serves connections.
    ///
    /// The compiler's view of the vocabulary is made when the first grammar is asked for, so that a
    /// server that never sees one starts without it.
    ///
    /// `param` is the field that asked for it.
    pub fn compile(&self, spec: &GrammarSpec, param: &str) -> Result<Matcher, ApiError> {
        let failed = |error: GrammarError| {
            let message = format!("`{param}`: {error}");
            match error {
                GrammarError::Unsupported { .. } => ApiError::unsupported(param, message),
                GrammarError::Invalid(_)
                | GrammarError::Grammar(_)
                | GrammarError::TooComplex(_)
                | GrammarError::TooSlow(_) => ApiError::invalid(param, message),
                GrammarError::Busy => ApiError::grammars_busy(message),
                GrammarError::Vocabulary(_) | GrammarError::Failed(_) => {
                    ApiError::internal(message)
                }
            }
        };
        let compiler = match self.grammar.get() {
            Some(compiler) => compiler,
            None => {
                let vocab = self.engine.model().vocab_size;
                let text = &self.text;
                let compiler =
                    GrammarCompiler::new(text.tokenizer.clone(), vocab, &text.stop_tokens)
                        .map_err(failed)?;
                self.grammar.get_or_init(|| compiler)
            }
        };
        compiler.compile(spec).map_err(failed)
    }

    /// Whether a grammar was compiled lately.
    pub fn knows(&self, spec: &GrammarSpec) -> bool {
        let compiler = self.grammar.get();
        compiler.is_some_and(|compiler| compiler.knows(spec))
    }

    /// Tokens that break DRY's sequences; `None` is the usual strings. Slow, like [`Self::compile`].
    pub fn breakers(&self, strings: Option<&[String]>) -> Result<Arc<Breakers>, ApiError> {
        let find = AssertUnwindSafe(|| self.breakers.find(&self.text.tokenizer, strings));
        let param = "dry_sequence_breakers";
        match catch_unwind(find) {
            Ok(found) => found.map_err(|error| ApiError::invalid(param, error.to_string())),
            Err(_) => Err(ApiError::invalid(param, "the tokenizer gave up on them")),
        }
    }

    /// Tokens of a text that stands in the request's field `param`.
    ///
    /// The regular expressions of `tokenizers` give up on some texts (megabytes of spaces) by a panic;
    /// the text is at fault, so the request is.
    pub fn encode(&self, param: &str, text: &str, special: bool) -> Result<Vec<u32>, ApiError> {
        encoded(param, || self.text.tokenizer.encode(text, special))
    }

    /// The same, with what looks like a special token in the text taken for text.
    pub fn encode_plain(
        &self,
        param: &str,
        text: &str,
        special: bool,
    ) -> Result<Vec<u32>, ApiError> {
        encoded(param, || self.text.tokenizer.encode_plain(text, special))
    }

    /// A token's own text, for people: lossy where it holds a part of a character.
    pub fn piece(&self, token: u32) -> Piece {
        let bytes = self.text.tokenizer.token_bytes(token);
        // Special tokens have a name and no bytes of their own.
        let bytes = bytes.unwrap_or_else(|| {
            self.text
                .tokenizer
                .decode(&[token], false)
                .unwrap_or_default()
                .into_bytes()
        });
        Piece(bytes)
    }
}

fn encoded(
    param: &str,
    encode: impl FnOnce() -> Result<Vec<u32>, TextError>,
) -> Result<Vec<u32>, ApiError> {
    match catch_unwind(AssertUnwindSafe(encode)) {
        Ok(tokens) => tokens.map_err(|error| ApiError::invalid(param, error.to_string())),
        Err(_) => {
            let message = "the tokenizer gave up on this text; make it shorter";
            Err(ApiError::invalid(param, message))
        }
    }
}

/// What a model can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Text to continue.
    Completion,
    /// Messages to answer.
    Chat,
    /// Functions to call.
    Tools,
    /// Thoughts before the answer.
    Reasoning,
    /// Answers that fit a schema.
    StructuredOutput,
}

/// What a model is called.
pub struct Names {
    /// The alias, or else taken from the model argument.
    pub id: String,
    /// What `--alias` said.
    pub alias: Option<String>,
}

impl Names {
    /// A repository is called by its id, a folder by its name.
    pub fn new(alias: Option<String>, argument: &str, dir: &Path) -> Self {
        let id = alias.clone().unwrap_or_else(|| {
            let folder = Path::new(argument)
                .is_dir()
                .then(|| dir.canonicalize().ok())
                .flatten();
            folder.as_deref().and_then(Path::file_name).map_or_else(
                || argument.to_owned(),
                |name| name.to_string_lossy().into_owned(),
            )
        });
        Self { id, alias }
    }
}

/// The bytes of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece(pub Vec<u8>);

impl Piece {
    /// As text, with U+FFFD for what is no character.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// As text, or `bytes:\xe2\x80` where it is none: the form of OpenAI's completions, which keeps
    /// tokens apart that would all read U+FFFD.
    pub fn escaped(&self) -> String {
        match std::str::from_utf8(&self.0) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                let hex = self.0.iter().map(|byte| format!("\\x{byte:02x}"));
                std::iter::once("bytes:".to_owned()).chain(hex).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_are_no_text_stay_apart() {
        assert_eq!(Piece(b"a".to_vec()).escaped(), "a");
        assert_eq!(Piece(vec![0xe2, 0x80]).escaped(), "bytes:\\xe2\\x80");
        assert_eq!(Piece(vec![0xe2]).lossy(), "\u{fffd}");
    }

    #[test]
    fn a_folder_is_called_by_its_name_and_a_repository_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some-model");
        std::fs::create_dir(&path).unwrap();
        let argument = path.join(".").display().to_string();
        assert_eq!(Names::new(None, &argument, &path).id, "some-model");
        assert_eq!(Names::new(None, "owner/name", &path).id, "owner/name");
        let aliased = Names::new(Some("x".into()), "owner/name", &path);
        assert_eq!(
            (aliased.id.as_str(), aliased.alias.as_deref()),
            ("x", Some("x"))
        );
    }
}
