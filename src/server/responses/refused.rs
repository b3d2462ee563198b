//! Fields of the Responses API that the server knows and does not honour.

use serde_json::Value;

use crate::server::body::Body;
use crate::server::error::ApiError;
use crate::server::openai::refused::{EVERYWHERE, Refused, check, is_empty_list};

const RESPONSES: &[Refused] = &[
    (
        "access_programs",
        |_| false,
        "there are none here; leave it out",
    ),
    (
        "background_options",
        |v| v == &serde_json::json!({"completion_window": "soonest"}),
        "background responses are made at once; leave it out",
    ),
    (
        "context_management",
        is_empty_list,
        "conversations are not compacted; see `truncation`",
    ),
    (
        "conversation",
        |_| false,
        "conversations are not kept by themselves; use `previous_response_id`",
    ),
    ("image", |_| false, "this server reads text only"),
    (
        "prompt",
        |_| false,
        "prompts are not kept; send `input` and `instructions`",
    ),
    ("messages", |_| false, "send `input`"),
    ("response_format", |_| false, "send `text.format`"),
    ("max_tokens", |_| false, "send `max_output_tokens`"),
    (
        "max_completion_tokens",
        |_| false,
        "send `max_output_tokens`",
    ),
    ("n_predict", |_| false, "send `max_output_tokens`"),
    ("reasoning_effort", |_| false, "send `reasoning.effort`"),
    (
        "reasoning_format",
        |v| v == "auto" || v == "deepseek",
        "thoughts are reasoning items",
    ),
    (
        "include_reasoning",
        |v| v == true,
        "thoughts are reasoning items",
    ),
    (
        "logprobs",
        |v| v == false,
        "send `include: [\"message.output_text.logprobs\"]` and `top_logprobs`",
    ),
    ("n", |v| v == &Value::from(1), "a response is one output"),
    (
        "functions",
        is_empty_list,
        "functions are superseded by `tools`",
    ),
];

/// Refuses what is known and cannot be honoured.
pub fn known(body: &mut Body) -> Result<(), ApiError> {
    check(body, &[EVERYWHERE, RESPONSES])
}
