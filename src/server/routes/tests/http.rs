//! What is wrong before a body is looked at, or with its bytes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, header};
use serde_json::{Value, json};

use super::{KEY, ask, dir, engine, request, router};
use crate::server::auth::Keys;
use crate::server::model::{Names, ServedModel, TextFiles};
use crate::server::sites::Sites;
use crate::server::state::App;
use crate::server::terms::Policy;

/// A completion with one more header.
fn with(name: HeaderName, value: &'static str) -> Request<Body> {
    let mut request = request("POST", "/v1/completions", r#"{"prompt": "a"}"#);
    let value = HeaderValue::from_static(value);
    request.headers_mut().insert(name, value);
    request
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
    let mut two_hosts = request("GET", "/v1/models", "");
    for host in ["localhost", "localhost"] {
        let host = HeaderValue::from_static(host);
        two_hosts.headers_mut().append(header::HOST, host);
    }
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
            request(
                "POST",
                "/v1/completions",
                r#"{"prompt": "a", "prompt": "b"}"#,
            ),
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
        (
            with(header::CONTENT_TYPE, "application/json; charset=utf-16"),
            415,
            "unsupported_media_type",
        ),
        (
            with(header::CONTENT_ENCODING, "gzip"),
            415,
            "unsupported_media_type",
        ),
        (two_hosts, 400, "invalid_host"),
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
    let answer = ask(
        &super::super::router(app),
        request("POST", "/tokenize", never),
    )
    .await;
    assert_eq!(answer.error().0, 408);
}

#[tokio::test]
async fn a_path_that_is_no_text_is_named() {
    let answer = ask(&router(), request("GET", "/v1/models/%ff", "")).await;
    assert_eq!(
        answer.error(),
        (400, json!("invalid_value"), json!("model"))
    );
}
