//! `POST /v1/responses`: a conversation in, its next items out, kept to be continued.

pub mod kept;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::documents::{CountRequest, ResponseRequest};
use crate::server::auth::KeyId;
use crate::server::body::RawBody;
use crate::server::error::ApiError;
use crate::server::generate::{Delta, Step, Summary};
use crate::server::model::ServedModel;
use crate::server::responses::assembly::Assembly;
use crate::server::responses::event::{Event, Numbers};
use crate::server::responses::request::{self, Asked};
use crate::server::responses::response;
use crate::server::responses::store::Kept;
use crate::server::sse::{self, Shape};
use crate::server::state::{App, Ready};
use crate::server::submit::{Output, interleave, offload};
use crate::server::terms::Terms;
use crate::server::usage::Purpose;

/// The next items of a conversation
///
/// The response is kept, to be read and continued, unless `store` is false.
#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "responses",
    request_body = ResponseRequest,
    responses((status = 200, description = "Whole, or a stream of events.", content(
        (response::Response = "application/json"),
        (Event = "text/event-stream"),
    )))
)]
pub async fn create(
    State(app): State<App>,
    Ready(model): Ready,
    owner: KeyId,
    terms: Terms,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let (size, reader, shared) = (bytes.len(), app.clone(), model.clone());
    let read = move || request::read(&shared, reader.responses(), owner, &bytes, terms);
    let asked = offload(size, read).await?;
    let Asked {
        prepared,
        kept,
        logprobs,
        stream,
        mut ignored,
    } = asked;
    let assembly = Assembly::new(kept.response.clone(), prepared.call_ids(), logprobs);
    let outputs = prepared.submit(&app, &model, &mut ignored).await?;
    let making = Making {
        assembly,
        model,
        app,
        owner,
        kept,
    };
    let mut response = if stream {
        let numbers = Numbers::default();
        sse::respond(interleave(outputs), Streamed { making, numbers })
    } else if making.kept.response.settings.background {
        making.in_background(outputs)?
    } else {
        making.whole(outputs).await?
    };
    ignored.report(&mut response);
    Ok(response)
}

/// How long a prompt is.
#[derive(Serialize, ToSchema)]
#[schema(as = ResponseInputTokenCount)]
pub struct InputTokens {
    object: &'static str,
    input_tokens: usize,
}

/// How long the prompt of a request would be
#[utoipa::path(
    post,
    path = "/v1/responses/input_tokens",
    tag = "responses",
    request_body = CountRequest,
    responses((status = 200, body = InputTokens))
)]
pub async fn input_tokens(
    State(app): State<App>,
    Ready(model): Ready,
    owner: KeyId,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let size = bytes.len();
    let count = move || request::count(&model, app.responses(), owner, &bytes);
    let (input_tokens, ignored) = offload(size, count).await?;
    let mut response = Json(InputTokens {
        object: "response.input_tokens",
        input_tokens,
    })
    .into_response();
    ignored.report(&mut response);
    Ok(response)
}

/// A response that is made.
struct Making {
    assembly: Assembly,
    model: Arc<ServedModel>,
    app: App,
    owner: KeyId,
    kept: Kept,
}

impl Making {
    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        let model = &self.model;
        self.assembly.push(delta, |id| model.piece(id))
    }

    fn step(&mut self, step: Step) -> Vec<Event> {
        match step {
            Step::Delta(delta) => self.delta(delta),
            Step::End(summary) => self.assembly.end(&summary),
        }
    }

    /// Keeps what was made, if that was asked for.
    fn keep(&mut self) {
        if self.kept.response.settings.store {
            self.kept.response = self.assembly.response().clone();
            let responses = self.app.responses();
            responses.keep(self.owner, self.kept.clone(), None);
        }
    }

    async fn whole(mut self, outputs: Vec<Output>) -> Result<Response, ApiError> {
        let mut steps = interleave(outputs);
        while let Some(happening) = steps.next().await {
            self.step(happening.step?);
        }
        self.keep();
        Ok(Json(self.assembly.response()).into_response())
    }

    /// Answers at once; the response is made by a task of its own, and read from where it is kept.
    fn in_background(mut self, outputs: Vec<Output>) -> Result<Response, ApiError> {
        let user = self.app.usage().enter(Purpose::Request)?;
        let (app, owner, kept) = (self.app.clone(), self.owner, self.kept.clone());
        let (go, kept_now) = oneshot::channel();
        let task = tokio::spawn(async move {
            if kept_now.await.is_ok() {
                self.run(outputs).await;
            }
            drop(user);
        });
        let response = Json(&kept.response).into_response();
        app.responses().keep(owner, kept, Some(task.abort_handle()));
        // It fails only where the task is gone already.
        let _told = go.send(());
        Ok(response)
    }

    async fn run(&mut self, outputs: Vec<Output>) {
        let mut steps = interleave(outputs);
        let mut begun = false;
        while let Some(happening) = steps.next().await {
            match happening.step {
                Ok(step) => drop(self.step(step)),
                Err(error) => {
                    tracing::error!(error = error.message(), "a background response failed");
                    self.assembly.fail(&error);
                }
            }
            let response = self.assembly.response();
            if !begun || response.status.is_final() {
                self.app.responses().advance(response);
            }
            begun = true;
        }
    }
}

/// Tells of it, event by event.
struct Streamed {
    making: Making,
    numbers: Numbers,
}

impl Streamed {
    fn write(&mut self, events: Vec<Event>) -> Vec<SseEvent> {
        let write = |event| self.numbers.write(event);
        events.iter().map(write).collect()
    }
}

impl Shape for Streamed {
    fn begin(&mut self) -> Vec<SseEvent> {
        let events = self.making.assembly.begin();
        self.write(events)
    }

    fn delta(&mut self, _index: usize, delta: Delta) -> Vec<SseEvent> {
        let events = self.making.delta(delta);
        self.write(events)
    }

    fn end(&mut self, _index: usize, _prompt: usize, summary: &Summary) -> Vec<SseEvent> {
        let events = self.making.assembly.end(summary);
        // Before its client hears of the end, so that it can be continued at once.
        self.making.keep();
        self.write(events)
    }

    fn finish(&mut self) -> Vec<SseEvent> {
        Vec::new()
    }

    fn fail(&mut self, error: &ApiError) -> Vec<SseEvent> {
        let events = self.making.assembly.fail(error);
        self.making.keep();
        self.write(events)
    }
}
