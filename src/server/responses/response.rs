//! A response: the object that clients create, read and continue.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::item::Item;
use crate::server::clock::unix_seconds;
use crate::server::error::ApiError;
use crate::server::openai::usage::{TimingsOut, Usage};
use crate::server::thinking::Effort;

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseStatus)]
pub enum Status {
    /// It waits.
    Queued,
    /// It is made.
    InProgress,
    /// It is whole.
    Completed,
    /// It was cut off by a limit.
    Incomplete,
    /// The model failed.
    Failed,
    /// Its client gave it up.
    Cancelled,
}

impl Status {
    /// Whether it stays like this.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::InProgress)
    }
}

/// The object.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Response {
    /// `resp_…`
    pub id: String,
    /// `response`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: u64,
    /// The same, once it is whole.
    pub completed_at: Option<u64>,
    /// How far it is.
    pub status: Status,
    /// Why it failed.
    pub error: Option<Failure>,
    /// Why it is not whole.
    pub incomplete_details: Option<Incomplete>,
    /// The model that answers.
    pub model: String,
    /// What was made.
    pub output: Vec<Item>,
    /// Tokens, once it ended.
    pub usage: Option<ResponseUsage>,
    /// Times, once it ended: llama-server's object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<TimingsOut>,
    /// What the request said.
    #[serde(flatten)]
    pub settings: Settings,
}

/// What a request said, or what holds where it said nothing.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ResponseSettings)]
pub struct Settings {
    /// Whether it is made while nobody waits.
    pub background: bool,
    /// What the model is told before anything else.
    pub instructions: Option<String>,
    /// Most tokens.
    pub max_output_tokens: Option<usize>,
    /// Most calls of tools that a server makes itself; there are none here.
    pub max_tool_calls: Option<usize>,
    /// The client's own notes.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Whether several calls may be made.
    pub parallel_tool_calls: bool,
    /// What it continues.
    pub previous_response_id: Option<String>,
    /// A hint for caches; it changes nothing here.
    pub prompt_cache_key: Option<String>,
    /// How hard to think.
    pub reasoning: ReasoningSettings,
    /// Whom it is for.
    pub safety_identifier: Option<String>,
    /// `default`
    pub service_tier: &'static str,
    /// Whether it is kept.
    pub store: bool,
    /// The temperature.
    pub temperature: f32,
    /// What the text has to be.
    pub text: Value,
    /// Whether something has to be called.
    pub tool_choice: Value,
    /// What can be called.
    pub tools: Value,
    /// Likeliest tokens reported with each token.
    pub top_logprobs: usize,
    /// The nucleus.
    pub top_p: f32,
    /// Whether a conversation that is too long loses its beginning.
    pub truncation: Truncation,
    /// Whom it is for, in the older word.
    pub user: Option<String>,
}

/// Of [`Settings`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseReasoningSettings)]
pub struct ReasoningSettings {
    /// As asked.
    pub effort: Option<Effort>,
    /// Never: thoughts are told in full.
    #[schema(value_type = Option<Object>)]
    pub summary: Option<()>,
}

/// What happens to a conversation that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseTruncation)]
pub enum Truncation {
    /// It loses its oldest turns.
    Auto,
    /// It is refused.
    #[default]
    Disabled,
}

/// Why a response failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseFailure)]
pub struct Failure {
    /// OpenAI's word.
    pub code: &'static str,
    /// For a person.
    pub message: String,
}

/// Why a response is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseIncomplete)]
pub struct Incomplete {
    /// `max_output_tokens`, also where the context was full.
    pub reason: &'static str,
}

/// Tokens, by this API's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputTokens,
    output_tokens: usize,
    output_tokens_details: OutputTokens,
    total_tokens: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseInputTokens)]
struct InputTokens {
    cached_tokens: usize,
    /// Always 0: nobody pays for what the prefix cache keeps.
    cache_write_tokens: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseOutputTokens)]
struct OutputTokens {
    reasoning_tokens: usize,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokens {
                cached_tokens: usage.prompt_tokens_details.cached_tokens,
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokens {
                reasoning_tokens: usage.completion_tokens_details.reasoning_tokens,
            },
            total_tokens: usage.total_tokens,
        }
    }
}

impl Response {
    /// One of which nothing is made yet.
    pub fn new(model: &str, settings: Settings) -> Self {
        Self {
            id: super::new_id("resp"),
            object: "response",
            created_at: unix_seconds(),
            completed_at: None,
            status: if settings.background {
                Status::Queued
            } else {
                Status::InProgress
            },
            error: None,
            incomplete_details: None,
            model: model.to_owned(),
            output: Vec::new(),
            usage: None,
            timings: None,
            settings,
        }
    }

    /// It was ended early; what was made of it stays.
    pub fn cancel(&mut self) {
        self.status = Status::Cancelled;
        for item in &mut self.output {
            item.cut_off();
        }
    }

    /// It failed.
    pub fn fail(&mut self, error: &ApiError) {
        self.status = Status::Failed;
        self.error = Some(Failure {
            code: "server_error",
            message: error.message().to_owned(),
        });
    }
}

#[cfg(test)]
pub mod tests {
    //! What tests of other modules share.

    use super::*;

    /// Settings of a request that says nothing.
    pub fn settings() -> Settings {
        Settings {
            background: false,
            instructions: None,
            max_output_tokens: None,
            max_tool_calls: None,
            metadata: Map::new(),
            parallel_tool_calls: true,
            previous_response_id: None,
            prompt_cache_key: None,
            reasoning: ReasoningSettings::default(),
            safety_identifier: None,
            service_tier: "default",
            store: true,
            temperature: 1.0,
            text: Value::Null,
            tool_choice: "auto".into(),
            tools: Value::Array(Vec::new()),
            top_logprobs: 0,
            top_p: 1.0,
            truncation: Truncation::Disabled,
            user: None,
        }
    }
}
