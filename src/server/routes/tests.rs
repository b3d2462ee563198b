//! The routes, on the real engine with the built-in model, without a socket in between.

mod ending;
mod fuzz;
mod operations;
mod prefill;
mod reasoning;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::engine::{EngineHandle, EngineOptions};
use crate::mlx::Device;
use crate::models::KvFormat;
use crate::server::auth::Keys;
use crate::server::model::{Names, ServedModel, TextFiles};
use crate::server::sites::Sites;
use crate::server::state::{App, Progress, Stage};
use crate::server::terms::Policy;

const KEY: &str = "the-key";

pub(super) fn engine(n_parallel: usize, queue_size: usize) -> EngineHandle {
    engine_of(512, n_parallel, queue_size)
}

/// An engine in which what is [`endless`] goes on for as long as any test looks at it.
pub(super) fn roomy(n_parallel: usize, queue_size: usize) -> EngineHandle {
    engine_of(8192, n_parallel, queue_size)
}

fn engine_of(context: usize, n_parallel: usize, queue_size: usize) -> EngineHandle {
    let options = EngineOptions {
        model_dir: dir().to_owned(),
        adapter: None,
        device: Some(Device::Cpu),
        ctx_size: Some(context),
        n_parallel,
        queue_size,
        kv_format: KvFormat::default(),
        max_kv_size: None,
        kv_cache_budget: None,
        prefix_cache: true,
        force: false,
        warmup: false,
    };
    crate::engine::start(options, |_| {}).unwrap()
}

pub(super) fn dir() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tiny-model/mlxcel-tiny"
    ))
}

fn starting() -> App {
    App::new(
        Keys::load(Some(KEY.to_owned()), None).unwrap(),
        Sites::default(),
        Duration::from_secs(5),
    )
}

pub(super) fn serving(engine: EngineHandle, change: impl FnOnce(&mut ServedModel)) -> App {
    with_model(starting(), engine, change)
}

pub(super) fn with_model(
    app: App,
    engine: EngineHandle,
    change: impl FnOnce(&mut ServedModel),
) -> App {
    let names = Names::new(None, "mlxcel-tiny", dir());
    let text = TextFiles::load(dir(), None).unwrap();
    let mut model = ServedModel::new(
        names,
        dir().to_owned(),
        None,
        Policy::default(),
        engine,
        text,
    );
    change(&mut model);
    app.ready(Arc::new(model));
    app
}

/// One engine for all the tests that leave it as it was, with room for as many as run at a time.
pub(super) fn router() -> Router {
    static ENGINE: OnceLock<EngineHandle> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| engine(4, 996)).clone();
    super::router(serving(engine, |_| {}))
}

pub(super) fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {KEY}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(super) fn error(&self) -> (u16, Value, Value) {
        let error = self.json()["error"].clone();
        assert!(!error["message"].as_str().unwrap().is_empty());
        (
            self.status.as_u16(),
            error["code"].clone(),
            error["param"].clone(),
        )
    }

    /// The data of an event stream.
    pub(super) fn events(&self) -> Vec<String> {
        let lines = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        lines.map(str::to_owned).collect()
    }
}

pub(super) async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text,
    }
}

async fn post(path: &str, body: Value) -> Answer {
    ask(&router(), request("POST", path, body.to_string())).await
}

