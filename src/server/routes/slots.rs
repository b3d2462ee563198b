//! `GET /slots`: what each place of the batch is at, in llama-server's shape, without contents.

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::props::Settings;
use crate::engine::Task;
use crate::server::error::ApiError;
use crate::server::state::Ready;

#[derive(Deserialize)]
pub struct Parameters {
    /// Ask for a place rather than for a list: 503 where none is free.
    #[serde(default)]
    fail_on_no_slot: u8,
}

/// A place. What runs there is told only of one that is taken.
#[derive(Serialize, ToSchema)]
pub struct Slot {
    id: usize,
    /// Tokens that one request may have.
    n_ctx: usize,
    speculative: bool,
    is_processing: bool,
    /// Counts requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    id_task: Option<u64>,
    /// Which output of the request this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Settings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_prompt_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_prompt_tokens_cache: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_prompt_tokens_processed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<NextToken>,
}

#[derive(Serialize, ToSchema)]
struct NextToken {
    has_next_token: bool,
    n_remain: usize,
    n_decoded: usize,
}

impl Slot {
    fn of(id: usize, n_ctx: usize, task: Option<&Task>) -> Self {
        let processed = |task: &Task| task.processed_tokens.saturating_sub(task.cached_tokens);
        Self {
            id,
            n_ctx,
            speculative: false,
            is_processing: task.is_some(),
            id_task: task.map(|task| task.request),
            index: task.map(|task| task.output),
            params: task.map(|task| Settings::of(&task.sampling, Some(task.limit))),
            n_prompt_tokens: task.map(|task| task.prompt_tokens),
            n_prompt_tokens_cache: task.map(|task| task.cached_tokens),
            n_prompt_tokens_processed: task.map(processed),
            next_token: task.map(NextToken::of),
        }
    }
}

impl NextToken {
    fn of(task: &Task) -> Self {
        let n_remain = task.limit.saturating_sub(task.generated);
        Self {
            has_next_token: n_remain > 0,
            n_remain,
            n_decoded: task.generated,
        }
    }
}

/// What each place of the batch is at
#[utoipa::path(
    get,
    path = "/slots",
    tag = "server",
    params(("fail_on_no_slot" = Option<u8>, Query, description = "1: 503 where no place is free.")),
    responses((status = 200, body = [Slot]))
)]
pub async fn get(
    Ready(model): Ready,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(parameters) =
        parameters.map_err(|error| ApiError::invalid("fail_on_no_slot", error.body_text()))?;
    let tasks = model.engine.slots();
    if parameters.fail_on_no_slot != 0 && tasks.iter().all(Option::is_some) {
        return Err(ApiError::no_slot());
    }
    let n_ctx = model.engine.context_length();
    let slots: Vec<Slot> = tasks
        .iter()
        .enumerate()
        .map(|(id, task)| Slot::of(id, n_ctx, task.as_ref()))
        .collect();
    Ok(Json(slots).into_response())
}
