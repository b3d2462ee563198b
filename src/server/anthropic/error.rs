//! Anthropic's error envelope: `{"type": "error", "error": {"type", "message"}, "request_id"}`.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::error::ApiError;

/// Where the id of a request is looked for by Anthropic's clients.
static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AnthropicError)]
pub struct Failure {
    /// The class of error, which goes with the status.
    r#type: &'static str,
    /// Cause and remedy, for a person; it names the field that is at fault.
    message: String,
}

/// The body around it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicErrorEnvelope)]
pub struct Envelope {
    r#type: &'static str,
    error: Failure,
    request_id: Option<String>,
}

impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        let message = error.message();
        let message = match error.param() {
            // There is no other place for it.
            Some(param) if !message.contains(param) => format!("`{param}`: {message}"),
            _ => message.to_owned(),
        };
        Self {
            r#type: kind(status(error)),
            message,
        }
    }
}

/// The status that goes with `overloaded_error`: Anthropic has no 503.
const OVERLOADED: u16 = 529;

/// The status of an error here.
fn status(error: &ApiError) -> StatusCode {
    match error.status() {
        unavailable @ StatusCode::SERVICE_UNAVAILABLE => {
            StatusCode::from_u16(OVERLOADED).unwrap_or(unavailable)
        }
        status => status,
    }
}

fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        OVERLOADED => "overloaded_error",
        504 => "timeout_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

/// Whether what answers at a path speaks Anthropic's language.
pub fn speaks(path: &str) -> bool {
    let rest = path.strip_prefix("/v1/messages");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An answer with its error, if it is one, in this envelope, whoever made it.
pub fn translated(mut response: Response, id: &HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID.clone(), id.clone());
    let Some(error) = response.extensions().get::<ApiError>() else {
        return response;
    };
    let status = status(error);
    let envelope = Envelope {
        r#type: "error",
        error: error.into(),
        request_id: id.to_str().ok().map(str::to_owned),
    };
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    parts.headers.remove(header::CONTENT_LENGTH);
    let (_, body) = Json(envelope).into_response().into_parts();
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_paths_speak_it() {
        for (path, want) in [
            ("/v1/messages", true),
            ("/v1/messages/count_tokens", true),
            ("/v1/messages/batches", true),
            ("/v1/messagesque", false),
            ("/v1/models", false),
        ] {
            assert_eq!(speaks(path), want, "{path}");
        }
    }

    #[test]
    fn the_message_names_the_field() {
        let message = |param, message| Failure::from(&ApiError::invalid(param, message)).message;
        assert_eq!(message("a.b", "is bad"), "`a.b`: is bad");
        assert_eq!(message("a.b", "`a.b` is bad"), "`a.b` is bad");
        assert_eq!(message("", "bad"), "bad");
    }
}
