//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's Messages API.

#[cfg(test)]
mod tests;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use super::documents::{CountTokensRequest, MessageRequest};
use crate::server::anthropic::assembly::Assembly;
use crate::server::anthropic::event::Event;
use crate::server::anthropic::message::{Message, TokensCount};
use crate::server::anthropic::request::{self, Asked};
use crate::server::body::RawBody;
use crate::server::error::ApiError;
use crate::server::generate::{Delta, Step, Summary};
use crate::server::middleware::REQUEST_ID;
use crate::server::sse::{self, Shape};
use crate::server::state::{App, Ready};
use crate::server::submit::{Output, interleave, offload};
use crate::server::terms::Terms;

/// A conversation in, its next message out, in Anthropic's form
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "messages",
    request_body = MessageRequest,
    responses((status = 200, description = "Whole, or a stream of events.", content(
        (Message = "application/json"),
        (Event = "text/event-stream"),
    )))
)]
pub async fn create(
    State(app): State<App>,
    Ready(model): Ready,
    terms: Terms,
    headers: HeaderMap,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let (size, shared) = (bytes.len(), model.clone());
    let asked = offload(size, move || request::read(&shared, &bytes, terms)).await?;
    let Asked {
        prepared,
        limit,
        tells_thoughts,
        stream,
        mut ignored,
    } = asked;
    let message = Message::new(&model.id, prepared.prompt_tokens());
    let assembly = Assembly::new(message, prepared.call_ids(), limit, tells_thoughts);
    let outputs = prepared.submit(&app, &model, &mut ignored).await?;
    let mut response = if stream {
        let id = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
        let request_id = id.map(str::to_owned);
        let shape = Streamed {
            assembly,
            request_id,
        };
        sse::respond(interleave(outputs), shape)
    } else {
        whole(assembly, outputs).await?
    };
    ignored.report(&mut response);
    Ok(response)
}

/// How long the prompt of a message would be
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    tag = "messages",
    request_body = CountTokensRequest,
    responses((status = 200, body = TokensCount))
)]
pub async fn count_tokens(
    Ready(model): Ready,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let size = bytes.len();
    let count = move || request::count(&model, &bytes);
    let (input_tokens, ignored) = offload(size, count).await?;
    let mut response = Json(TokensCount { input_tokens }).into_response();
    ignored.report(&mut response);
    Ok(response)
}

async fn whole(mut assembly: Assembly, outputs: Vec<Output>) -> Result<Response, ApiError> {
    let mut steps = interleave(outputs);
    while let Some(happening) = steps.next().await {
        match happening.step? {
            Step::Delta(delta) => drop(assembly.push(delta.pieces)),
            Step::End(summary) => drop(assembly.end(&summary)),
        }
    }
    Ok(Json(assembly.message()).into_response())
}

/// Tells of a message, event by event.
struct Streamed {
    assembly: Assembly,
    request_id: Option<String>,
}

fn write(events: &[Event]) -> Vec<SseEvent> {
    events.iter().map(Event::write).collect()
}

impl Shape for Streamed {
    fn begin(&mut self) -> Vec<SseEvent> {
        write(&self.assembly.begin())
    }

    fn delta(&mut self, _index: usize, delta: Delta) -> Vec<SseEvent> {
        write(&self.assembly.push(delta.pieces))
    }

    fn end(&mut self, _index: usize, _prompt: usize, summary: &Summary) -> Vec<SseEvent> {
        write(&self.assembly.end(summary))
    }

    fn finish(&mut self) -> Vec<SseEvent> {
        Vec::new()
    }

    fn fail(&mut self, error: &ApiError) -> Vec<SseEvent> {
        let event = Event::Error {
            error: error.into(),
            request_id: self.request_id.take(),
        };
        vec![event.write()]
    }

    fn idle(&self) -> Option<SseEvent> {
        Some(Event::Ping.write())
    }
}