/// A body for each route that reads one, with what makes it quick.
fn valid_bodies() -> Vec<(&'static str, Value)> {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let bodies = vec![
        (
            "/v1/completions",
            json!({"prompt": "a", "max_tokens": 1, "stop": ["b"], "logprobs": 1}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 1, "temperature": 0.5,
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {
                    "type": "object", "properties": {"a": {"type": "string"}}}}}]}),
        ),
        (
            "/tokenize",
            json!({"content": "a", "add_special": true, "with_pieces": true}),
        ),
        (
            "/v1/responses",
            json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                             {"type": "reasoning", "summary": [], "content": []},
                             {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                             {"type": "function_call_output", "call_id": "c", "output": "x"}],
                   "max_output_tokens": 1, "reasoning": {"effort": "none"},
                   "tools": [{"type": "function", "name": "f"}], "text": {"format": {"type": "text"}}}),
        ),
        ("/v1/responses/input_tokens", json!({"input": "Hi"})),
        (
            "/v1/messages",
            json!({"model": "mlxcel-tiny", "max_tokens": 2, "stop_sequences": ["b"],
                   "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
                   "thinking": {"type": "enabled", "budget_tokens": 1},
                   "tools": [{"name": "f", "input_schema": {"type": "object"}}],
                   "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
                   "messages": [
                       {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                       {"role": "assistant", "content": [
                           {"type": "thinking", "thinking": "a", "signature": "b"},
                           {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}]},
                       {"role": "user", "content": [
                           {"type": "tool_result", "tool_use_id": "c", "content": "d"}]}]}),
        ),
        (
            "/v1/messages/count_tokens",
            json!({"model": "mlxcel-tiny", "system": "a", "messages": messages}),
        ),
        ("/detokenize", json!({"tokens": [1, 2]})),
        ("/apply-template", json!({"messages": messages})),
    ];
    let routes = super::listed();
    let reading = routes.iter().filter(|(method, _)| *method == "POST");
    // What is done to something named in the path reads no body.
    let reading = reading.filter(|(_, path)| !path.contains('{'));
    for (_, path) in reading {
        let known = bodies.iter().any(|(other, _)| other == path);
        assert!(known, "what does a valid body of {path} look like?");
    }
    bodies
}

#[tokio::test]
async fn while_loading_only_health_and_root_answer() {
    let app = starting();
    app.advance(Progress {
        stage: Stage::Downloading,
        done: 1 << 40,
        total: 1 << 42,
    });
    let router = super::router(app);
    let health = ask(&router, request("GET", "/health", "")).await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    let body = health.json();
    assert_eq!(
        (&body["stage"], &body["progress"]),
        (&json!("downloading"), &json!(0.25))
    );
    assert_eq!(
        (&body["bytes_done"], &body["bytes_total"]),
        (&json!(1u64 << 40), &json!(1u64 << 42))
    );
    assert_eq!(body["error"]["code"], "model_loading");
    assert_eq!(
        ask(&router, request("GET", "/", "")).await.status,
        StatusCode::OK
    );
    for path in ["/v1/models", "/props", "/nowhere"] {
        let answer = ask(&router, request("GET", path, "")).await;
        assert_eq!(answer.error().0, 503, "{path}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER), "{path}");
    }
}

#[tokio::test]
async fn a_key_is_asked_for_before_anything_is_told() {
    let router = super::router(starting());
    for path in ["/v1/models", "/props", "/nowhere", "/v1/completions"] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = ask(&router, request).await;
        assert_eq!(
            answer.error(),
            (401, json!("invalid_api_key"), Value::Null),
            "{path}"
        );
    }
}

