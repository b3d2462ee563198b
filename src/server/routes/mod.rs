//! The endpoints, one file each.

mod apply_template;
mod chat_completions;
mod completions;
mod detokenize;
mod documents;
mod health;
mod lease;
mod messages;
mod metrics;
mod models;
mod props;
mod responses;
mod root;
mod slots;
mod tokenize;
mod version;

#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, delete, get, post};

use super::error::ApiError;
use super::middleware::{access, count, guard};
use super::state::App;

/// A method, a path, and what answers there.
type Route = (&'static str, &'static str, MethodRouter<App>);

/// Every route there is. `{*id}` can hold slashes.
fn table() -> Vec<Route> {
    vec![
        ("GET", "/", get(root::get)),
        ("GET", "/health", get(health::get)),
        ("GET", "/version", get(version::get)),
        ("GET", "/openapi.json", get(documents::get)),
        ("GET", "/v1/models", get(models::list)),
        ("GET", "/v1/models/{*id}", get(models::retrieve)),
        ("POST", "/v1/completions", post(completions::post)),
        ("POST", "/v1/chat/completions", post(chat_completions::post)),
        ("POST", "/v1/responses", post(responses::create)),
        (
            "POST",
            "/v1/responses/input_tokens",
            post(responses::input_tokens),
        ),
        ("GET", "/v1/responses/{id}", get(responses::kept::retrieve)),
        (
            "DELETE",
            "/v1/responses/{id}",
            delete(responses::kept::delete),
        ),
        (
            "GET",
            "/v1/responses/{id}/input_items",
            get(responses::kept::input_items),
        ),
        (
            "POST",
            "/v1/responses/{id}/cancel",
            post(responses::kept::cancel),
        ),
        ("POST", "/v1/messages", post(messages::create)),
        (
            "POST",
            "/v1/messages/count_tokens",
            post(messages::count_tokens),
        ),
        ("POST", "/tokenize", post(tokenize::post)),
        ("POST", "/detokenize", post(detokenize::post)),
        ("POST", "/apply-template", post(apply_template::post)),
        ("GET", "/props", get(props::get)),
        ("GET", "/slots", get(slots::get)),
        ("GET", "/metrics", get(metrics::get)),
        ("GET", "/lease", get(lease::get)),
    ]
}

/// Method and path of every route, as they are told.
pub fn listed() -> Vec<(&'static str, String)> {
    let told = |(method, path, _): Route| (method, path.replace("{*", "{"));
    table().into_iter().map(told).collect()
}

/// All routes with what surrounds them.
pub fn router(app: App) -> Router {
    let routes = table()
        .into_iter()
        .fold(Router::new(), |router, (_, path, handler)| {
            router.route(path, handler)
        })
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), count))
        .layer(from_fn_with_state(app.clone(), guard));
    let routes = match app.sites().cors() {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn(access)).with_state(app)
}

async fn not_found(request: Request) -> ApiError {
    ApiError::not_found(request.uri().path())
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path())
}
