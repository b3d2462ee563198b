//! The one error shape of the API: `{"error": {"message", "type", "param", "code"}}`.

mod kinds;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// An answer that is not a success, in OpenAI's envelope.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    /// Cause and remedy, for a person.
    message: String,
    /// OpenAI's class of error, for instance `invalid_request_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Path of the offending field in the request, for instance `messages[0].content`.
    param: Option<String>,
    /// For a program, for instance `context_length_exceeded`.
    code: Option<&'static str>,
    #[serde(skip)]
    retry_after: Option<u32>,
}

/// The body around an [`ApiError`].
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorEnvelope)]
pub struct Envelope<'a> {
    /// What went wrong.
    pub error: &'a ApiError,
}

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            message: message.into(),
            kind,
            param: None,
            code: Some(code),
            retry_after: None,
        }
    }

    fn bad_request(code: &'static str, param: &str, message: impl Into<String>) -> Self {
        let error = Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            code,
            message,
        );
        if param.is_empty() {
            error
        } else {
            Self {
                param: Some(param.to_owned()),
                ..error
            }
        }
    }

    /// The whole answer as it goes over a connection that then closes, for where there is no handler.
    pub fn as_http(&self) -> Vec<u8> {
        let body = serde_json::json!(Envelope { error: self }).to_string();
        let retry = self
            .retry_after
            .map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
        format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{retry}\
             connection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }

    /// The same error for a request that calls fields by other names: pairs of the name here and the
    /// one there.
    pub fn renamed(mut self, names: &[(&str, &str)]) -> Self {
        for (here, there) in names {
            let path = self
                .param
                .as_deref()
                .and_then(|param| param.strip_prefix(here));
            if let Some(path) = path.filter(|path| path.is_empty() || path.starts_with(['.', '[']))
            {
                self.param = Some(format!("{there}{path}"));
            }
            for end in ["`", ".", "["] {
                let (here, there) = (format!("`{here}{end}"), format!("`{there}{end}"));
                self.message = self.message.replace(&here, &there);
            }
        }
        self
    }

    /// The same error for a request whose fields lack a level of nesting.
    pub fn without(mut self, level: &str) -> Self {
        self.param = self.param.map(|param| param.replace(level, ""));
        self.message = self.message.replace(level, "");
        self
    }

    /// The status that the answer carries.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Path of the offending field, where there is one.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The code for programs.
    pub fn code(&self) -> Option<&str> {
        self.code
    }

    /// Cause and remedy.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Envelope { error: &self })).into_response();
        let mut set = |name: HeaderName, value: HeaderValue| {
            response.headers_mut().insert(name, value);
        };
        if let Some(seconds) = self.retry_after {
            set(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            set(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For paths with an envelope of their own.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_go_by_the_names_of_the_request() {
        let names = [("messages", "input"), ("response_format", "text.format")];
        let message = "`messages[0].role` and `messages`, not `messages_too`";
        let error = ApiError::invalid("messages[0].role", message).renamed(&names);
        assert_eq!(error.param(), Some("input[0].role"));
        assert_eq!(
            error.message(),
            "`input[0].role` and `input`, not `messages_too`"
        );
        let error = ApiError::invalid("response_format", "x").renamed(&names);
        assert_eq!(error.param(), Some("text.format"));
        let error = ApiError::invalid("messages_too", "x").renamed(&names);
        assert_eq!(error.param(), Some("messages_too"));
    }
}
