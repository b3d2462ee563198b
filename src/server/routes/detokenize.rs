//! `POST /detokenize`: token ids to text, special tokens by their names, in llama-server's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::server::body::{Body, RawBody};
use crate::server::error::ApiError;
use crate::server::openai::completions::tokens;
use crate::server::state::Ready;
use crate::server::submit::offload;

/// Token ids. Read by hand, so that an error names the one at fault.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `post` reads")]
pub struct DetokenizeRequest {
    /// The id of the model, or anything: see `--strict-model`.
    model: Option<String>,
    tokens: Vec<u32>,
}

/// Their text.
#[derive(Serialize, ToSchema)]
#[schema(as = DetokenizeResponse)]
pub struct Text {
    content: String,
}

/// Token ids to text
#[utoipa::path(
    post,
    path = "/detokenize",
    tag = "text",
    request_body = DetokenizeRequest,
    responses((status = 200, body = Text))
)]
pub async fn post(Ready(model): Ready, RawBody(bytes): RawBody) -> Result<Response, ApiError> {
    let (content, ignored) = offload(bytes.len(), move || {
        let mut body = Body::parse(&bytes)?;
        model.check_name(&mut body)?;
        let ids = match body.take("tokens") {
            Some(Value::Array(list)) => tokens("tokens", list)?,
            Some(_) => {
                return Err(ApiError::wrong_type(
                    "tokens",
                    "`tokens` must be a list of ids",
                ));
            }
            None => return Err(ApiError::missing("tokens", "`tokens` is required")),
        };
        let vocab = model.engine.model().vocab_size;
        if let Some(at) = ids.iter().position(|&id| id as usize >= vocab) {
            let message = format!(
                "the model has no token {}; ids go to {}",
                ids[at],
                vocab - 1
            );
            return Err(ApiError::invalid(&format!("tokens[{at}]"), message));
        }
        let text = model.text.tokenizer.decode(&ids, false);
        let text = text.map_err(|error| ApiError::invalid("tokens", error.to_string()))?;
        Ok((text, body.ignored()))
    })
    .await?;
    let mut response = Json(Text { content }).into_response();
    ignored.report(&mut response);
    Ok(response)
}
