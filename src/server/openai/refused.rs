//! Fields that the server knows and does not honour: an error, never silence.

use serde_json::{Value, json};

use crate::server::body::Body;
use crate::server::error::ApiError;

/// A field, the values that ask for nothing beyond what happens anyway, and what to do instead.
pub type Refused = (&'static str, fn(&Value) -> bool, &'static str);

/// By every API.
pub const EVERYWHERE: &[Refused] = &[
    (
        "service_tier",
        |v| v == "auto" || v == "default",
        "there are no tiers here; leave it out",
    ),
    (
        "moderation",
        |_| false,
        "there is no moderation here; leave it out",
    ),
    (
        "prompt_cache_options",
        |_| false,
        "the prefix cache is the server's to set up; see `cache_salt`",
    ),
    (
        "prompt_cache_retention",
        |v| v == "in_memory",
        "the prefix cache is in memory; send `in_memory` or leave it out",
    ),
    (
        "chat_template",
        |_| false,
        "the model's own template is used; see `chat_template_kwargs`",
    ),
    (
        "continue_final_message",
        |v| v == false,
        "a message is always begun anew; send text to be continued to /v1/completions",
    ),
    (
        "stop_token_ids",
        is_empty_list,
        "use `stop` with their text",
    ),
    (
        "min_tokens",
        |v| v == &json!(0),
        "use `logit_bias` on the stop tokens",
    ),
    (
        "include_stop_str_in_output",
        |v| v == false,
        "a stop string is never part of the output",
    ),
    (
        "skip_special_tokens",
        |v| v == true,
        "special tokens are never part of the output",
    ),
    (
        "use_beam_search",
        |v| v == false,
        "use `best_of` of /v1/completions",
    ),
    (
        "prompt_logprobs",
        |v| v == &json!(0),
        "use `echo` with `logprobs` of /v1/completions",
    ),
    ("n_probs", |v| v == &json!(0), "use `logprobs`"),
    (
        "samplers",
        |_| false,
        "the order of the samplers is fixed; leave it out",
    ),
    (
        "ignore_eos",
        |v| v == false,
        "a stop token always ends the output",
    ),
    (
        "mirostat",
        |v| v == &json!(0),
        "use temperature, top_p or min_p",
    ),
    (
        "top_n_sigma",
        |v| v.as_f64().is_some_and(|v| v <= 0.0),
        "use top_p or min_p",
    ),
    (
        "dynatemp_range",
        |v| v.as_f64() == Some(0.0),
        "use temperature",
    ),
];

const STORE: Refused = (
    "store",
    |v| v == false,
    "only /v1/responses keeps what it makes; leave it out",
);

const COMPLETIONS: &[Refused] = &[
    STORE,
    (
        "suffix",
        |v| v == "",
        "text is only continued, not filled in",
    ),
    (
        "messages",
        |_| false,
        "send messages to /v1/chat/completions",
    ),
];

const CHAT: &[Refused] = &[
    STORE,
    (
        "best_of",
        |v| v == &json!(1),
        "send `n` and choose on your side",
    ),
    ("echo", |v| v == false, "send the prompt to /v1/completions"),
    ("prompt", |_| false, "send prompts to /v1/completions"),
    (
        "functions",
        is_empty_list,
        "functions are superseded by `tools`",
    ),
    (
        "function_call",
        |v| v == "none",
        "functions are superseded by `tools`",
    ),
    (
        "modalities",
        |v| v == &json!(["text"]),
        "the output is text only",
    ),
    ("audio", |_| false, "the output is text only"),
    (
        "prediction",
        |_| false,
        "predicted outputs are not supported; leave it out",
    ),
    (
        "web_search_options",
        |_| false,
        "there is no web search here; leave it out",
    ),
    (
        "verbosity",
        |v| v == "medium",
        "say in the prompt how long the answer should be",
    ),
];

/// Whether a value is a list without anything in it.
pub fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// Refuses what `/v1/completions` knows and cannot honour.
pub fn completions(body: &mut Body) -> Result<(), ApiError> {
    check(body, &[EVERYWHERE, COMPLETIONS])
}

/// Refuses what `/v1/chat/completions` knows and cannot honour.
pub fn chat(body: &mut Body) -> Result<(), ApiError> {
    check(body, &[EVERYWHERE, CHAT])
}

/// Refuses the fields of the lists, but for values that change nothing.
pub fn check(body: &mut Body, lists: &[&[Refused]]) -> Result<(), ApiError> {
    for (name, harmless, instead) in lists.iter().copied().flatten() {
        body.know([*name]);
        if body.get(name).is_some_and(|value| !harmless(value)) {
            let message = format!("`{name}` is not supported: {instead}");
            return Err(ApiError::unsupported(name, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_fields_are_refused_by_name_and_their_neutral_values_pass() {
        let mut body =
            Body::parse(br#"{"mirostat": 0, "top_n_sigma": -1, "suffix": null}"#).unwrap();
        completions(&mut body).unwrap();
        for field in [
            r#""mirostat": 2"#,
            r#""top_n_sigma": 1.5"#,
            r#""suffix": "x""#,
            r#""ignore_eos": true"#,
        ] {
            let mut body = Body::parse(format!("{{{field}}}").as_bytes()).unwrap();
            let error = completions(&mut body).unwrap_err();
            assert_eq!(error.code(), Some("unsupported_parameter"), "{field}");
            assert!(field.contains(error.param().unwrap()), "{field}");
        }
    }

    #[test]
    fn chat_refuses_audio_and_functions() {
        for field in [
            r#""functions": [{}]"#,
            r#""modalities": ["audio"]"#,
            r#""audio": {}"#,
            r#""best_of": 2"#,
            r#""echo": true"#,
        ] {
            let mut body = Body::parse(format!("{{{field}}}").as_bytes()).unwrap();
            assert!(chat(&mut body).is_err(), "{field}");
        }
    }
}
