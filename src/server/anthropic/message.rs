//! A message of the assistant, as it is answered.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::new_id;
use crate::server::openai::usage::{self, Account};

/// Where arguments of a call stand that are no JSON object, as they were written: an `input` has to
/// be an object. Anthropic's guide to streamed calls hands them back to the model under this name.
pub const INVALID_JSON: &str = "INVALID_JSON";

/// Of every thought. Clients drop thoughts that have none; nothing is signed, and nothing is checked
/// when a thought comes back.
pub const SIGNATURE: &str = "mlxcel";

/// The whole answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AnthropicMessage)]
pub struct Message {
    id: String,
    r#type: &'static str,
    role: &'static str,
    /// The model that answers.
    model: String,
    /// Thoughts, text and calls, in their order.
    pub content: Vec<Block>,
    /// Why it ended; null as long as it did not.
    pub stop_reason: Option<StopReason>,
    /// The one of `stop_sequences` that ended it.
    pub stop_sequence: Option<String>,
    /// Tokens.
    pub usage: Usage,
}

impl Message {
    /// Of which nothing is made yet.
    pub fn new(model: &str, prompt_tokens: usize) -> Self {
        Self {
            id: new_id("msg"),
            r#type: "message",
            role: "assistant",
            model: model.to_owned(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: Usage {
                input_tokens: prompt_tokens,
                ..Usage::default()
            },
        }
    }
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = AnthropicBlock)]
pub enum Block {
    /// A part of the answer.
    Text {
        /// What it says.
        text: String,
    },
    /// A thought.
    Thinking {
        /// What it says.
        thinking: String,
        /// Says who made it; it is not checked.
        signature: &'static str,
    },
    /// A call.
    ToolUse {
        /// Made up here, for the result to name.
        id: String,
        /// The function.
        name: String,
        /// Its arguments. Such that are no JSON object are `{"INVALID_JSON": "…"}`.
        #[schema(value_type = Object)]
        input: Map<String, Value>,
    },
}

/// The arguments of a call as an object.
pub fn input(written: &str) -> Map<String, Value> {
    let verbatim = || Map::from_iter([(INVALID_JSON.to_owned(), written.into())]);
    serde_json::from_str(written).unwrap_or_else(|_| verbatim())
}

/// Why a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AnthropicStopReason)]
pub enum StopReason {
    /// The model was done.
    EndTurn,
    /// `max_tokens`, or the server's own limit.
    MaxTokens,
    /// One of `stop_sequences`.
    StopSequence,
    /// The model was done, and calls something.
    ToolUse,
    /// The context is full.
    ModelContextWindowExceeded,
}

/// Tokens. The prompt's are the sum of the three kinds of input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AnthropicUsage)]
pub struct Usage {
    /// Tokens of the prompt that were computed; at the beginning of a stream, all of them.
    pub input_tokens: usize,
    /// Always 0: prompts are kept without being asked, and at no cost.
    pub cache_creation_input_tokens: usize,
    /// Tokens of the prompt that were not computed again.
    pub cache_read_input_tokens: usize,
    /// Tokens generated.
    pub output_tokens: usize,
    /// What they are made of.
    pub output_tokens_details: OutputTokensDetails,
}

/// A part of [`Usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AnthropicOutputTokensDetails)]
pub struct OutputTokensDetails {
    /// Tokens of thoughts.
    pub thinking_tokens: usize,
}

impl From<&Account> for Usage {
    fn from(account: &Account) -> Self {
        let usage::Usage {
            prompt_tokens,
            completion_tokens,
            prompt_tokens_details,
            completion_tokens_details,
            ..
        } = account.usage();
        let cached = prompt_tokens_details.cached_tokens;
        Self {
            input_tokens: prompt_tokens.saturating_sub(cached),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached,
            output_tokens: completion_tokens,
            output_tokens_details: OutputTokensDetails {
                thinking_tokens: completion_tokens_details.reasoning_tokens,
            },
        }
    }
}

/// How long a prompt is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicTokensCount)]
pub struct TokensCount {
    /// With the system prompt and the tools.
    pub input_tokens: usize,
}
