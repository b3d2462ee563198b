//! `GET /health`: 503 with stage and progress until the model answers, then 200. Open to all.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::error::ApiError;
use crate::server::state::{App, Stage};

/// The server answers.
#[derive(Serialize, ToSchema)]
pub struct Healthy {
    status: &'static str,
}

/// How far the start is.
#[derive(Serialize, ToSchema)]
pub struct Loading<'a> {
    status: &'static str,
    stage: Stage,
    progress: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_total: Option<u64>,
    error: &'a ApiError,
}

/// Whether the server can answer
#[utoipa::path(
    get,
    path = "/health",
    tag = "server",
    responses(
        (status = 200, body = Healthy),
        (status = 503, description = "Not yet.", body = Loading)
    )
)]
pub async fn get(State(app): State<App>) -> Response {
    let Some(progress) = app.progress() else {
        return Json(Healthy { status: "ok" }).into_response();
    };
    let error = ApiError::loading();
    let known = progress.total > 0;
    let body = Loading {
        status: "loading",
        stage: progress.stage,
        // A ten-thousandth is more than a bar shows.
        progress: (progress.fraction() * 1e4).round() / 1e4,
        bytes_done: known.then_some(progress.done),
        bytes_total: known.then_some(progress.total),
        error: &error,
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