#[tokio::test]
async fn errors_of_http_have_the_envelope() {
    let router = router();
    let form = Request::builder()
        .method("POST")
        .uri("/v1/completions")
        .header(header::AUTHORIZATION, format!("Bearer {KEY}"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from("prompt=x"))
        .unwrap();
    for (request, status, code) in [
        (request("GET", "/nowhere", ""), 404, "not_found"),
        (
            request("GET", "/v1/completions", ""),
            405,
            "method_not_allowed",
        ),
        (
            request("POST", "/v1/completions", "{\"prompt\": "),
            400,
            "invalid_json",
        ),
        (
            request("POST", "/v1/completions", "[]"),
            400,
            "invalid_type",
        ),
        (
            request("POST", "/v1/completions", vec![b' '; 17 << 20]),
            413,
            "body_too_large",
        ),
        (
            request("GET", "/v1/models/other", ""),
            404,
            "model_not_found",
        ),
        (form, 415, "unsupported_media_type"),
    ] {
        let what = request.uri().to_string();
        assert_eq!(
            ask(&router, request).await.error(),
            (status, json!(code), Value::Null),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let app = App::new(Keys::default(), Sites::default(), Duration::from_millis(50));
    let names = Names::new(None, "mlxcel-tiny", dir());
    let text = TextFiles::load(dir(), None).unwrap();
    let model = ServedModel::new(
        names,
        dir().to_owned(),
        None,
        Policy::default(),
        engine(1, 1),
        text,
    );
    app.ready(Arc::new(model));
    let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let answer = ask(&super::router(app), request("POST", "/tokenize", never)).await;
    assert_eq!(answer.error().0, 408);
}

#[tokio::test]
async fn props_tell_how_the_server_fares() {
    let router = super::router(serving(engine(1, 1), |_| {}));
    let body = json!({"prompt": "mlxcel is", "max_tokens": 8, "temperature": 0});
    let answer = ask(
        &router,
        request("POST", "/v1/completions", body.to_string()),
    )
    .await;
    let generated = answer.json()["usage"]["completion_tokens"].clone();
    let props = ask(&router, request("GET", "/props", "")).await.json();
    assert_eq!(props["throughput"]["generated_tokens_total"], generated);
    for rate in ["prompt_tokens_per_second", "generated_tokens_per_second"] {
        assert!(props["throughput"][rate].as_f64().unwrap() > 0.0, "{props}");
    }
    let memory = &props["memory"];
    assert!(memory["active_bytes"].as_u64() <= memory["peak_bytes"].as_u64());
    assert!(memory["rss_bytes"].as_u64() > memory["cache_bytes"].as_u64());
    assert_eq!(props["pid"], std::process::id());
    assert_eq!(props["leases"], 0);
}

#[tokio::test]
async fn a_path_that_is_no_text_is_named() {
    let answer = ask(&router(), request("GET", "/v1/models/%ff", "")).await;
    assert_eq!(
        answer.error(),
        (400, json!("invalid_value"), json!("model"))
    );
}

#[tokio::test]
async fn a_closed_server_gives_no_lease_and_takes_no_work() {
    let app = serving(engine(1, 1), |_| {});
    let router = super::router(app.clone());
    let lease = router
        .clone()
        .oneshot(request("GET", "/lease", ""))
        .await
        .unwrap();
    assert_eq!(lease.status(), StatusCode::OK);
    assert_eq!(app.usage().leases(), 1);
    app.usage().close();
    let lines = axum::body::to_bytes(lease.into_body(), 1000).await.unwrap();
    let lease: Value = serde_json::from_slice(&lines).unwrap();
    assert!(lease["lease"].as_str().is_some_and(|id| !id.is_empty()));
    assert_eq!(app.usage().leases(), 0);
    for request in [
        request("GET", "/lease", ""),
        request("POST", "/tokenize", r#"{"content": "a"}"#),
    ] {
        assert_eq!(ask(&router, request).await.error().1, "shutting_down");
    }
}

#[tokio::test]
async fn unknown_fields_are_named_and_the_request_id_comes_back() {
    let mut request = request(
        "POST",
        "/tokenize",
        json!({"content": "hi", "tempratur": 1}).to_string(),
    );
    request
        .headers_mut()
        .insert("x-request-id", "mine-1".parse().unwrap());
    let answer = ask(&router(), request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["x-mlxcel-ignored"], "tempratur");
    assert_eq!(answer.headers["x-request-id"], "mine-1");
}

#[tokio::test]
async fn unknown_fields_within_others_are_named_too() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for (path, body, named) in [
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 1, "stream": true,
                "stream_options": {"usage": true}, "reasoning": {"effrt": "low"}}),
            "stream_options.usage,reasoning.effrt",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "max_tokens": 1, "stream": true, "stream_options": {"x": 1}}),
            "stream_options.x",
        ),
        (
            "/v1/responses",
            json!({"input": "a", "max_output_tokens": 1, "stream": true, "reasoning": {"x": 1},
                "stream_options": {"include_usage": true}}),
            "reasoning.x,stream_options.include_usage",
        ),
        (
            "/v1/messages",
            json!({"model": "m", "messages": messages, "max_tokens": 1,
                "metadata": {"x": 1}, "output_config": {"y": 1}}),
            "metadata.x,output_config.y",
        ),
    ] {
        let answer = post(path, body).await;
        assert_eq!(answer.headers["x-mlxcel-ignored"], named, "{path}");
    }
}

