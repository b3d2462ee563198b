//! The endpoints, one file each.

mod chat_completions;
mod completions;
mod detokenize;
mod health;
mod lease;
mod models;
mod props;
mod root;
mod tokenize;

#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use super::error::ApiError;
use super::middleware::{access, count, guard};
use super::state::App;

/// Method and path of every route.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/health"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{id}"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/props"),
    ("GET", "/lease"),
];

/// All routes with what surrounds them.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/", get(root::get))
        .route("/health", get(health::get))
        .route("/v1/models", get(models::list))
        // An id can hold a slash.
        .route("/v1/models/{*id}", get(models::retrieve))
        .route("/v1/completions", post(completions::post))
        .route("/v1/chat/completions", post(chat_completions::post))
        .route("/tokenize", post(tokenize::post))
        .route("/detokenize", post(detokenize::post))
        .route("/props", get(props::get))
        .route("/lease", get(lease::get))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), count))
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(from_fn(access))
        .with_state(app)
}

async fn not_found(request: Request) -> ApiError {
    ApiError::not_found(request.uri().path())
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path())
}
