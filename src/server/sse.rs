//! Server-sent events: a request's steps, in the shapes of an endpoint.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;

use super::error::{ApiError, Envelope};
use super::generate::{Delta, Step, Summary};
use super::submit::Happening;

/// Pause after which the client is told that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How an endpoint says what happens.
pub trait Shape: Send + 'static {
    /// Before anything is generated.
    fn begin(&mut self) -> Vec<Event>;
    /// More of an output.
    fn delta(&mut self, index: usize, delta: Delta) -> Vec<Event>;
    /// The end of an output, which continued the prompt with the index `prompt`.
    fn end(&mut self, index: usize, prompt: usize, summary: &Summary) -> Vec<Event>;
    /// After the end of all outputs.
    fn finish(&mut self) -> Vec<Event>;
    /// What tells an idle client that the connection lives; `None` is a comment.
    fn idle(&self) -> Option<Event> {
        None
    }
    /// It failed: nothing comes after this.
    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        vec![data(&Envelope { error })]
    }
}

/// An event that carries JSON.
pub fn data(value: &impl Serialize) -> Event {
    fill(Event::default(), value)
}

/// One with a name, which stands first as in the APIs that name theirs: some readers count on it.
pub fn named(name: &str, value: &impl Serialize) -> Event {
    fill(Event::default().event(name), value)
}

fn fill(event: Event, value: &impl Serialize) -> Event {
    match serde_json::to_string(value) {
        Ok(json) => event.data(json),
        // The shapes are plain structs with string keys; this is for one that would not be.
        Err(error) => {
            let error = ApiError::internal(error.to_string());
            event.data(serde_json::json!(Envelope { error: &error }).to_string())
        }
    }
}

/// Streams `steps`; a failure after the start is an event with the error envelope, and the end.
pub fn respond(
    steps: impl Stream<Item = Happening> + Send + Unpin + 'static,
    mut shape: impl Shape,
) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let keep_alive = match shape.idle() {
        Some(event) => keep_alive.event(event),
        None => keep_alive,
    };
    let queue: VecDeque<Event> = shape.begin().into();
    let state = Running {
        steps,
        shape,
        queue,
        over: false,
    };
    let events = stream::unfold(state, |mut state| async move {
        state
            .next()
            .await
            .map(|event| (Ok::<_, Infallible>(event), state))
    });
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Proxies such as nginx hold streams back otherwise.
    let headers = response.headers_mut();
    headers.insert(
        "x-accel-buffering",
        axum::http::HeaderValue::from_static("no"),
    );
    response
}

struct Running<S, F> {
    steps: S,
    shape: F,
    queue: VecDeque<Event>,
    over: bool,
}

impl<S: Stream<Item = Happening> + Unpin, F: Shape> Running<S, F> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            let events = match self.steps.next().await {
                Some(Happening {
                    index,
                    prompt,
                    step,
                }) => match step {
                    Ok(Step::Delta(delta)) => self.shape.delta(index, delta),
                    Ok(Step::End(summary)) => self.shape.end(index, prompt, &summary),
                    Err(error) => {
                        tracing::error!(error = error.message(), "a stream broke off");
                        self.over = true;
                        self.shape.fail(&error)
                    }
                },
                None => {
                    self.over = true;
                    self.shape.finish()
                }
            };
            self.queue.extend(events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pinging;

    impl Shape for Pinging {
        fn begin(&mut self) -> Vec<Event> {
            Vec::new()
        }

        fn delta(&mut self, _index: usize, _delta: Delta) -> Vec<Event> {
            Vec::new()
        }

        fn end(&mut self, _index: usize, _prompt: usize, _summary: &Summary) -> Vec<Event> {
            Vec::new()
        }

        fn finish(&mut self) -> Vec<Event> {
            Vec::new()
        }

        fn idle(&self) -> Option<Event> {
            Some(Event::default().event("ping").data("{}"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_says_so_in_the_shapes_own_way() {
        let body = respond(stream::pending(), Pinging).into_body();
        let mut chunks = body.into_data_stream();
        for _ in 0..2 {
            let chunk = chunks.next().await.unwrap().unwrap();
            assert_eq!(chunk, "event: ping\ndata: {}\n\n");
        }
    }
}
