//! `POST /tokenize`: text to token ids, in llama-server's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::server::body::{Body, RawBody};
use crate::server::error::ApiError;
use crate::server::state::Ready;
use crate::server::submit::offload;

#[derive(Deserialize)]
struct Fields {
    content: String,
    /// Whether to add what the tokenizer puts around a text, such as BOS.
    #[serde(default)]
    add_special: bool,
    /// Whether `<|…|>` in the text is a special token; only that is supported.
    parse_special: Option<bool>,
    #[serde(default)]
    with_pieces: bool,
}

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<Value>,
}

pub async fn post(Ready(model): Ready, RawBody(bytes): RawBody) -> Result<Response, ApiError> {
    let (answer, ignored) = offload(bytes.len(), move || {
        let mut body = Body::parse(&bytes)?;
        let fields: Fields = body.read()?;
        if fields.parse_special == Some(false) {
            let message = "`parse_special: false` is not supported; special tokens are always read";
            return Err(ApiError::unsupported("parse_special", message));
        }
        let ids = model.encode("content", &fields.content, fields.add_special)?;
        let token = |id: u32| match fields.with_pieces {
            false => id.into(),
            true => {
                let bytes = model.piece(id).0;
                let piece =
                    String::from_utf8(bytes).map_or_else(|e| json!(e.into_bytes()), Value::from);
                json!({"id": id, "piece": piece})
            }
        };
        Ok((
            Tokens {
                tokens: ids.into_iter().map(token).collect(),
            },
            body.ignored(),
        ))
    })
    .await?;
    let mut response = Json(answer).into_response();
    ignored.report(&mut response);
    Ok(response)
}
