//! What happens around every handler: ids, the access log, keys, and the wait for the model.

use std::panic::AssertUnwindSafe;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::Instrument;

use super::access_log::Access;
use super::anthropic;
use super::error::ApiError;
use super::state::App;
use super::usage::Purpose;

/// The header of a request's id. Every request has it when it comes to its handler.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a client, in bytes.
const REQUEST_ID_LIMIT: usize = 128;

/// Whether a path is open to those without a key.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/health")
}

/// Whether a path answers before the model is loaded.
fn answers_early(path: &str) -> bool {
    is_open(path) || matches!(path, "/lease" | "/version" | "/openapi.json")
}

/// 403 for a foreign site, 401 without a key, then 503 while the model loads. The handler learns who
/// asks.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Err(refused) = app.sites().check(&parts) {
        return refused.into_response();
    }
    let path = parts.uri.path();
    let Some(key) = app.keys().admit(&parts.headers) else {
        if is_open(path) {
            return next.run(Request::from_parts(parts, body)).await;
        }
        return ApiError::unauthorized().into_response();
    };
    if !answers_early(path) && app.model().is_none() {
        return ApiError::loading().into_response();
    }
    parts.extensions.insert(key);
    next.run(Request::from_parts(parts, body)).await
}

/// Counts the requests that give the server work. Those that only look (GET) do not keep a server up
/// that nobody else uses.
pub async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    match app.usage().enter(Purpose::Request) {
        Ok(user) => user.until_sent(next.run(request).await),
        Err(refused) => ApiError::from(refused).into_response(),
    }
}

/// Gives every request an id, writes the access log, turns a panic into a 500, and puts errors into
/// the envelope of their path.
pub async fn access(mut request: Request, next: Next) -> Response {
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID.clone(), id.clone());
    let anthropic = anthropic::error::speaks(request.uri().path());
    let access = Access::begin(id.to_str().unwrap_or_default(), &request);
    let run = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(access.span());
    let mut response = run.await.unwrap_or_else(|_| {
        ApiError::internal("the request hit a bug in the server; its log says where")
            .into_response()
    });
    if anthropic {
        response = anthropic::error::translated(response, &id);
    }
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    access.until_sent(response)
}

/// The client's own id if it is one that a log can hold, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(&REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_LIMIT).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().simple().to_string();
        // Hexadecimal digits are always a header value.
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    })
}
