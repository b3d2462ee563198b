//! A request for a message, from its body to a job.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{input, refused, shapes, tools};
use crate::server::body::{Body, Ignored};
use crate::server::conversation::{Conversation, FieldNames, Manner, Prepared};
use crate::server::error::ApiError;
use crate::server::model::ServedModel;
use crate::server::openai::constraint::Constraint;
use crate::server::openai::ranges::integer;
use crate::server::openai::sampling::{SamplingFields, stops};
use crate::server::openai::{constraint, response_format};
use crate::server::terms::Terms;
use crate::server::thinking::{Effort, Thinking};

/// What fields are called here.
const NAMES: FieldNames = &[
    (response_format::SCHEMA, "output_config.format.schema"),
    ("response_format", "output_config.format"),
    ("reasoning_effort", "output_config.effort"),
    ("enable_thinking", "thinking"),
    ("thinking_budget", "thinking.budget_tokens"),
    ("continue_final_message", "messages"),
];

/// What makes the prompt. `system`, `messages`, `tools` and `tool_choice` are taken out of the body
/// by themselves.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[allow(dead_code, reason = "some fields are only checked for their type")]
pub struct PromptFields {
    /// The id of the model that answers, or anything: see `--strict-model`.
    model: Option<String>,
    thinking: Option<ThinkingConfig>,
    output_config: Option<OutputConfig>,
    /// Further variables for the template.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Value>>,
}

/// Whether to think before the answer; left out, as the model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = AnthropicThinking)]
enum ThinkingConfig {
    /// Yes, with so many tokens at the most.
    Enabled {
        budget_tokens: i64,
        display: Option<Display>,
    },
    /// As much as the model likes.
    Adaptive { display: Option<Display> },
    /// No.
    Disabled,
    /// Not known here.
    BetweenTools,
}

/// Whether thoughts are told, or only that there were some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AnthropicThinkingDisplay)]
enum Display {
    /// In full: nothing is left out of them here.
    Summarized,
    Omitted,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = AnthropicOutputConfig)]
struct OutputConfig {
    effort: Option<Effort>,
    /// `{"type": "json_schema", "schema": …}`
    #[schema(value_type = Option<Object>)]
    format: Option<Value>,
}

