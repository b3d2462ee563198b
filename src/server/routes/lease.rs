//! `GET /lease`: as long as the connection stays open, the server does not end for want of use.
//!
//! One line of JSON names the lease; after it come empty lines, rarely, until the client closes the
//! connection or the server goes away.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::time::{Instant, interval_at};

use crate::server::error::ApiError;
use crate::server::state::App;
use crate::server::usage::Purpose;

/// Between two empty lines.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Keeps the server up until the connection closes
#[utoipa::path(
    get,
    path = "/lease",
    tag = "server",
    responses((status = 200, description = "A line that names the lease, then empty lines.",
        body = String, content_type = "application/x-ndjson"))
)]
pub async fn get(State(app): State<App>) -> Result<Response, ApiError> {
    let lease = app.usage().enter(Purpose::Lease)?;
    let id = uuid::Uuid::new_v4().simple().to_string();
    let first = format!("{}\n", json!({"lease": id}));
    let pauses = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    let empty = stream::unfold(pauses, |mut pauses| async move {
        pauses.tick().await;
        Some(("\n".to_owned(), pauses))
    });
    let lines = stream::once(async { first })
        .chain(empty.take_until(app.usage().closed()))
        .map(Ok::<_, Infallible>);
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let response = (headers, Body::from_stream(lines)).into_response();
    Ok(lease.until_sent(response))
}
