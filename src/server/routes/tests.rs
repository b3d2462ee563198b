//! The routes, on the real engine with the built-in model, without a socket in between.

mod answers;
mod any_body;
mod ending;
mod entry;
mod fields;
mod fuzz;
mod http;
mod operations;
mod prefill;
mod reasoning;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::engine::{EngineHandle, EngineOptions};
use crate::mlx::Device;
use crate::models::KvFormat;
use crate::server::auth::Keys;
use crate::server::model::{Names, ServedModel, TextFiles};
use crate::server::sites::Sites;
use crate::server::state::App;
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
