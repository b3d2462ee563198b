//! A request for a response, from its body to a job.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::response::{ReasoningSettings, Response, Settings, Status, Truncation};
use super::store::{Kept, Store};
use super::{input, refused, shapes, text, tools, truncation};
use crate::server::auth::KeyId;
use crate::server::body::{Body, Ignored};
use crate::server::conversation::{Conversation, FieldNames, Manner, Prepared};
use crate::server::error::ApiError;
use crate::server::model::ServedModel;
use crate::server::openai::completions::needs_stream;
use crate::server::openai::logprobs::MAX_TOP;
use crate::server::openai::ranges::integer;
use crate::server::openai::reasoning::BudgetFields;
use crate::server::openai::sampling::SamplingFields;
use crate::server::openai::{constraint, messages, metadata};
use crate::server::terms::Terms;
use crate::server::thinking::{Effort, Thinking};

/// What fields are called here.
const NAMES: FieldNames = &[
    ("messages", "input"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
];

const LOGPROBS: &str = "message.output_text.logprobs";

/// What can be included: logprobs, and thoughts for those who keep the conversation themselves. They
/// are told in the open, so there is nothing to encrypt.
const INCLUDES: [&str; 2] = [LOGPROBS, "reasoning.encrypted_content"];

/// The request's own fields. `input`, `tools`, `tool_choice` and `text` are taken out of the body by
/// themselves.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[allow(dead_code, reason = "some fields are only checked for their type")]
pub struct ResponseFields {
    model: Option<String>,
    background: Option<bool>,
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Value>>,
    enable_thinking: Option<bool>,
    include: Option<Vec<String>>,
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    max_tool_calls: Option<i64>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    parallel_tool_calls: Option<bool>,
    previous_response_id: Option<String>,
    prompt_cache_key: Option<String>,
    reasoning: Option<ReasoningFields>,
    safety_identifier: Option<String>,
    store: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamFields>,
    top_logprobs: Option<i64>,
    truncation: Option<Truncation>,
    user: Option<String>,
}

/// How it is streamed; nothing here pads its events.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = ResponseStreamOptions)]
#[allow(dead_code, reason = "only checked for its type")]
struct StreamFields {
    include_obfuscation: Option<bool>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = ResponseReasoningFields)]
struct ReasoningFields {
    effort: Option<Effort>,
    /// Most tokens of a thought; -1 is any number.
    max_tokens: Option<i64>,
    summary: Option<String>,
    generate_summary: Option<String>,
    context: Option<String>,
    mode: Option<String>,
}

/// A request that makes sense.
pub struct Asked {
    /// On its way to the engine.
    pub prepared: Prepared,
    /// The response to be, and what it answers.
    pub kept: Kept,
    /// Whether tokens come with logprobs.
    pub logprobs: bool,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Fields that nothing knew.
    pub ignored: Ignored,
}

/// Reads a request. Slow for large ones.
pub fn read(
    model: &ServedModel,
    store: &Store,
    owner: KeyId,
    bytes: &[u8],
    terms: Terms,
) -> Result<Asked, ApiError> {
    let mut body = Body::parse(bytes)?;
    model.check_name(&mut body)?;
    let terms = terms.read(&mut body)?;
    refused::known(&mut body)?;
    shapes::look(&mut body);
    let fields: ResponseFields = body.read()?;
    let sampling: SamplingFields = body.read()?;
    let vocab = model.engine.model().vocab_size;
    let mut sampling = sampling.resolve(&model.text.defaults.0, vocab)?;
    sampling.max_tokens = at_least_one("max_output_tokens", fields.max_output_tokens)?;
    let logprobs = fields.logprobs()?;
    let stream = fields.stream()?;
    let (answer, text) = text::read(body.take("text"))?;
    let answer = constraint::beside(&mut body, answer, "text.format")?;
    let Subject {
        conversation,
        input,
        definitions,
        choice,
    } = subject(&mut body, &fields, store, owner)?;
    let settings = Settings {
        max_output_tokens: sampling.max_tokens,
        temperature: sampling.params.temperature,
        top_p: sampling.params.top_p,
        text,
        tool_choice: choice,
        tools: definitions,
        top_logprobs: logprobs.unwrap_or(0),
        ..fields.settings()?
    };
    let conversation = match settings.truncation {
        Truncation::Disabled => conversation,
        Truncation::Auto => {
            let context = model.engine.context_length();
            // Room for the answer: what was asked for, within reason.
            let room = sampling.max_tokens.unwrap_or(context / 4).min(context / 2);
            truncation::fit(conversation, model, context.saturating_sub(room.max(1)))?
        }
    };
    let manner = Manner {
        answer,
        sampling,
        logprobs,
        terms,
    };
    Ok(Asked {
        prepared: conversation.prepare(model, manner)?,
        kept: Kept {
            response: Response::new(&model.id, settings),
            input,
        },
        logprobs: logprobs.is_some(),
        stream,
        ignored: body.ignored(),
    })
}

/// Tokens of the prompt that a request would have.
pub fn count(
    model: &ServedModel,
    store: &Store,
    owner: KeyId,
    bytes: &[u8],
) -> Result<(usize, Ignored), ApiError> {
    let mut body = Body::parse(bytes)?;
    model.check_name(&mut body)?;
    refused::known(&mut body)?;
    shapes::look(&mut body);
    let fields: ResponseFields = body.read()?;
    let (answer, _) = text::read(body.take("text"))?;
    constraint::beside(&mut body, answer, "text.format")?;
    let subject = subject(&mut body, &fields, store, owner)?;
    let tokens = subject.conversation.tokens(model)?;
    Ok((tokens.len(), body.ignored()))
}

