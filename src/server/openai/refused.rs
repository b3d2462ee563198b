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
    (
        "min_keep",
        |v| v == &json!(0),
        "the filters keep one token at least; leave it out",
    ),
    (
        "adaptive_target",
        |v| v.as_f64().is_some_and(|v| v < 0.0),
        "use temperature, top_p or min_p",
    ),
    (
        "length_penalty",
        |v| v.as_f64() == Some(1.0),
        "there is no beam search to penalize",
    ),
    (
        "allowed_token_ids",
        is_empty_list,
        "use `choice`, `regex` or `grammar`",
    ),
    (
        "bad_words",
        is_empty_list,
        "use `logit_bias` on their tokens",
    ),
    (
        "logits_processors",
        is_empty_list,
        "the server runs no code of a request's",
    ),
    (
        "truncate_prompt_tokens",
        |_| false,
        "shorten the prompt yourself; /v1/responses drops old turns by `truncation`",
    ),
    ("prompt_embeds", |_| false, "prompts are text or tokens"),
    (
        "return_token_ids",
        |v| v == false,
        "answers hold text; see /tokenize",
    ),
    (
        "return_tokens_as_token_ids",
        |v| v == false,
        "logprobs name tokens by their text, and `bytes`",
    ),
    (
        "return_tokens",
        |v| v == false,
        "answers hold text; see /tokenize",
    ),
    (
        "return_progress",
        |v| v == false,
        "see `processed_tokens` of /slots",
    ),
    (
        "timings_per_token",
        |v| v == false,
        "`timings` come at the end",
    ),
    (
        "post_sampling_probs",
        |v| v == false,
        "logprobs are the model's own",
    ),
    ("response_fields", is_empty_list, "answers are told whole"),
    (
        "priority",
        |v| v == &json!(0),
        "requests are served in the order in which they come",
    ),
    (
        "id_slot",
        |v| v == &json!(-1),
        "a request gets the next place that is free",
    ),
    (
        "t_max_predict_ms",
        |v| v.as_i64().is_some_and(|v| v <= 0),
        "use `max_tokens`; see --request-timeout",
    ),
    ("n_indent", |v| v == &json!(0), "use `grammar`"),
    ("lora", is_empty_list, "start the server with --adapter"),
    ("adapters", |_| false, "start the server with --adapter"),
    // What follows changes nothing of an answer, at any value: how a prompt is kept, what is done
    // with a context that is full, what belongs to samplers that are off.
    ("cache_prompt", |_| true, ""),
    ("n_cache_reuse", |_| true, ""),
    ("n_keep", |_| true, ""),
    ("n_discard", |_| true, ""),
    ("spaces_between_special_tokens", |_| true, ""),
    ("mirostat_tau", |_| true, ""),
    ("mirostat_eta", |_| true, ""),
    ("dynatemp_exponent", |_| true, ""),
    ("adaptive_decay", |_| true, ""),
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
        "reasoning_format",
        |v| v == "none",
        "the output is told as it is; send messages to /v1/chat/completions",
    ),
    (
        "add_special_tokens",
        |v| v == true,
        "send token ids to have no special tokens added",
    ),
    ("image_data", is_empty_list, "this server reads text only"),
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
        "add_special_tokens",
        |v| v == false,
        "the template writes the special tokens",
    ),
    (
        "documents",
        is_empty_list,
        "send them as `chat_template_kwargs.documents`",
    ),
    (
        "mm_processor_kwargs",
        |_| false,
        "this server reads text only",
    ),
    (
        "parse_tool_calls",
        |v| v == true,
        "leave out `tools` to have calls as text",
    ),
    ("role_mapping", |_| false, "the template writes the roles"),
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

    /// Each field of vLLM's, llama-server's and OpenAI's that is known and not honoured: values that
    /// ask for nothing, and one that does; `null` where there is none.
    fn cases() -> Vec<(&'static str, Value, Value)> {
        vec![
            ("service_tier", json!("auto"), json!("flex")),
            ("moderation", json!(null), json!({})),
            ("prompt_cache_retention", json!("in_memory"), json!("24h")),
            ("chat_template", json!(null), json!("{{ messages }}")),
            ("include_stop_str_in_output", json!(false), json!(true)),
            ("skip_special_tokens", json!(true), json!(false)),
            ("use_beam_search", json!(false), json!(true)),
            ("prompt_logprobs", json!(0), json!(1)),
            ("n_probs", json!(0), json!(3)),
            ("samplers", json!(null), json!(["top_k"])),
            ("mirostat", json!(0), json!(2)),
            ("mirostat_tau", json!(5.0), json!(null)),
            ("top_n_sigma", json!(-1), json!(1.5)),
            ("dynatemp_range", json!(0.0), json!(0.5)),
            ("min_keep", json!(0), json!(2)),
            ("length_penalty", json!(1.0), json!(0.5)),
            ("allowed_token_ids", json!([]), json!([1])),
            ("bad_words", json!([]), json!(["a"])),
            ("truncate_prompt_tokens", json!(null), json!(-1)),
            ("return_token_ids", json!(false), json!(true)),
            ("return_tokens_as_token_ids", json!(false), json!(true)),
            ("return_progress", json!(false), json!(true)),
            ("timings_per_token", json!(false), json!(true)),
            ("post_sampling_probs", json!(false), json!(true)),
            ("priority", json!(0), json!(-1)),
            ("id_slot", json!(-1), json!(0)),
            ("t_max_predict_ms", json!(-1), json!(100)),
            ("lora", json!([]), json!([{"id": 0, "scale": 1}])),
            ("cache_prompt", json!(false), json!(null)),
            ("n_keep", json!(-1), json!(null)),
            ("store", json!(false), json!(true)),
        ]
    }

    #[test]
    fn known_fields_are_refused_by_name_and_their_neutral_values_pass() {
        let both = [
            ("chat", chat as fn(&mut Body) -> _),
            ("completions", completions),
        ];
        let chat_only = [
            ("functions", json!([]), json!([{}])),
            ("function_call", json!("none"), json!("auto")),
            ("modalities", json!(["text"]), json!(["audio"])),
            ("audio", json!(null), json!({})),
            ("best_of", json!(1), json!(2)),
            ("echo", json!(false), json!(true)),
            ("verbosity", json!("medium"), json!("low")),
            ("documents", json!([]), json!([{"text": "a"}])),
            ("add_special_tokens", json!(false), json!(true)),
        ];
        let completions_only = [
            ("reasoning_format", json!("none"), json!("deepseek")),
            ("suffix", json!(""), json!("x")),
            ("add_special_tokens", json!(true), json!(false)),
        ];
        let of = |cases: Vec<_>, routes: &[_]| -> Vec<_> {
            let with = |case: (&'static str, Value, Value)| {
                routes
                    .iter()
                    .map(move |route| (*route, case.clone()))
                    .collect::<Vec<_>>()
            };
            cases.into_iter().flat_map(with).collect()
        };
        let mut all = of(cases(), &both);
        all.extend(of(chat_only.into(), &both[..1]));
        all.extend(of(completions_only.into(), &both[1..]));
        for ((route, check), (name, harmless, harmful)) in all {
            let with = |value: &Value| {
                let mut body = Body::parse(json!({ name: value }).to_string().as_bytes()).unwrap();
                check(&mut body).map(|()| body.ignored())
            };
            for value in [&harmless, &Value::Null] {
                let ignored =
                    with(value).unwrap_or_else(|error| panic!("{route} {name}: {error:?}"));
                assert!(ignored.is_empty(), "{route} {name} is known");
            }
            if !harmful.is_null() {
                let error = with(&harmful)
                    .err()
                    .unwrap_or_else(|| panic!("{route} takes {name}"));
                let (code, param) = (error.code(), error.param());
                assert_eq!((code, param), (Some("unsupported_parameter"), Some(name)));
            }
        }
    }
}
