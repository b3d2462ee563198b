//! Fields of the Messages API, and of others, that the server knows and does not honour here.

use serde_json::{Value, json};

use crate::server::body::Body;
use crate::server::error::ApiError;
use crate::server::openai::refused::{EVERYWHERE, Refused, check, is_empty_list};

const MESSAGES: &[Refused] = &[
    ("container", |_| false, "there are no containers here"),
    (
        "context_management",
        is_nothing,
        "conversations are not edited; leave messages out yourself",
    ),
    (
        "diagnostics",
        is_nothing,
        "see `cache_read_input_tokens` of the usage",
    ),
    ("inference_geo", |_| false, "it runs where it runs"),
    (
        "mcp_servers",
        is_empty_list,
        "this server calls no others; offer their tools as `tools`",
    ),
    ("output_format", |_| false, "send `output_config.format`"),
    ("speed", |v| v == "standard", "there is one speed"),
    ("user_profile_id", |_| false, "there are no profiles here"),
    ("workspace_id", |_| false, "there are no workspaces here"),
    ("input", |_| false, "send `messages`"),
    ("instructions", |_| false, "send `system`"),
    ("prompt", |_| false, "send `messages`"),
    ("response_format", |_| false, "send `output_config.format`"),
    ("reasoning_effort", |_| false, "send `output_config.effort`"),
    ("enable_thinking", |_| false, "send `thinking`"),
    ("reasoning", |_| false, "send `thinking`"),
    ("reasoning_format", |_| false, "see `thinking.display`"),
    ("include_reasoning", |_| false, "see `thinking.display`"),
    (
        "thinking_budget",
        |_| false,
        "send `thinking.budget_tokens`",
    ),
    (
        "thinking_token_budget",
        |_| false,
        "send `thinking.budget_tokens`",
    ),
    (
        "thinking_budget_tokens",
        |_| false,
        "send `thinking.budget_tokens`",
    ),
    (
        "reasoning_budget_tokens",
        |_| false,
        "send `thinking.budget_tokens`",
    ),
    ("max_completion_tokens", |_| false, "send `max_tokens`"),
    ("max_tokens_to_sample", |_| false, "send `max_tokens`"),
    ("n_predict", |_| false, "send `max_tokens`"),
    ("stop", is_empty_list, "send `stop_sequences`"),
    ("n", |v| v == &json!(1), "a request has one answer"),
    ("logprobs", |v| v == false, "messages come without them"),
    (
        "parallel_tool_calls",
        |v| v == true,
        "send `tool_choice.disable_parallel_tool_use`",
    ),
    (
        "stream_options",
        is_nothing,
        "a stream always tells its usage; leave it out",
    ),
];

fn is_nothing(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Refuses what is known and cannot be honoured.
pub fn known(body: &mut Body) -> Result<(), ApiError> {
    service_tier(body)?;
    check(body, &[EVERYWHERE, MESSAGES])
}

/// There is one tier, and both of Anthropic's words for what to ask for mean it.
fn service_tier(body: &mut Body) -> Result<(), ApiError> {
    const FIELD: &str = "service_tier";
    match body.take(FIELD) {
        None => Ok(()),
        Some(tier) if tier == "auto" || tier == "standard_only" => Ok(()),
        Some(_) => {
            let message = "`service_tier` must be auto or standard_only";
            Err(ApiError::invalid(FIELD, message))
        }
    }
}
