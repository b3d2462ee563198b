//! `POST /tokenize`: text to token ids, in llama-server's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::server::body::{Body, RawBody};
use crate::server::error::ApiError;
use crate::server::state::Ready;
use crate::server::submit::offload;

#[derive(Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// The id of the model, or anything: see `--strict-model`.
    #[allow(dead_code, reason = "checked before the others")]
    model: Option<String>,
    content: String,
    /// Whether to add what the tokenizer puts around a text, such as BOS; absent is no.
    #[serde(default)]
    add_special: bool,
    /// Whether `<|…|>` in the text is the special token of that name; absent is yes.
    parse_special: Option<bool>,
    /// Whether to tell each token's text too.
    #[serde(default)]
    with_pieces: bool,
}

/// Ids, or what they stand for too.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenizeResponse)]
pub struct Tokens {
    tokens: Vec<Token>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Token {
    Id(u32),
    WithPiece { id: u32, piece: Piece },
}

/// A token's text, or its bytes where they are none.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = TokenPiece)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|e| Self::Bytes(e.into_bytes()), Self::Text)
    }
}

/// Text to token ids
#[utoipa::path(
    post,
    path = "/tokenize",
    tag = "text",
    request_body = TokenizeRequest,
    responses((status = 200, body = Tokens))
)]
pub async fn post(Ready(model): Ready, RawBody(bytes): RawBody) -> Result<Response, ApiError> {
    let (answer, ignored) = offload(bytes.len(), move || {
        let mut body = Body::parse(&bytes)?;
        model.check_name(&mut body)?;
        let fields: TokenizeRequest = body.read()?;
        let (text, special) = (&fields.content, fields.add_special);
        let ids = if fields.parse_special.unwrap_or(true) {
            model.encode("content", text, special)?
        } else {
            model.encode_plain("content", text, special)?
        };
        let token = |id: u32| match fields.with_pieces {
            false => Token::Id(id),
            true => Token::WithPiece {
                id,
                piece: model.piece(id).0.into(),
            },
        };
        let tokens = ids.into_iter().map(token).collect();
        Ok((Tokens { tokens }, body.ignored()))
    })
    .await?;
    let mut response = Json(answer).into_response();
    ignored.report(&mut response);
    Ok(response)
}
