//! The Responses API on the real engine with the built-in model.

use std::time::Duration;

use axum::Router;
use axum::http::header;
use serde_json::{Map, Value, json};

use super::super::tests::{Answer, ask, engine, request, roomy, router, serving, with_model};
use crate::engine::tests::FAILS;
use crate::server::auth::Keys;
use crate::server::model::TextFiles;
use crate::server::sites::Sites;
use crate::server::state::App;
use crate::text::ChatTemplate;

const PATH: &str = "/v1/responses";

async fn post(router: &Router, path: &str, body: &Value) -> Answer {
    ask(router, request("POST", path, body.to_string())).await
}

async fn create(router: &Router, body: Value) -> Value {
    let answer = post(router, PATH, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

async fn get(router: &Router, path: &str) -> Answer {
    ask(router, request("GET", &format!("{PATH}/{path}"), "")).await
}

/// The events of a stream, whose names and numbers are right.
async fn stream(router: &Router, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let answer = post(router, PATH, &body).await;
    let names = answer
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "));
    let events: Vec<Value> = answer
        .events()
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    assert_eq!(names.count(), events.len(), "{}", answer.text);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    events
}

/// Types of the events, those of one kind in a row once.
fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    types.dedup();
    types
}

/// Without what differs each time.
fn anonymous(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            for name in [
                "id",
                "call_id",
                "created_at",
                "completed_at",
                "timings",
                "usage",
            ] {
                object.remove(name);
            }
            for value in object.values_mut() {
                *value = anonymous(value.take());
            }
        }
        Value::Array(list) => {
            for value in list {
                *value = anonymous(value.take());
            }
        }
        _ => {}
    }
    value
}