/// What a request is about.
struct Subject {
    conversation: Conversation,
    /// All its items.
    input: Vec<Arc<Value>>,
    definitions: Value,
    choice: Value,
}

fn subject(
    body: &mut Body,
    fields: &ResponseFields,
    store: &Store,
    owner: KeyId,
) -> Result<Subject, ApiError> {
    body.look_into::<ReasoningFields>("reasoning");
    body.look_into::<StreamFields>("stream_options");
    let budget: BudgetFields = body.read()?;
    let most = fields.reasoning.as_ref().and_then(|it| it.max_tokens);
    let mut input = fields.previous(store, owner)?;
    let find = |id: &str| store.item(owner, id);
    input.extend(input::items(body.take("input"), find)?);
    let messages = input::messages(fields.instructions.as_deref(), &input);
    let messages = messages::normalize(messages).map_err(|error| error.renamed(NAMES))?;
    let offer = tools::read(
        body.take("tools"),
        body.take("tool_choice"),
        fields.parallel_tool_calls,
    )?;
    let conversation = Conversation {
        tools: offer.tools,
        thinking: fields.thinking()?,
        thinking_budget: budget.resolve(most)?,
        template_kwargs: fields.chat_template_kwargs.clone().unwrap_or_default(),
        ..Conversation::new(messages, NAMES)
    };
    Ok(Subject {
        conversation,
        input,
        definitions: offer.definitions,
        choice: offer.choice,
    })
}

impl ResponseFields {
    fn previous(&self, store: &Store, owner: KeyId) -> Result<Vec<Arc<Value>>, ApiError> {
        let Some(id) = &self.previous_response_id else {
            return Ok(Vec::new());
        };
        let field = "previous_response_id";
        let Some(kept) = store.get(owner, id) else {
            return Err(ApiError::previous_response_not_found(id));
        };
        match kept.response.status {
            Status::Completed | Status::Incomplete => Ok(kept.conversation().collect()),
            _ => {
                let message = format!("the response `{id}` did not come to an end");
                Err(ApiError::invalid(field, message))
            }
        }
    }

    fn stream(&self) -> Result<bool, ApiError> {
        let stream = self.stream.unwrap_or(false);
        needs_stream(stream, self.stream_options.is_some())?;
        if stream && self.background == Some(true) {
            let message =
                "a background response is not streamed; send one of `background`, `stream`";
            return Err(ApiError::unsupported("background", message));
        }
        Ok(stream)
    }

    fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        let include = self.include.as_deref().unwrap_or_default();
        for (index, name) in include.iter().enumerate() {
            includable(&format!("include[{index}]"), name)?;
        }
        let top = self.top_logprobs.unwrap_or(0);
        let top = integer("top_logprobs", top, 0, MAX_TOP)?;
        let wanted = top > 0 || include.iter().any(|name| name == LOGPROBS);
        Ok(wanted.then_some(top))
    }

    fn thinking(&self) -> Result<Thinking, ApiError> {
        let Some(reasoning) = &self.reasoning else {
            return Ok(Thinking {
                effort: None,
                enabled: self.enable_thinking,
            });
        };
        let only = |name: &str, value: &Option<String>, harmless: &str, instead: &str| match value {
            Some(value) if value != harmless => {
                let path = format!("reasoning.{name}");
                let message = format!("`{path}` can only be `{harmless}`: {instead}");
                Err(ApiError::unsupported(&path, message))
            }
            _ => Ok(()),
        };
        let in_full = "thoughts are told in full, as `content` of reasoning items";
        only("summary", &reasoning.summary, "auto", in_full)?;
        only(
            "generate_summary",
            &reasoning.generate_summary,
            "auto",
            in_full,
        )?;
        let template = "the model's template decides";
        only("context", &reasoning.context, "auto", template)?;
        only("mode", &reasoning.mode, "standard", "there is one mode")?;
        Ok(Thinking {
            effort: reasoning.effort,
            enabled: self.enable_thinking,
        })
    }

    /// What the response repeats, as far as it stands in these fields.
    fn settings(self) -> Result<Settings, ApiError> {
        let background = self.background.unwrap_or(false);
        let store = self.store.unwrap_or(true);
        if background && !store {
            let message =
                "a background response has to be kept to be read; leave out `store: false`";
            return Err(ApiError::invalid("store", message));
        }
        let effort = self.reasoning.and_then(|reasoning| reasoning.effort);
        Ok(Settings {
            background,
            instructions: self.instructions,
            max_output_tokens: None,
            max_tool_calls: at_least_one("max_tool_calls", self.max_tool_calls)?,
            metadata: metadata::checked(self.metadata)?,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            previous_response_id: self.previous_response_id,
            prompt_cache_key: self.prompt_cache_key,
            reasoning: ReasoningSettings {
                effort,
                summary: None,
            },
            safety_identifier: self.safety_identifier,
            service_tier: "default",
            store,
            temperature: 1.0,
            text: Value::Null,
            tool_choice: Value::Null,
            tools: Value::Null,
            top_logprobs: 0,
            top_p: 1.0,
            truncation: self.truncation.unwrap_or_default(),
            user: self.user,
        })
    }
}

/// Refuses to include what there is not. What there is comes unasked, if it was made at all.
pub fn includable(path: &str, name: &str) -> Result<(), ApiError> {
    if INCLUDES.contains(&name) {
        return Ok(());
    }
    let message = format!("`{name}` cannot be included; {} can", INCLUDES.join(", "));
    Err(ApiError::unsupported(path, message))
}

fn at_least_one(name: &str, value: Option<i64>) -> Result<Option<usize>, ApiError> {
    value
        .map(|value| integer(name, value, 1, i64::MAX))
        .transpose()
}
