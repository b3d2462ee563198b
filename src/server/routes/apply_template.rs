//! `POST /apply-template`: the prompt that a chat would be continued from, in llama-server's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::documents::ChatRequest;
use crate::server::body::{Body, RawBody};
use crate::server::error::ApiError;
use crate::server::openai::chat::{self, ChatFields};
use crate::server::openai::sampling::SamplingFields;
use crate::server::openai::{constraint, refused, response_format, shapes};
use crate::server::state::Ready;
use crate::server::submit::offload;
use crate::server::terms::Terms;

/// What the template makes of the messages.
#[derive(Serialize, ToSchema)]
#[schema(as = ApplyTemplateResponse)]
pub struct Prompt {
    prompt: String,
}

/// The prompt that a chat request makes, without generating
///
/// Takes the whole body of a chat request, and checks it like one.
#[utoipa::path(
    post,
    path = "/apply-template",
    tag = "text",
    request_body = ChatRequest,
    responses((status = 200, body = Prompt))
)]
pub async fn post(
    Ready(model): Ready,
    terms: Terms,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let (prompt, ignored) = offload(bytes.len(), move || {
        let mut body = Body::parse(&bytes)?;
        model.check_name(&mut body)?;
        terms.read(&mut body)?;
        refused::chat(&mut body)?;
        shapes::chat(&mut body);
        let fields: ChatFields = body.read()?;
        let sampling: SamplingFields = body.read()?;
        sampling.resolve(&model.text.defaults.0, model.engine.model().vocab_size)?;
        fields.logprobs()?;
        let format = response_format::parse(body.take("response_format"))?;
        constraint::beside(&mut body, format, "response_format")?;
        let asked = chat::conversation(&mut body, fields, model.policy.telling)?;
        Ok((asked.render(&model)?, body.ignored()))
    })
    .await?;
    let mut response = Json(Prompt { prompt }).into_response();
    ignored.report(&mut response);
    Ok(response)
}