/// What else a request for a message says.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[allow(dead_code, reason = "some fields are only checked for their type")]
pub struct MessageFields {
    /// Strings that end the answer.
    stop_sequences: Option<Vec<String>>,
    /// Stream the answer as server-sent events.
    stream: Option<bool>,
    metadata: Option<Metadata>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[allow(dead_code, reason = "fields are only checked for their type")]
#[schema(as = AnthropicMetadata)]
struct Metadata {
    user_id: Option<String>,
}

/// A request that makes sense.
pub struct Asked {
    /// On its way to the engine.
    pub prepared: Prepared,
    /// Most tokens of the answer.
    pub limit: usize,
    /// Whether thoughts are told.
    pub tells_thoughts: bool,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Fields that nothing knew.
    pub ignored: Ignored,
}

/// Reads a request. Slow for large ones.
pub fn read(model: &ServedModel, bytes: &[u8], terms: Terms) -> Result<Asked, ApiError> {
    let mut body = Body::parse(bytes)?;
    model.check_name(&mut body)?;
    let terms = terms.read(&mut body)?;
    refused::known(&mut body)?;
    body.look_into::<Metadata>("metadata");
    let fields: MessageFields = body.read()?;
    let mut sampling: SamplingFields = body.read()?;
    // Anthropic's way to have a prompt kept, and no answer made.
    sampling.prompt_only = true;
    let vocab = model.engine.model().vocab_size;
    let mut sampling = sampling.resolve(&model.text.defaults.0, vocab)?;
    let Some(limit) = sampling.max_tokens else {
        let message = "`max_tokens` is required";
        return Err(ApiError::missing("max_tokens", message));
    };
    sampling.stop = stops("stop_sequences", fields.stop_sequences.unwrap_or_default())?;
    let subject = subject(&mut body, model)?;
    if let Some(budget) = subject.conversation.thinking_budget
        && budget >= limit
    {
        let param = "thinking.budget_tokens";
        let message = format!("`{param}` is {budget}, it must be less than `max_tokens`, {limit}");
        return Err(ApiError::invalid(param, message));
    }
    let manner = Manner {
        answer: subject.answer,
        sampling,
        logprobs: None,
        terms,
    };
    Ok(Asked {
        prepared: subject.conversation.prepare(model, manner)?,
        limit: model.n_predict.map_or(limit, |most| limit.min(most)),
        tells_thoughts: subject.tells_thoughts,
        stream: fields.stream.unwrap_or(false),
        ignored: body.ignored(),
    })
}

/// Tokens of the prompt that a request would have.
pub fn count(model: &ServedModel, bytes: &[u8]) -> Result<(usize, Ignored), ApiError> {
    let mut body = Body::parse(bytes)?;
    model.check_name(&mut body)?;
    refused::known(&mut body)?;
    let subject = subject(&mut body, model)?;
    let tokens = subject.conversation.tokens(model)?;
    Ok((tokens.len(), body.ignored()))
}

/// What a request is about.
struct Subject {
    conversation: Conversation,
    /// What the answer has to be.
    answer: Option<Constraint>,
    tells_thoughts: bool,
}

fn subject(body: &mut Body, model: &ServedModel) -> Result<Subject, ApiError> {
    shapes::look(body);
    body.look_into::<OutputConfig>("output_config");
    let fields: PromptFields = body.read()?;
    if let Some(control) = body.take("cache_control") {
        input::cache_control("", &json!({"cache_control": control}))?;
    }
    let input::Said {
        messages,
        continues,
    } = input::messages(body.take("system"), body.take("messages"))?;
    let tools = tools::read(body.take("tools"), body.take("tool_choice"))?;
    let OutputConfig { effort, format } = fields.output_config.unwrap_or_default();
    let mut thinking = Thinking {
        effort,
        enabled: None,
    };
    let mut budget = None;
    let mut display = None;
    match fields.thinking {
        None => {}
        Some(ThinkingConfig::Disabled) => thinking.enabled = Some(false),
        Some(ThinkingConfig::Enabled {
            budget_tokens,
            display: shown,
        }) => {
            let name = "thinking.budget_tokens";
            budget = Some(integer(name, budget_tokens, 1, i64::MAX)?);
            thinking.enabled = Some(true);
            display = shown;
        }
        Some(ThinkingConfig::Adaptive { display: shown }) => {
            // Thoughts are switched on where they can be: whether to have some is the model's then.
            thinking = thinking.where_possible(&model.text.dialect.habits());
            display = shown;
        }
        Some(ThinkingConfig::BetweenTools) => {
            let message = "`thinking` of type `between_tools` is not supported; send adaptive, enabled \
                           or disabled";
            return Err(ApiError::unsupported("thinking.type", message));
        }
    }
    Ok(Subject {
        conversation: Conversation {
            tools,
            thinking,
            thinking_budget: budget,
            continues,
            template_kwargs: fields.chat_template_kwargs.unwrap_or_default(),
            ..Conversation::new(messages, NAMES)
        },
        answer: constraint::beside(body, answer(format)?, "output_config.format")?,
        tells_thoughts: display != Some(Display::Omitted),
    })
}

/// What `output_config.format` asks for.
fn answer(format: Option<Value>) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = format else {
        return Ok(None);
    };
    if format.get("type").is_none_or(|kind| kind != "json_schema") {
        let path = "output_config.format.type";
        let message = format!("`{path}` must be json_schema");
        return Err(ApiError::invalid(path, message));
    }
    let format = json!({"type": "json_schema", "json_schema": {"schema": format.get("schema")}});
    let mut answer = response_format::parse(Some(format)).map_err(|error| error.renamed(NAMES))?;
    if let Some(answer) = &mut answer {
        answer.field = response_format::SCHEMA;
    }
    Ok(answer)
}
