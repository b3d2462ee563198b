//! Bodies of any shape.

use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ask, engine, request, serving};
use crate::engine::EngineHandle;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..30).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "user|text|auto|none|json_object|json_schema|integer|[0-9]{1,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let keys = "role|content|type|text|schema|json_schema|function|name|[0-9]{1,4}|.{0,4}";
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((keys, inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn body() -> impl Strategy<Value = Value> {
    let names = "prompt|messages|input|instructions|system|thinking|output_config|stop_sequences|text|reasoning|truncation|include|n|stop|temperature|top_p|top_k|min_p|seed|logit_bias|logprobs|\
                 top_logprobs|stream|stream_options|response_format|regex|choice|grammar|json_schema|max_tokens|repeat_last_n|\
                 repetition_penalty|tools|tool_choice|parallel_tool_calls|chat_template_kwargs|user|metadata|.{0,6}";
    let names = names.replace(char::is_whitespace, "");
    let fields = vec(
        (proptest::string::string_regex(&names).unwrap(), value()),
        0..6,
    );
    fields.prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever a client sends is answered, or its fault is named: never a 500.
    #[test]
    fn is_answered_or_refused(mut body in body(), api in 0..3) {
        // Its own engine: as many outputs as fit are asked for at once, and others would be refused.
        static ENGINE: OnceLock<EngineHandle> = OnceLock::new();
        let engine = ENGINE.get_or_init(|| engine(4, 16)).clone();
        let router = super::super::router(serving(engine, |_| {}));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (path, field, valid, most) = match api {
            0 => ("/v1/completions", "prompt", json!("a"), "max_tokens"),
            1 => {
                let valid = json!([{"role": "user", "content": "a"}]);
                ("/v1/chat/completions", "messages", valid, "max_completion_tokens")
            }
            _ => ("/v1/responses", "input", json!("a"), "max_output_tokens"),
        };
        body[most] = json!(1);
        body.as_object_mut().unwrap().entry(field).or_insert(valid);
        let answer = runtime.block_on(ask(&router, request("POST", path, body.to_string())));
        prop_assert!(matches!(answer.status.as_u16(), 200 | 400), "{}", answer.text);
    }
}
