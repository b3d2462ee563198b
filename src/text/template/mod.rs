//! Chat templates, rendered as transformers does (`PreTrainedTokenizerBase.apply_chat_template` and
//! `utils/chat_template_utils.py` of transformers 5).

mod environment;
mod filters;
mod json;
mod methods;
mod prepare;
mod python;
mod source;
mod strings;

use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};

use self::source::Sources;
use super::TextError;
use super::special_tokens::TokenizerConfig;

/// Most text a template may write.
const MAX_OUTPUT_BYTES: usize = 256 << 20;

/// A model's chat template: one, or several by name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    sources: Sources,
    special_tokens: Map<String, Json>,
}

/// What a template is rendered with.
#[derive(Debug, Clone, Copy)]
pub struct TemplateInput<'a> {
    /// A list of objects with `role` and `content`.
    pub messages: &'a Json,
    /// A list of tool definitions; `None` where the request has none (never an empty list).
    pub tools: Option<&'a Json>,
    /// Whether to end with the header of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Further variables (`chat_template_kwargs`), which also override the special tokens.
    pub kwargs: &'a Map<String, Json>,
}

/// Why a template could not be rendered. Each is the request's fault or the template's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template called `raise_exception`; this is its message.
    #[error("{0}")]
    Raised(String),
    /// The messages, tools or variables are not what a template takes.
    #[error("{0}")]
    Input(String),
    /// The template failed.
    #[error("the chat template failed: {0}")]
    Failed(String),
    /// The template ran for too long or wrote too much.
    #[error("the chat template does not come to an end within its limit")]
    Limit,
}

impl ChatTemplate {
    /// Loads the template of a model folder; `None` for a model without one.
    ///
    /// `chat_template.jinja` (with `additional_chat_templates/NAME.jinja`) comes before
    /// `chat_template` of `tokenizer_config.json`, which is a string or a list of named templates, and
    /// that before `chat_template.json`.
    ///
    /// # Errors
    /// [`TextError::Read`], and [`TextError::Invalid`] for a template with a syntax error.
    pub fn load(dir: &Path) -> Result<Option<Self>, TextError> {
        let config = TokenizerConfig::load(dir)?;
        let Some(sources) = Sources::load(dir, &config)? else {
            return Ok(None);
        };
        let mut environment = environment::environment();
        for source in sources.iter() {
            environment
                .add_template_owned(source.name.clone(), prepare::prepare(&source.text))
                .map_err(|error| super::files::invalid(&source.path, error))?;
        }
        let special_tokens = config
            .named_tokens()
            .map(|(name, text)| (name.to_owned(), Json::from(text)))
            .collect();
        Ok(Some(Self {
            environment,
            sources,
            special_tokens,
        }))
    }

    /// The template's text that a request with or without tools is rendered with.
    ///
    /// # Errors
    /// [`TemplateError::Input`] if there are several templates and none is called `default`.
    pub fn source(&self, with_tools: bool) -> Result<&str, TemplateError> {
        self.sources
            .choose(with_tools)
            .map(|source| source.text.as_str())
    }

    /// Renders a conversation.
    ///
    /// Like transformers, leaves out the messages' fields that are null, and passes a message's
    /// reasoning under each of the names that templates read.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn render(&self, input: &TemplateInput<'_>) -> Result<String, TemplateError> {
        let source = self.sources.choose(input.tools.is_some())?;
        let context = self.context(input)?;
        let failed = |error: minijinja::Error| TemplateError::from(error);
        let template = self
            .environment
            .get_template(&source.name)
            .map_err(failed)?;
        let mut output = Bounded::default();
        match template.render_captured_to(context, &mut output) {
            Err(_) if output.full => return Err(TemplateError::Limit),
            result => result.map_err(failed)?,
        };
        String::from_utf8(output.text).map_err(|error| TemplateError::Failed(error.to_string()))
    }

    fn context(&self, input: &TemplateInput<'_>) -> Result<Value, TemplateError> {
        let mut context = self.special_tokens.clone();
        context.insert("documents".to_owned(), Json::Null);
        for (name, value) in input.kwargs {
            if matches!(
                name.as_str(),
                "messages" | "tools" | "add_generation_prompt"
            ) {
                let text = format!("chat_template_kwargs must not contain {name:?}");
                return Err(TemplateError::Input(text));
            }
            context.insert(name.clone(), value.clone());
        }
        context.insert("messages".to_owned(), messages(input.messages)?);
        context.insert(
            "tools".to_owned(),
            input.tools.cloned().unwrap_or(Json::Null),
        );
        context.insert(
            "add_generation_prompt".to_owned(),
            input.add_generation_prompt.into(),
        );
        Ok(Value::from(Serde(context)))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.sources.iter().map(|source| &source.name).collect();
        f.debug_struct("ChatTemplate")
            .field("names", &names)
            .finish_non_exhaustive()
    }
}

/// The names that a message's reasoning goes by; templates read the first, gpt-oss the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

fn messages(messages: &Json) -> Result<Json, TemplateError> {
    let input = |text: &str| TemplateError::Input(text.to_owned());
    let list = messages
        .as_array()
        .ok_or_else(|| input("messages must be a list"))?;
    if list.is_empty() {
        return Err(input("messages must not be empty"));
    }
    list.iter()
        .map(|message| message_fields(message).map(Json::Object))
        .collect()
}

fn message_fields(message: &Json) -> Result<Map<String, Json>, TemplateError> {
    let Some(fields) = message.as_object() else {
        return Err(TemplateError::Input(
            "each message must be an object".to_owned(),
        ));
    };
    let present = fields.iter().filter(|(_, value)| !value.is_null());
    let present: Map<_, _> = present
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let Some(reasoning) = REASONING
        .iter()
        .find_map(|name| present.get(*name))
        .cloned()
    else {
        return Ok(present);
    };
    let mut aliased = Map::from_iter([("thinking".to_owned(), reasoning.clone())]);
    aliased.extend(present);
    aliased.insert("reasoning_content".to_owned(), reasoning);
    Ok(aliased)
}

impl From<minijinja::Error> for TemplateError {
    fn from(error: minijinja::Error) -> Self {
        use std::error::Error;
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        let mut message = String::new();
        while let Some(error) = cause {
            if let Some(raised) = error.downcast_ref::<environment::Raised>() {
                return Self::Raised(raised.0.clone());
            }
            if let Some(error) = error.downcast_ref::<minijinja::Error>()
                && error.kind() == minijinja::ErrorKind::OutOfFuel
            {
                return Self::Limit;
            }
            let text = error.to_string();
            if !message.contains(&text) {
                message += if message.is_empty() { "" } else { ": " };
                message += &text;
            }
            cause = error.source();
        }
        Self::Failed(message)
    }
}

/// An output that refuses to grow without end.
#[derive(Default)]
struct Bounded {
    text: Vec<u8>,
    full: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.full = self.text.len() + bytes.len() > MAX_OUTPUT_BYTES;
        if self.full {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