#[tokio::test]
async fn a_named_event_begins_with_its_name() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for (path, body) in [
        (
            "/v1/responses",
            json!({"input": "a", "max_output_tokens": 2, "stream": true}),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "messages": messages, "max_tokens": 2, "stream": true}),
        ),
    ] {
        let answer = post(path, body).await;
        let events: Vec<&str> = answer.text.trim_end().split("\n\n").collect();
        assert!(events.len() > 5, "{}", answer.text);
        for event in events {
            let (name, data) = event.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["type"], name);
        }
    }
}

#[tokio::test]
async fn tokens_go_both_ways() {
    let text = "Grüße 👋🏽 <|im_end|>";
    let tokens = post("/tokenize", json!({"content": text})).await.json()["tokens"].clone();
    let back = post("/detokenize", json!({"tokens": tokens})).await.json();
    assert_eq!(back["content"], text);
    let pieces = post("/tokenize", json!({"content": text, "with_pieces": true}))
        .await
        .json();
    assert_eq!(
        pieces["tokens"].as_array().unwrap().len(),
        tokens.as_array().unwrap().len()
    );
    let unknown = post("/detokenize", json!({"tokens": [1, 1_000_000]})).await;
    assert_eq!(
        unknown.error(),
        (400, json!("invalid_value"), json!("tokens[1]"))
    );
}

#[tokio::test]
async fn a_streamed_answer_is_the_whole_one_in_pieces() {
    for (path, body) in [
        (
            "/v1/completions",
            json!({"prompt": "mlxcel is", "max_tokens": 12, "n": 2, "seed": 3}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 12, "n": 2}),
        ),
    ] {
        // Usage tells what of a prompt is cached: all of it but the last token, from the second on.
        post(path, body.clone()).await;
        let whole = post(path, body.clone()).await.json();
        let mut streaming = body.clone();
        streaming["stream"] = json!(true);
        streaming["stream_options"] = json!({"include_usage": true});
        let events = post(path, streaming).await.events();
        let (done, chunks) = events.split_last().unwrap();
        assert_eq!(done, "[DONE]");
        let chunks: Vec<Value> = chunks
            .iter()
            .map(|c| serde_json::from_str(c).unwrap())
            .collect();
        let (last, chunks) = chunks.split_last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"], whole["usage"]);
        assert!(last["timings"]["predicted_n"].as_u64().unwrap() > 0);
        for index in 0..2 {
            let (mut text, mut reasons) = (String::new(), Vec::new());
            for choice in chunks
                .iter()
                .map(|c| &c["choices"][0])
                .filter(|c| c["index"] == index)
            {
                let piece = choice["text"]
                    .as_str()
                    .or(choice["delta"]["content"].as_str());
                text.push_str(piece.unwrap_or_default());
                reasons.extend(choice["finish_reason"].as_str());
            }
            let choice = &whole["choices"][index];
            let want = choice["text"]
                .as_str()
                .or(choice["message"]["content"].as_str());
            assert_eq!(text, want.unwrap(), "{path}");
            assert_eq!(reasons, [choice["finish_reason"].as_str().unwrap()]);
        }
    }
}

