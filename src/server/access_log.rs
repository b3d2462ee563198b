//! One line a request, written when its answer is sent or its client is gone. It says when and how
//! much, never what, and nothing of keys.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::Span;

/// A request from its first moment to its last; written to the log when it is dropped.
pub struct Access {
    span: Span,
    method: String,
    path: String,
    began: Instant,
    /// Status and time of the head.
    head: Option<(u16, f64)>,
    sent: usize,
    whole: bool,
}

impl Access {
    /// A request that was just read.
    pub fn begin(id: &str, request: &Request) -> Self {
        Self {
            span: tracing::info_span!("request", id),
            method: request.method().to_string(),
            // Without the query, which may hold anything.
            path: request.uri().path().to_owned(),
            began: Instant::now(),
            head: None,
            sent: 0,
            whole: false,
        }
    }

    /// What everything that is logged for the request belongs to.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Goes along with the answer to its end.
    pub fn until_sent(mut self, response: Response) -> Response {
        self.head = Some((response.status().as_u16(), self.ms()));
        self.whole = response.body().is_end_stream();
        response.map(|body| Body::new(Logged { body, access: self }))
    }

    fn ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1e3
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let (method, path, ms, sent) = (&self.method, &self.path, self.ms(), self.sent);
        let _within = self.span.enter();
        match (self.head, path.as_str()) {
            // Clients ask for the health several times a second while they wait.
            (Some((status, _)), "/health") => {
                tracing::debug!(method, path, status, ms, "answered");
            }
            (Some((status, head_ms)), _) if self.whole => {
                tracing::info!(method, path, status, head_ms, ms, sent, "answered");
            }
            (Some((status, head_ms)), _) => {
                tracing::info!(method, path, status, head_ms, ms, sent, "broken off");
            }
            (None, _) => tracing::info!(method, path, ms, "given up"),
        }
    }
}

/// A body, polled within its request's span.
struct Logged {
    body: Body,
    access: Access,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let span = self.access.span.clone();
        let _within = span.enter();
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.access.sent += frame.data_ref().map_or(0, Bytes::len);
                // Nobody asks again where a body says that this was the last.
                self.access.whole = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.access.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
