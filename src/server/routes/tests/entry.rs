//! Who is let in, when, and for how long.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{ask, endless, engine, idle, request, roomy, serving, starting, within};
use crate::server::state::{Progress, Stage};

#[tokio::test]
async fn while_loading_only_health_and_root_answer() {
    let app = starting();
    app.advance(Progress {
        stage: Stage::Downloading,
        done: 1 << 40,
        total: 1 << 42,
    });
    let router = super::super::router(app);
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
    let router = super::super::router(starting());
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
async fn a_closed_server_gives_no_lease_and_takes_no_work() {
    let app = serving(engine(1, 1), |_| {});
    let router = super::super::router(app.clone());
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
async fn a_full_queue_is_503_with_its_own_code_and_dropping_an_answer_frees_its_place() {
    let engine = roomy(1, 0);
    let router = super::super::router(serving(engine.clone(), |_| {}));
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
    let router = super::super::router(app.clone());
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

/// What each route that streams is asked with, and the name of its error event.
fn streaming() -> [(&'static str, Value, &'static str); 4] {
    let messages = json!([{"role": "user", "content": "a"}]);
    [
        ("/v1/completions", json!({"prompt": "a"}), ""),
        ("/v1/chat/completions", json!({"messages": messages}), ""),
        ("/v1/responses", json!({"input": "a"}), "response.failed"),
        (
            "/v1/messages",
            json!({"model": "m", "messages": messages, "max_tokens": 9}),
            "error",
        ),
    ]
}

#[tokio::test]
async fn a_full_queue_is_told_in_the_words_of_each_api() {
    let engine = roomy(1, 0);
    let router = super::super::router(serving(engine.clone(), |_| {}));
    for (path, body, _) in streaming() {
        // The place may be free again before the second request comes: then it is answered.
        let answer = loop {
            let running = router.clone().oneshot(endless(true)).await.unwrap();
            let answer = ask(&router, request("POST", path, body.to_string())).await;
            drop(running);
            idle(&engine).await;
            if answer.status != StatusCode::OK {
                break answer;
            }
        };
        let status = answer.status.as_u16();
        let (expected, kind) = match path {
            "/v1/messages" => (529, "overloaded_error"),
            _ => (503, "unavailable_error"),
        };
        let told = answer.json()["error"]["type"].clone();
        assert_eq!((status, told), (expected, json!(kind)), "{path}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER), "{path}");
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let app = serving(engine(1, 1), |model| {
        model.policy.request_timeout = Some(Duration::ZERO);
    });
    let router = super::super::router(app);
    for (path, mut body, name) in streaming() {
        let answer = ask(&router, request("POST", path, body.to_string())).await;
        assert_eq!(answer.status.as_u16(), 504, "{path}");
        body["stream"] = json!(true);
        let answer = ask(&router, request("POST", path, body.to_string())).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let last: Value = serde_json::from_str(&answer.events().pop().unwrap()).unwrap();
        let error = last.get("response").unwrap_or(&last)["error"].clone();
        assert!(error["message"].is_string(), "{path}: {last}");
        assert_eq!(last["type"].as_str().unwrap_or_default(), name, "{path}");
    }
}
