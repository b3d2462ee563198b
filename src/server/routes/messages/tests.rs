//! The Messages API on the real engine with the built-in model.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use super::super::tests::{Answer, ask, dir, engine, request, router, serving};
use crate::engine::tests::FAILS;
use crate::server::anthropic::message::SIGNATURE;
use crate::server::model::TextFiles;
use crate::text::ChatTemplate;

const PATH: &str = "/v1/messages";

fn body(fields: Value) -> Value {
    let mut body = json!({"model": "mlxcel-tiny", "max_tokens": 48, "temperature": 0,
                          "messages": [{"role": "user", "content": "Hello!"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn post(router: &Router, path: &str, body: &Value) -> Answer {
    ask(router, request("POST", path, body.to_string())).await
}

async fn create(router: &Router, fields: Value) -> Value {
    let answer = post(router, PATH, &body(fields)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// The events of a stream, each under its own name.
async fn stream(router: &Router, fields: Value) -> Vec<Value> {
    let mut body = body(fields);
    body["stream"] = json!(true);
    let answer = post(router, PATH, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let names = answer
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "));
    let events: Vec<Value> = answer
        .events()
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let types: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(names.collect::<Vec<_>>(), types, "{}", answer.text);
    events
}

/// What a client makes of the events.
fn accumulated(events: &[Value]) -> Value {
    let mut message = events[0]["message"].clone();
    let mut json = String::new();
    for event in events {
        let index = event["index"].as_u64().unwrap_or_default() as usize;
        let delta = &event["delta"];
        let append = |value: &mut Value, more: &Value| {
            *value = json!([value.as_str().unwrap(), more.as_str().unwrap()].concat());
        };
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                json.clear();
                let block = event["content_block"].clone();
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!(content.len(), index);
                content.push(block);
            }
            "content_block_delta" => {
                let block = &mut message["content"][index];
                match delta["type"].as_str().unwrap() {
                    "text_delta" => append(&mut block["text"], &delta["text"]),
                    "thinking_delta" => append(&mut block["thinking"], &delta["thinking"]),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "input_json_delta" => json.push_str(delta["partial_json"].as_str().unwrap()),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                let block = &mut message["content"][index];
                if block["type"] == "tool_use" {
                    block["input"] = serde_json::from_str(&json).unwrap();
                }
            }
            "message_delta" => {
                message["stop_reason"] = delta["stop_reason"].clone();
                message["stop_sequence"] = delta["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            _ => {}
        }
    }
    assert_eq!(events[events.len() - 1]["type"], "message_stop");
    message
}

/// Without what differs each time.
fn anonymous(mut message: Value) -> Value {
    message["id"] = Value::Null;
    message["usage"] = Value::Null;
    for block in message["content"].as_array_mut().unwrap() {
        if block["type"] == "tool_use" {
            assert!(block["id"].as_str().unwrap().starts_with("toolu_"));
            block["id"] = Value::Null;
        }
    }
    message
}

fn paint() -> Value {
    json!([{"name": "paint", "description": "Paint the wall", "input_schema": {
        "type": "object", "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"], "additionalProperties": false}}])
}

#[tokio::test]
async fn a_stream_tells_the_whole_message() {
    let router = router();
    for fields in [
        json!({}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 24}}),
        json!({"tools": paint(), "tool_choice": {"type": "any", "disable_parallel_tool_use": true}}),
        json!({"max_tokens": 2}),
    ] {
        let whole = create(&router, fields.clone()).await;
        let events = stream(&router, fields.clone()).await;
        let message = accumulated(&events);
        assert_eq!(anonymous(message), anonymous(whole.clone()), "{fields}");
        let usage = &whole["usage"];
        let input = |kind: &str| usage[kind].as_u64().unwrap();
        let prompt = input("input_tokens") + input("cache_read_input_tokens");
        let begun = &events[0]["message"]["usage"];
        assert_eq!(begun["input_tokens"], prompt);
        assert_eq!(begun["output_tokens"], 0);
        let mut counted = body(fields);
        counted.as_object_mut().unwrap().remove("max_tokens");
        let count = post(&router, "/v1/messages/count_tokens", &counted).await;
        assert_eq!(count.json(), json!({"input_tokens": prompt}));
    }
}

#[tokio::test]
async fn the_reason_says_what_ended_it() {
    let router = router();
    let whole = create(&router, json!({})).await;
    assert_eq!(
        (&whole["stop_reason"], &whole["stop_sequence"]),
        (&json!("end_turn"), &Value::Null)
    );
    let text = whole["content"][0]["text"].as_str().unwrap();
    let (before, stop) = text.split_at(text.char_indices().nth(4).unwrap().0);
    let cut = create(&router, json!({"stop_sequences": ["nowhere", stop]})).await;
    assert_eq!(cut["content"][0]["text"], before);
    assert_eq!(
        (&cut["stop_reason"], &cut["stop_sequence"]),
        (&json!("stop_sequence"), &json!(stop))
    );
    let short = create(&router, json!({"max_tokens": 1})).await;
    assert_eq!(short["stop_reason"], "max_tokens");
    assert_eq!(short["usage"]["output_tokens"], 1);
    let nothing = create(&router, json!({"max_tokens": 0})).await;
    assert_eq!(nothing["content"], json!([]));
    let stops = std::fs::read(dir().join("generation_config.json")).unwrap();
    let stops: Value = serde_json::from_slice(&stops).unwrap();
    let mut bias = json!({});
    for id in stops["eos_token_id"].as_array().unwrap() {
        bias[id.to_string()] = json!(-100);
    }
    let full = create(&router, json!({"max_tokens": 100_000, "logit_bias": bias})).await;
    assert_eq!(full["stop_reason"], "model_context_window_exceeded");
}

#[tokio::test]
async fn thoughts_have_a_budget_and_can_be_hidden() {
    let router = router();
    let thinking = |tokens| {
        json!({"thinking": {"type": "enabled", "budget_tokens": tokens},
                                   "max_tokens": 64})
    };
    let free = create(&router, thinking(60)).await;
    let block = &free["content"][0];
    assert_eq!(
        (&block["type"], &block["signature"]),
        (&json!("thinking"), &json!(SIGNATURE))
    );
    let thought = |message: &Value| {
        let block = &message["content"][0];
        let text = block["thinking"].as_str().map(str::to_owned);
        text.unwrap_or_default()
    };
    assert!(thought(&free).len() > 4, "{free}");
    let bounded = create(&router, thinking(2)).await;
    assert!(
        thought(&bounded).len() < thought(&free).len(),
        "{bounded} {free}"
    );
    // The answer follows.
    let blocks = bounded["content"].as_array().unwrap();
    assert_eq!(blocks[blocks.len() - 1]["type"], "text", "{bounded}");
    let hidden = json!({"thinking": {"type": "adaptive", "display": "omitted"}, "max_tokens": 64});
    let hidden = create(&router, hidden).await;
    assert_eq!(
        hidden["content"][0],
        json!({"type": "thinking", "thinking": "", "signature": SIGNATURE})
    );
    let off = create(&router, json!({"thinking": {"type": "disabled"}})).await;
    assert_eq!(off["content"][0]["type"], "text");
}

#[tokio::test]
async fn a_call_and_its_result_go_round() {
    let router = router();
    let first = create(
        &router,
        json!({"tools": paint(), "tool_choice": {"type": "tool", "name": "paint"}}),
    )
    .await;
    assert_eq!(first["stop_reason"], "tool_use", "{first}");
    let call = &first["content"][0];
    assert!(["red", "blue"].contains(&call["input"]["colour"].as_str().unwrap()));
    let messages = json!([
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call["id"], "content": "done", "is_error": true}]},
    ]);
    let second = create(&router, json!({"tools": paint(), "messages": messages})).await;
    assert_eq!(second["role"], "assistant");
}

#[tokio::test]
async fn structured_output_is_what_the_schema_says() {
    let schema = json!({"type": "object", "properties": {"a": {"enum": [1, 2]}},
                        "required": ["a"], "additionalProperties": false});
    let format = json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}});
    let message = create(&router(), format).await;
    let text = message["content"][0]["text"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    assert!([json!(1), json!(2)].contains(&value["a"]));
}

/// Status, type and message of an error in Anthropic's envelope.
fn refused(answer: &Answer) -> (u16, String, String) {
    let envelope = answer.json();
    assert_eq!(envelope["type"], "error", "{}", answer.text);
    assert_eq!(
        envelope["request_id"],
        answer.headers["request-id"].to_str().unwrap()
    );
    assert_eq!(answer.headers["request-id"], answer.headers["x-request-id"]);
    let text = |name: &str| envelope["error"][name].as_str().unwrap().to_owned();
    (answer.status.as_u16(), text("type"), text("message"))
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_and_named() {
    let router = router();
    for (fields, named) in [
        (json!({"max_tokens": null}), "`max_tokens`"),
        (json!({"max_tokens": -1}), "`max_tokens`"),
        (json!({"messages": []}), "`messages`"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
            "`messages[0].content[0]`",
        ),
        (json!({"thinking": {"type": "between_tools"}}), "`thinking"),
        (json!({"thinking": {"type": "enabled"}}), "budget_tokens"),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 48}}),
            "`thinking.budget_tokens`",
        ),
        (
            json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}),
            "`output_config.effort`",
        ),
        (
            json!({"output_config": {"effort": "low"}}),
            "`output_config.effort`",
        ),
        (
            json!({"output_config": {"format": {"type": "x"}}}),
            "`output_config.format.type`",
        ),
        (
            json!({"output_config": {"format": {"type": "json_schema"}}}),
            "`output_config.format.schema`",
        ),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "web_search_20250305",
        ),
        (json!({"stop_sequences": [""]}), "stop_sequences"),
        (json!({"stop_sequences": "a"}), "stop_sequences"),
        (json!({"mcp_servers": [{}]}), "`mcp_servers`"),
        (json!({"container": "a"}), "`container`"),
        (json!({"service_tier": "priority"}), "`service_tier`"),
        (
            json!({"max_completion_tokens": 3}),
            "`max_completion_tokens`",
        ),
        (json!({"metadata": {"user_id": 3}}), "metadata.user_id"),
        (json!({"cache_control": {}}), "`cache_control`"),
        (json!({"temperature": -1}), "`temperature`"),
    ] {
        let answer = post(&router, PATH, &body(fields.clone())).await;
        let (status, kind, message) = refused(&answer);
        assert_eq!(
            (status, kind.as_str()),
            (400, "invalid_request_error"),
            "{fields}"
        );
        assert!(message.contains(named), "{fields}: {message}");
    }
    let fields = json!({"service_tier": "standard_only", "metadata": {"user_id": "u"}, "mcp_servers": [],
                        "cache_control": {"type": "ephemeral"}, "max_tokens": 1, "tempratur": 1});
    let answer = post(&router, PATH, &body(fields)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.headers["x-mlxcel-ignored"], "tempratur");
}