#[tokio::test]
async fn fields_that_cannot_be_honoured_are_named() {
    let user = json!([{"role": "user", "content": "x"}]);
    for (body, param) in [
        (json!({}), "messages"),
        (json!({"messages": user, "tools": [{}]}), "tools[0].type"),
        (
            json!({"messages": user, "modalities": ["audio"]}),
            "modalities",
        ),
        (json!({"messages": user, "top_logprobs": 3}), "top_logprobs"),
        (
            json!({"messages": user, "chat_template_kwargs": {"tools": []}}),
            "chat_template_kwargs.tools",
        ),
        (
            json!({"messages": user, "stream_options": {}}),
            "stream_options",
        ),
        (
            json!({"messages": user, "functions": [{"name": "f"}]}),
            "functions",
        ),
        (
            json!({"messages": user, "function_call": "auto"}),
            "function_call",
        ),
        (json!({"messages": user, "audio": {}}), "audio"),
        (
            json!({"messages": user, "prediction": {"type": "content", "content": "x"}}),
            "prediction",
        ),
        (
            json!({"messages": user, "web_search_options": {}}),
            "web_search_options",
        ),
        (json!({"messages": user, "verbosity": "low"}), "verbosity"),
        (json!({"messages": user, "store": true}), "store"),
        (
            json!({"messages": user, "service_tier": "flex"}),
            "service_tier",
        ),
        (
            json!({"messages": user, "moderation": {"model": "m"}}),
            "moderation",
        ),
        (
            json!({"messages": user, "prompt_cache_retention": "24h"}),
            "prompt_cache_retention",
        ),
        (
            json!({"messages": user, "prompt_cache_options": {}}),
            "prompt_cache_options",
        ),
        (json!({"messages": user, "user": 3}), "user"),
        (
            json!({"messages": user, "metadata": {"a": 1}}),
            "metadata.a",
        ),
        (
            json!({"messages": user, "reasoning_effort": "low"}),
            "reasoning_effort",
        ),
        (
            json!({"messages": user, "reasoning_effort": "huge"}),
            "reasoning_effort",
        ),
        (
            json!({"messages": user, "enable_thinking": true, "reasoning_effort": "none"}),
            "enable_thinking",
        ),
        (
            json!({"messages": user, "tools": [{"type": "custom", "custom": {"name": "c"}}]}),
            "tools[0].type",
        ),
        (json!({"messages": user, "n": 129}), "n"),
        (
            json!({"messages": user, "temperature": "hot"}),
            "temperature",
        ),
        (
            json!({"messages": user, "response_format": {"type": "poem"}}),
            "response_format.type",
        ),
    ] {
        let answer = post("/v1/chat/completions", body.clone()).await;
        let (status, _, named) = answer.error();
        assert_eq!((status, named), (400, json!(param)), "{body}");
    }
}