fn joined(events: &[Value], kind: &str) -> String {
    let deltas = events.iter().filter(|event| event["type"] == kind);
    deltas
        .map(|event| event["delta"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_stream_tells_the_whole_response_in_its_order() {
    let router = router();
    let body = json!({"input": "Hello!", "temperature": 0, "max_output_tokens": 64,
                      "include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let whole = create(&router, body.clone()).await;
    assert_eq!(whole["status"], "completed");
    let events = stream(&router, body).await;
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let last = &events[events.len() - 1]["response"];
    assert_eq!(anonymous(last.clone()), anonymous(whole.clone()));
    let part = &whole["output"][0]["content"][0];
    assert_eq!(joined(&events, "response.output_text.delta"), part["text"]);
    let deltas = events
        .iter()
        .filter(|e| e["type"] == "response.output_text.delta");
    let logprobs: Vec<Value> = deltas
        .flat_map(|delta| delta["logprobs"].as_array().unwrap().clone())
        .collect();
    assert_eq!(Value::from(logprobs), part["logprobs"]);
    let tokens = part["logprobs"].as_array().unwrap();
    let text: String = tokens
        .iter()
        .map(|t| t["token"].as_str().unwrap())
        .collect();
    assert!(text.starts_with(part["text"].as_str().unwrap()), "{text}");
    assert_eq!(tokens[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let usage = &whole["usage"];
    assert!(usage["output_tokens"].as_u64().unwrap() >= tokens.len() as u64 - 1);
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 0);
}

#[tokio::test]
async fn a_thought_that_is_cut_off_is_incomplete() {
    let body = json!({"input": "What is 17 + 25?", "reasoning": {"effort": "high"}, "temperature": 0,
                      "max_output_tokens": 3});
    let events = stream(&router(), body).await;
    let types = types(&events);
    assert!(
        types.contains(&"response.reasoning_text.delta"),
        "{types:?}"
    );
    assert_eq!(types.last(), Some(&"response.incomplete"));
    let response = &events[events.len() - 1]["response"];
    assert_eq!(
        response["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    assert_eq!(response["completed_at"], Value::Null);
    let item = &response["output"][0];
    assert_eq!(
        (&item["type"], &item["status"]),
        (&json!("reasoning"), &json!("incomplete"))
    );
    let usage = &response["usage"];
    assert_eq!(usage["output_tokens"], 3);
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(response["reasoning"]["effort"], "high");
}

fn weather() -> Value {
    json!([{"type": "function", "name": "weather", "description": "The weather.", "strict": true,
            "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}},
                           "required": ["city"], "additionalProperties": false}}])
}

#[tokio::test]
async fn calls_are_items_and_their_results_come_back() {
    let router = router();
    let body = json!({"input": "How is it in Oslo?", "tools": weather(), "tool_choice": "required",
                      "parallel_tool_calls": false, "max_output_tokens": 100});
    let events = stream(&router, body.clone()).await;
    let response = events[events.len() - 1]["response"].clone();
    let call = &response["output"][0];
    assert_eq!(call["type"], "function_call", "{response}");
    assert_eq!(call["arguments"], r#"{"city": "Oslo"}"#);
    assert_eq!(
        joined(&events, "response.function_call_arguments.delta"),
        call["arguments"]
    );
    let done = types(&events);
    let at = |name: &str| done.iter().position(|kind| *kind == name).unwrap();
    assert!(at("response.function_call_arguments.done") < at("response.output_item.done"));
    let result =
        json!([{"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}]);
    let next = create(
        &router,
        json!({"input": result, "previous_response_id": response["id"], "max_output_tokens": 8,
               "tools": weather()}),
    )
    .await;
    let items = get(
        &router,
        &format!("{}/input_items?order=asc", next["id"].as_str().unwrap()),
    )
    .await;
    let items = items.json();
    let kinds: Vec<&Value> = items["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["type"])
        .collect();
    assert_eq!(kinds, ["message", "function_call", "function_call_output"]);
    assert_eq!(items["has_more"], false);
}

#[tokio::test]
async fn continuing_a_response_is_sending_all_that_came_before() {
    let router = router();
    let first = create(
        &router,
        json!({"input": "Hi", "instructions": "x", "max_output_tokens": 8}),
    )
    .await;
    let id = first["id"].as_str().unwrap();
    let next = json!({"input": "More", "previous_response_id": id, "max_output_tokens": 1});
    let by_id = create(&router, next).await;
    assert_eq!(by_id["previous_response_id"], id);
    assert_eq!(by_id["instructions"], Value::Null);
    let mut input = vec![json!({"role": "user", "content": "Hi"})];
    input.extend(first["output"].as_array().unwrap().clone());
    input.push(json!({"role": "user", "content": "More"}));
    let by_hand = create(&router, json!({"input": input, "max_output_tokens": 1})).await;
    assert_eq!(
        by_id["usage"]["input_tokens"],
        by_hand["usage"]["input_tokens"]
    );
    let reference = json!({"type": "item_reference", "id": first["output"][0]["id"]});
    input[1] = reference;
    let count = post(
        &router,
        "/v1/responses/input_tokens",
        &json!({"input": input}),
    )
    .await
    .json();
    assert_eq!(count["input_tokens"], by_hand["usage"]["input_tokens"]);
    let gone = ask(&router, request("DELETE", &format!("{PATH}/{id}"), "")).await;
    assert_eq!(
        gone.json(),
        json!({"id": id, "object": "response", "deleted": true})
    );
    assert_eq!(get(&router, id).await.error().0, 404);
    let next = post(
        &router,
        PATH,
        &json!({"input": "x", "previous_response_id": id}),
    )
    .await;
    assert_eq!(
        next.error(),
        (
            400,
            json!("previous_response_not_found"),
            json!("previous_response_id")
        )
    );
}

#[tokio::test]
async fn a_response_is_there_for_its_key_alone_and_only_if_it_is_kept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one\ntwo\n").unwrap();
    let keys = Keys::load(None, Some(file.path())).unwrap();
    let app = App::new(keys, Sites::default(), Duration::from_secs(5));
    let router = super::super::router(with_model(app, engine(1, 1), |_| {}));
    let asked = async |method: &str, key: &str, path: &str, body: Value| {
        let mut request = request(method, path, body.to_string());
        let bearer = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        ask(&router, request).await
    };
    let body = json!({"input": "a", "max_output_tokens": 1});
    let id = asked("POST", "one", PATH, body).await.json()["id"].clone();
    let id = id.as_str().unwrap();
    for (method, path) in [
        ("GET", format!("{PATH}/{id}")),
        ("GET", format!("{PATH}/{id}/input_items")),
        ("POST", format!("{PATH}/{id}/cancel")),
        ("DELETE", format!("{PATH}/{id}")),
    ] {
        let (status, code, _) = asked(method, "two", &path, json!({})).await.error();
        assert_eq!((status, code), (404, json!("response_not_found")), "{path}");
    }
    let next = json!({"input": "a", "previous_response_id": id});
    assert_eq!(asked("POST", "two", PATH, next).await.error().0, 400);
    let mine = asked("GET", "one", &format!("{PATH}/{id}"), json!({})).await;
    assert_eq!(mine.json()["id"], id);
    let cancel = asked("POST", "one", &format!("{PATH}/{id}/cancel"), json!({})).await;
    assert_eq!(cancel.error().0, 400);
    let body = json!({"input": "a", "max_output_tokens": 1, "store": false});
    let answer = asked("POST", "one", PATH, body).await.json();
    let path = format!("{PATH}/{}", answer["id"].as_str().unwrap());
    assert_eq!(asked("GET", "one", &path, json!({})).await.error().0, 404);
}

/// Runs to the end of the context.
fn endless() -> Value {
    let text = TextFiles::load(super::super::tests::dir(), None).unwrap();
    let biases: Map<String, Value> = text
        .stop_tokens
        .iter()
        .map(|id| (id.to_string(), json!(-100)))
        .collect();
    json!({"input": "a", "logit_bias": biases, "temperature": 1, "background": true})
}

async fn wait(router: &Router, id: &str, status: &str) -> Value {
    let there = async {
        loop {
            let response = get(router, id).await.json();
            if response["status"] == status {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), there)
        .await
        .unwrap()
}

#[tokio::test]
async fn background_responses_are_made_while_nobody_waits_and_can_be_cancelled() {
    let engine = roomy(1, 4);
    let router = super::super::router(serving(engine.clone(), |_| {}));
    let first = create(&router, endless()).await;
    assert_eq!(first["status"], "queued");
    let first = first["id"].as_str().unwrap();
    let mut quick = endless();
    quick["max_output_tokens"] = json!(2);
    let second = create(&router, quick).await;
    let second = second["id"].as_str().unwrap();
    wait(&router, first, "in_progress").await;
    let next = json!({"input": "a", "previous_response_id": first});
    assert_eq!(post(&router, PATH, &next).await.error().0, 400);
    let cancelled = post(&router, &format!("{PATH}/{first}/cancel"), &json!({})).await;
    assert_eq!(cancelled.json()["status"], "cancelled");
    let done = wait(&router, second, "incomplete").await;
    assert_eq!(done["usage"]["output_tokens"], 2);
    assert_eq!(get(&router, first).await.json()["status"], "cancelled");
    assert_eq!(engine.stats().running, 0);
}

#[tokio::test]
async fn a_model_that_fails_is_a_failed_response() {
    let (engine, _) = crate::engine::tests::mortal();
    let text = TextFiles::load(super::super::tests::dir(), None).unwrap();
    let fault = text.tokenizer.decode(&[FAILS], false).unwrap();
    // That engine's model knows few tokens, and one of them fails it.
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("chat_template.jinja"), fault).unwrap();
    let template = ChatTemplate::load(files.path()).unwrap();
    let router = super::super::router(serving(engine, |model| model.text.template = template));
    let body = json!({"input": "a"});
    assert_eq!(post(&router, PATH, &body).await.error().0, 500);
    let waiting = create(&router, json!({"input": "a", "background": true})).await;
    let events = stream(&router, body).await;
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.failed"
        ]
    );
    let response = &events[2]["response"];
    assert_eq!(response["status"], "failed");
    assert_eq!(response["error"]["code"], "server_error");
    let id = response["id"].as_str().unwrap();
    assert_eq!(get(&router, id).await.json()["status"], "failed");
    let failed = wait(&router, waiting["id"].as_str().unwrap(), "failed").await;
    assert!(!failed["error"]["message"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn a_conversation_that_is_too_long_can_lose_its_beginning() {
    let router = router();
    let turn = |text: &str| json!([{"role": "user", "content": text.repeat(60)}, {"role": "assistant", "content": "ok"}]);
    let mut input: Vec<Value> = Vec::new();
    for text in ["one ", "two ", "three ", "four ", "five ", "six "] {
        input.extend(turn(text).as_array().unwrap().clone());
    }
    input.push(json!({"role": "user", "content": "And now?"}));
    let mut body = json!({"input": input, "max_output_tokens": 4});
    let refused = post(&router, PATH, &body).await;
    assert_eq!(
        refused.error(),
        (400, json!("context_length_exceeded"), json!("input"))
    );
    body["truncation"] = json!("auto");
    let answer = create(&router, body).await;
    let tokens = answer["usage"]["input_tokens"].as_u64().unwrap();
    assert!((200..=508).contains(&tokens), "{tokens}");
}

#[tokio::test]
async fn what_cannot_be_done_is_named() {
    let router = router();
    for (fields, param) in [
        (json!({"input": null}), "input"),
        (json!({"input": []}), "input"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
            "input[0].content[0]",
        ),
        (json!({"conversation": "c"}), "conversation"),
        (json!({"prompt": {"id": "p"}}), "prompt"),
        (json!({"messages": []}), "messages"),
        (json!({"max_tokens": 3}), "max_tokens"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"max_tool_calls": 0}), "max_tool_calls"),
        (json!({"n": 2}), "n"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 2}), "top_p"),
        (json!({"top_logprobs": 21}), "top_logprobs"),
        (
            json!({"include": ["file_search_call.results"]}),
            "include[0]",
        ),
        (json!({"reasoning": {"effort": "low"}}), "reasoning.effort"),
        (json!({"reasoning": {"effort": "huge"}}), "reasoning.effort"),
        (
            json!({"reasoning": {"summary": "detailed"}}),
            "reasoning.summary",
        ),
        (
            json!({"text": {"format": {"type": "poem"}}}),
            "text.format.type",
        ),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n",
                "schema": {"type": "array", "uniqueItems": true}}}}),
            "text.format.schema",
        ),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"truncation": "middle"}), "truncation"),
        (json!({"background": true, "store": false}), "store"),
        (json!({"background": true, "stream": true}), "background"),
        (json!({"stream_options": {}}), "stream_options"),
        (json!({"service_tier": "flex"}), "service_tier"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (
            json!({"previous_response_id": "resp_x"}),
            "previous_response_id",
        ),
    ] {
        let mut body = json!({"input": "a", "max_output_tokens": 1});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = post(&router, PATH, &body).await;
        let (status, _, named) = answer.error();
        assert_eq!((status, named), (400, json!(param)), "{}", answer.text);
    }
    for (query, param) in [
        ("stream=true", "stream"),
        ("starting_after=1", "starting_after"),
        ("include[]=computer_call_output.output", "include"),
    ] {
        let answer = get(&router, &format!("resp_x?{query}")).await;
        assert_eq!(
            answer.error(),
            (400, json!("unsupported_parameter"), json!(param))
        );
    }
    let body = json!({"input": "a", "max_output_tokens": 1, "tempratur": 1, "user": "u",
                      "metadata": {"a": "b"}});
    let answer = post(&router, PATH, &body).await;
    assert_eq!(answer.headers["x-mlxcel-ignored"], "tempratur");
    let response = answer.json();
    assert_eq!(
        (&response["user"], &response["metadata"]),
        (&json!("u"), &json!({"a": "b"}))
    );
}