#[tokio::test]
async fn errors_of_others_have_its_envelope_too() {
    let app = serving(engine(1, 1), |model| model.policy.strict_model = true);
    let router = super::super::router(app.clone());
    let anonymous = Request::builder().method("POST").uri(PATH);
    let anonymous = anonymous.body(Body::empty()).unwrap();
    let mut with_key = request("POST", PATH, body(json!({"max_tokens": 1})).to_string());
    let key = with_key
        .headers_mut()
        .remove(header::AUTHORIZATION)
        .unwrap();
    let key = key
        .to_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap()
        .parse();
    with_key.headers_mut().insert("x-api-key", key.unwrap());
    with_key
        .headers_mut()
        .insert("anthropic-version", "2023-06-01".parse().unwrap());
    assert_eq!(ask(&router, with_key).await.status, 200);
    let other = body(json!({"model": "claude"})).to_string();
    for (request, status, kind) in [
        (anonymous, 401, "authentication_error"),
        (request("GET", PATH, ""), 405, "invalid_request_error"),
        (request("POST", PATH, "{"), 400, "invalid_request_error"),
        (request("POST", PATH, other), 404, "not_found_error"),
        (
            request("POST", "/v1/messages/batches", "{}"),
            404,
            "not_found_error",
        ),
        (
            request("POST", PATH, vec![b' '; 17 << 20]),
            413,
            "request_too_large",
        ),
    ] {
        let what = format!("{} {}", request.method(), request.uri());
        let (got, type_, _) = refused(&ask(&router, request).await);
        assert_eq!((got, type_.as_str()), (status, kind), "{what}");
    }
    app.usage().close();
    let closed = post(&router, PATH, &body(json!({"model": "mlxcel-tiny"}))).await;
    let (status, kind, _) = refused(&closed);
    assert_eq!((status, kind.as_str()), (529, "overloaded_error"));
}

#[tokio::test]
async fn a_model_that_fails_ends_a_stream_with_an_error() {
    let (engine, _) = crate::engine::tests::mortal();
    let text = TextFiles::load(dir(), None).unwrap();
    let fault = text.tokenizer.decode(&[FAILS], false).unwrap();
    // That engine's model knows few tokens, and one of them fails it.
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("chat_template.jinja"), fault).unwrap();
    let template = ChatTemplate::load(files.path()).unwrap();
    let router = super::super::router(serving(engine, |model| model.text.template = template));
    let mut body = body(json!({}));
    let (status, kind, _) = refused(&post(&router, PATH, &body).await);
    assert_eq!((status, kind.as_str()), (500, "api_error"));
    body["stream"] = json!(true);
    let answer = post(&router, PATH, &body).await;
    let last = answer.events().pop().unwrap();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        (&last["type"], &last["error"]["type"]),
        (&json!("error"), &json!("api_error"))
    );
    assert_eq!(
        last["request_id"],
        answer.headers["request-id"].to_str().unwrap()
    );
}
