//! What can be wrong: for each fault a status, a code for programs and words for people.

use axum::http::StatusCode;

use super::ApiError;
use crate::engine::EngineError;
use crate::server::usage::{LEASE_LIMIT, Refused};

/// How long a client that was turned away should wait, in seconds.
const RETRY_AFTER: u32 = 1;

impl ApiError {
    /// 400: a field's value is out of its range or makes no sense.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_value", param, message)
    }

    /// 400: a field has the wrong JSON type.
    pub fn wrong_type(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_type", param, message)
    }

    /// 400: a field that must be there is not.
    pub fn missing(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request("missing_required_parameter", param, message)
    }

    /// 400: a field that this server knows and does not honour.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", param, message)
    }

    /// 400: the body is not JSON.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::bad_request("invalid_json", "", message)
    }

    /// 400: the prompt fills the context.
    pub fn context_exceeded(param: &str, prompt: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {prompt} tokens and the context holds {context}, with at least one \
             for the answer; shorten the prompt or start the server with a larger --ctx-size"
        );
        Self::bad_request("context_length_exceeded", param, message)
    }

    /// 401. It begins as OpenAI's does: litellm tells by these words which error to raise.
    pub fn unauthorized() -> Self {
        let message = "Incorrect API key provided, or none: send the header \
                       `Authorization: Bearer <key>` or `x-api-key: <key>`";
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_request_error",
            "invalid_api_key",
            message,
        )
    }

    /// 400: sent to several names.
    pub fn several_hosts() -> Self {
        Self::bad_request("invalid_host", "", "send one header `Host`")
    }

    /// 403: sent to a name that is none of the server's.
    pub fn foreign_host(host: &str) -> Self {
        let host: String = host.chars().take(64).collect();
        let message = format!(
            "this server does not go by the name `{host}`; ask 127.0.0.1 or localhost, or start it with \
             --allowed-hosts"
        );
        Self::forbidden("host_not_allowed", message)
    }

    /// 403: sent by the script of another site.
    pub fn foreign_origin() -> Self {
        let message = "this server takes no requests from other sites' scripts; start it with \
                       --allowed-origins, or with an API key";
        Self::forbidden("origin_not_allowed", message)
    }

    fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", code, message)
    }

    /// 404: a path that is no route.
    pub fn not_found(path: &str) -> Self {
        let message = format!("no route {path}; the routes are listed at GET /");
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "not_found",
            message,
        )
    }

    /// 404: a model that is not the one served.
    pub fn model_not_found(asked: &str, served: &str) -> Self {
        let message = format!("the model `{asked}` is not served here; `{served}` is");
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "model_not_found",
            message,
        )
    }

    /// 400: a response that is to be continued and is not kept.
    pub fn previous_response_not_found(id: &str) -> Self {
        let message = format!("the response `{id}` is not kept, or not any more");
        Self::bad_request(
            "previous_response_not_found",
            "previous_response_id",
            message,
        )
    }

    /// 404: a response that is not kept, or is another key's.
    pub fn response_not_found(id: &str) -> Self {
        let message = format!("the response `{id}` is not kept, or not any more");
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "response_not_found",
            message,
        )
    }

    /// 405.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{path} does not answer {method}");
        let code = "method_not_allowed";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            code,
            message,
        )
    }

    /// 408: the body did not arrive in time.
    pub fn body_timeout(seconds: u64) -> Self {
        let message = format!("the request body did not arrive within {seconds} s");
        let code = "request_timeout";
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            code,
            message,
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the request body is over the limit of {limit} bytes");
        let code = "body_too_large";
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            code,
            message,
        )
    }

    /// 415: the body is declared as something that is not JSON.
    pub fn not_json() -> Self {
        let message = "send the body as JSON, with the header `Content-Type: application/json`";
        Self::unsupported_media(message)
    }

    /// 415: the body is declared as text in another encoding.
    pub fn not_utf8() -> Self {
        Self::unsupported_media("send the body in UTF-8: JSON has no other charset")
    }

    /// 415: the body is compressed.
    pub fn encoded() -> Self {
        Self::unsupported_media("send the body as it is, without `Content-Encoding`")
    }

    fn unsupported_media(message: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "unsupported_media_type",
            message,
        )
    }

    /// 500: the server's own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        let code = "internal_error";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            code,
            message,
        )
    }

    /// 503: the model is not ready yet.
    pub fn loading() -> Self {
        let message = "loading model";
        Self::unavailable("model_loading", message).retry(RETRY_AFTER)
    }

    /// 503: the server is going away.
    pub fn shutting_down() -> Self {
        Self::unavailable("shutting_down", EngineError::ShuttingDown.to_string())
    }

    /// 503: as many leases are held as may be.
    pub fn too_many_leases() -> Self {
        let message = format!("{LEASE_LIMIT} leases are held, and more are not given");
        Self::unavailable("too_many_leases", message).retry(RETRY_AFTER)
    }

    /// 503: all of the batch's places are taken, which was asked for.
    pub fn no_slot() -> Self {
        let message = "every slot is taken";
        Self::unavailable("no_slot_available", message).retry(RETRY_AFTER)
    }

    /// 503: grammars that take too long are being compiled.
    pub fn grammars_busy(message: impl Into<String>) -> Self {
        Self::unavailable("overloaded", message).retry(RETRY_AFTER)
    }

    /// 503: as many connections are open as may be.
    pub fn too_many_connections(limit: usize) -> Self {
        let message = format!("{limit} connections are open, and more are not taken");
        Self::unavailable("too_many_connections", message).retry(RETRY_AFTER)
    }

    fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable_error",
            code,
            message,
        )
    }

    fn retry(self, seconds: u32) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::QueueFull(_) => {
                Self::unavailable("queue_full", message).retry(RETRY_AFTER)
            }
            EngineError::ShuttingDown => Self::shutting_down(),
            EngineError::ContextExceeded { prompt, context } => {
                Self::context_exceeded("", prompt, context)
            }
            EngineError::EmptyPrompt
            | EngineError::UnknownToken { .. }
            | EngineError::GrammarTooComplex(_) => Self::invalid("", message),
            EngineError::DeadlineExceeded => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout_error",
                "deadline_exceeded",
                message,
            ),
            EngineError::Grammar(_) | EngineError::Compute(_) => Self::internal(message),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed => Self::shutting_down(),
            Refused::TooManyLeases => Self::too_many_leases(),
        }
    }
}
