//! A request's body as bytes: declared as JSON, within the limits of size and time.

use std::time::Duration;

use axum::body::{BodyDataStream, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use tokio::time::timeout;

use crate::server::error::ApiError;
use crate::server::state::App;

/// Largest body that is read, in bytes.
pub const BODY_LIMIT: usize = 16 << 20;

/// How long a body that is refused is read and thrown away: a client that still writes would lose the
/// answer with the connection.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long such a client may pause. One that sends nothing loses nothing either.
const DISCARD_PAUSE: Duration = Duration::from_secs(1);

/// A body as it came: not declared as anything but JSON, within the limits of size and time.
pub struct RawBody(pub Vec<u8>);

impl FromRequest<App> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let declared = request.body().size_hint().lower();
        let refused = match declared > BODY_LIMIT as u64 {
            true => Some(ApiError::too_large(BODY_LIMIT)),
            false => readable(request.headers()).err(),
        };
        // Such a client asks before it sends.
        let asks_first = request.headers().contains_key(header::EXPECT);
        let mut body = request.into_body().into_data_stream();
        if let Some(refused) = refused {
            if !asks_first {
                discard(&mut body).await;
            }
            return Err(refused);
        }
        let limit = app.read_timeout();
        let read = timeout(limit, read(&mut body, declared as usize)).await;
        read.map_err(|_| ApiError::body_timeout(limit.as_secs()))?
            .map(Self)
    }
}

async fn read(body: &mut BodyDataStream, declared: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::with_capacity(declared);
    while let Some(chunk) = body.next().await {
        let broken = |error| ApiError::malformed(format!("the body broke off: {error}"));
        let chunk = chunk.map_err(broken)?;
        if bytes.len() + chunk.len() > BODY_LIMIT {
            discard(body).await;
            return Err(ApiError::too_large(BODY_LIMIT));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn discard(body: &mut BodyDataStream) {
    let rest = async { while let Ok(Some(Ok(_))) = timeout(DISCARD_PAUSE, body.next()).await {} };
    if timeout(DISCARD_TIMEOUT, rest).await.is_err() {
        tracing::debug!("a body that was refused did not come to an end");
    }
}

/// Refuses what is declared as anything but JSON in UTF-8, as it is. A browser sends the forms of any
/// site without asking first, but not JSON.
fn readable(headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let mut parts = value.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        if essence != "application/json" && !essence.ends_with("+json") {
            return Err(ApiError::not_json());
        }
        let charset = parts.find_map(|part| part.strip_prefix("charset="));
        let charset = charset.map(|name| name.trim_matches('"'));
        if charset.is_some_and(|name| !matches!(name, "utf-8" | "utf8" | "us-ascii")) {
            return Err(ApiError::not_utf8());
        }
    }
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    match codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        true => Ok(()),
        false => Err(ApiError::encoded()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{HeaderName, HeaderValue};

    fn code(name: HeaderName, value: &'static str) -> Option<u16> {
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        readable(&headers).err().map(|error| error.status().into())
    }

    #[test]
    fn json_in_utf8_is_read_and_nothing_else() {
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"; profile=x",
            "application/vnd.api+json",
        ] {
            assert_eq!(code(header::CONTENT_TYPE, good), None, "{good}");
        }
        for bad in [
            "",
            "json",
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/json; charset=latin-1",
            "application/json; profile=x; charset=\"utf-16\"",
        ] {
            assert_eq!(code(header::CONTENT_TYPE, bad), Some(415), "{bad}");
        }
        assert!(readable(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn compressed_bodies_are_refused() {
        assert_eq!(code(header::CONTENT_ENCODING, "Identity"), None);
        for coding in ["gzip", "br", "identity, gzip", ""] {
            let code = code(header::CONTENT_ENCODING, coding);
            assert_eq!(code, Some(415), "{coding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_client_that_sends_nothing_is_answered_soon() {
        let silence = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let began = tokio::time::Instant::now();
        discard(&mut Body::from_stream(silence).into_data_stream()).await;
        assert_eq!(began.elapsed().as_secs(), DISCARD_PAUSE.as_secs());
    }
}