#[tokio::test]
async fn more_outputs_than_run_and_wait_at_a_time_are_refused_by_name() {
    let router = super::router(serving(engine(1, 2), |_| {}));
    for (n, status) in [(3, 200), (4, 400)] {
        let body = json!({"prompt": "a", "max_tokens": 1, "n": n}).to_string();
        let answer = ask(&router, request("POST", "/v1/completions", body)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.text.contains(r#""param":"n""#), status == 400);
    }
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_told_both_numbers() {
    let answer = post("/v1/completions", json!({"prompt": vec![5; 600]})).await;
    assert_eq!(
        answer.error(),
        (400, json!("context_length_exceeded"), json!("prompt"))
    );
    assert!(
        answer.text.contains("600") && answer.text.contains("512"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_schema_that_cannot_be_enforced_is_named() {
    let schema = json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let body = json!({"prompt": "x", "max_tokens": 4, "response_format": format});
    let answer = post("/v1/completions", body).await;
    assert_eq!(
        answer.error(),
        (
            400,
            json!("unsupported_parameter"),
            json!("response_format")
        )
    );
    assert!(answer.text.contains("uniqueItems"), "{}", answer.text);
}

#[tokio::test]
async fn a_grammar_that_is_none_is_named_by_its_field_also_behind_a_thought() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for thinking in [true, false] {
        for (field, grammar) in [("regex", "(["), ("grammar", "start: (")] {
            let body = json!({"messages": messages, "enable_thinking": thinking, field: grammar});
            let error = post("/v1/chat/completions", body).await.error();
            assert_eq!(error, (400, json!("invalid_value"), json!(field)));
        }
    }
}

#[tokio::test]
async fn a_model_without_a_template_points_to_completions() {
    let app = serving(engine(1, 1), |model| model.text.template = None);
    let body = json!({"messages": [{"role": "user", "content": "x"}]}).to_string();
    let answer = ask(
        &super::router(app),
        request("POST", "/v1/chat/completions", body),
    )
    .await;
    assert_eq!(answer.error().0, 400);
    assert!(answer.text.contains("/v1/completions"), "{}", answer.text);
}

#[tokio::test]
async fn n_predict_bounds_every_answer() {
    let app = serving(engine(1, 1), |model| model.n_predict = Some(3));
    let router = super::router(app);
    for fields in [
        json!({"prompt": "mlxcel is"}),
        json!({"prompt": "mlxcel is", "max_tokens": 9}),
    ] {
        let answer = ask(
            &router,
            request("POST", "/v1/completions", fields.to_string()),
        )
        .await;
        assert_eq!(answer.json()["usage"]["completion_tokens"], 3);
    }
}

/// Waits until the engine has nothing to do.
async fn idle(engine: &EngineHandle) {
    within(|| engine.stats().running + engine.stats().waiting == 0).await;
}

async fn within(mut condition: impl FnMut() -> bool) {
    let there = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let wait = Duration::from_secs(60);
    tokio::time::timeout(wait, there).await.unwrap();
}

/// A request that runs to the end of the context: longer than a slow machine stalls in a [`roomy`] one.
fn endless(stream: bool) -> Request<Body> {
    let biases: serde_json::Map<_, _> = TextFiles::load(dir(), None)
        .unwrap()
        .stop_tokens
        .iter()
        .map(|id| (id.to_string(), json!(-100)))
        .collect();
    let body = json!({"prompt": "a", "stream": stream, "logit_bias": biases, "temperature": 1});
    request("POST", "/v1/completions", body.to_string())
}

#[tokio::test]
async fn a_full_queue_is_503_with_its_own_code_and_dropping_an_answer_frees_its_place() {
    let engine = roomy(1, 0);
    let router = super::router(serving(engine.clone(), |_| {}));
    let running = router.clone().oneshot(endless(true)).await.unwrap();
    let refused = ask(&router, endless(false)).await;
    assert_eq!(refused.error(), (503, json!("queue_full"), Value::Null));
    assert!(refused.headers.contains_key(header::RETRY_AFTER));

    let mut body = running.into_body().into_data_stream();
    assert!(body.next().await.is_some());
    drop(body);
    idle(&engine).await;

    let whole = tokio::spawn(router.oneshot(endless(false)));
    within(|| engine.stats().running == 1).await;
    whole.abort();
    idle(&engine).await;
}

#[tokio::test]
async fn after_the_time_for_draining_a_stream_ends_with_an_error_and_no_request_is_taken() {
    let engine = roomy(1, 1);
    let app = serving(engine.clone(), |_| {});
    let router = super::router(app.clone());
    let running = router.clone().oneshot(endless(true)).await.unwrap();
    engine.drain();
    assert_eq!(ask(&router, endless(true)).await.error().1, "shutting_down");
    app.abort();
    let bytes = axum::body::to_bytes(running.into_body(), usize::MAX)
        .await
        .unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "shutting_down");
    idle(&engine).await;
}

mod any_body {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

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
                vec((keys, inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
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
}

/// Tokens of the prompt that usage tells to be cached.
async fn cached(router: &Router, key: &str, body: serde_json::Value) -> u64 {
    let mut request = request("POST", "/v1/completions", body.to_string());
    let bearer = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    let answer = ask(router, request).await.json();
    let details = &answer["usage"]["prompt_tokens_details"];
    details["cached_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn usage_tells_the_hit_and_salts_keep_tenants_apart() {
    let prompt: Vec<u32> = (100..160).collect();
    let body = |salt: Option<&str>| json!({"prompt": prompt, "max_tokens": 2, "cache_salt": salt});
    for per_key in [false, true] {
        // Open to any key, so that tenants have their own.
        let app = App::new(Keys::default(), Sites::default(), Duration::from_secs(5));
        let app = with_model(app, engine(2, 4), |model| {
            model.policy.cache_per_key = per_key;
        });
        let router = super::router(app);
        let other = if per_key { 0 } else { 59 };
        for (key, salt, tokens) in [
            ("a", None, 0),
            ("a", None, 59),
            ("b", None, other),
            ("a", Some("x"), 0),
            ("a", Some("x"), 59),
            ("b", Some("x"), other),
            ("a", Some("y"), 0),
        ] {
            let found = cached(&router, key, body(salt)).await;
            assert_eq!(found, tokens, "per key: {per_key}, {key} {salt:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let app = serving(roomy(1, 1), |model| {
        model.policy.request_timeout = Some(Duration::from_millis(50));
    });
    let router = super::router(app);
    let body = json!({"prompt": "x", "max_tokens": 8000, "logit_bias": {"2040": -100}});
    let answer = ask(
        &router,
        request("POST", "/v1/completions", body.to_string()),
    )
    .await;
    let (status, code, _) = answer.error();
    assert_eq!((status, code), (504, json!("deadline_exceeded")));
}
