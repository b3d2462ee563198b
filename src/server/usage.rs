//! Who uses the server: requests at work, and leases that clients hold.
//!
//! The count decides when a server that nobody uses may end (`--exit-when-idle`). Once it decides so
//! it is closed in the same moment, and nobody new comes in: a client is refused, never cut off.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;

/// Most leases at a time. Each holds a connection, and processes may open some hundred of them.
pub const LEASE_LIMIT: usize = 128;

/// Counts the users. Cheap to clone; clones count together.
#[derive(Clone, Default)]
pub struct Usage(Arc<watch::Sender<Count>>);

#[derive(Default)]
struct Count {
    requests: usize,
    leases: usize,
    closed: bool,
}

/// What a user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Has a request answered.
    Request,
    /// Wants the server to stay.
    Lease,
}

/// Why nobody else comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The server is going away.
    Closed,
    /// As many leases are held as may be.
    TooManyLeases,
}

/// A user, until it is dropped.
pub struct User {
    usage: Usage,
    purpose: Purpose,
}

impl Usage {
    /// Counts a user in.
    pub fn enter(&self, purpose: Purpose) -> Result<User, Refused> {
        let mut refused = None;
        self.0.send_if_modified(|count| {
            refused = count.refuses(purpose);
            if refused.is_none() {
                *count.of(purpose) += 1;
            }
            refused.is_none()
        });
        match refused {
            Some(refused) => Err(refused),
            None => Ok(User {
                usage: self.clone(),
                purpose,
            }),
        }
    }

    /// Leases that are held.
    pub fn leases(&self) -> usize {
        self.0.borrow().leases
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.0.send_modify(|count| count.closed = true);
    }

    /// Resolves when nobody is let in any more.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut count = self.0.subscribe();
        let keep = self.clone();
        async move {
            // The sender lives as long as `keep`, so this can only end by the news.
            drop(count.wait_for(|count| count.closed).await);
            drop(keep);
        }
    }

    /// Resolves when nobody has used the server for `time` from now on, and closes it.
    pub async fn unused_for(&self, time: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // Neither wait can fail: the sender lives as long as `self`.
            drop(count.wait_for(Count::is_unused).await);
            // Any change, as somebody may come and go without this one being woken in between.
            if tokio::time::timeout(time, count.changed()).await.is_ok() {
                continue;
            }
            let closed = self.0.send_if_modified(|count| {
                count.closed |= count.is_unused();
                count.closed
            });
            if closed {
                return;
            }
        }
    }
}

impl Count {
    fn of(&mut self, purpose: Purpose) -> &mut usize {
        match purpose {
            Purpose::Request => &mut self.requests,
            Purpose::Lease => &mut self.leases,
        }
    }

    fn refuses(&self, purpose: Purpose) -> Option<Refused> {
        if self.closed {
            Some(Refused::Closed)
        } else if purpose == Purpose::Lease && self.leases >= LEASE_LIMIT {
            Some(Refused::TooManyLeases)
        } else {
            None
        }
    }

    fn is_unused(&self) -> bool {
        self.requests == 0 && self.leases == 0
    }
}

impl User {
    /// Counts as a user until the response is sent to its end, or its client is gone.
    pub fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(Counted { body, _user: self }))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.usage
            .0
            .send_modify(|count| *count.of(self.purpose) -= 1);
    }
}

/// A body with the user that it is for.
struct Counted {
    body: Body,
    _user: User,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    async fn is_over(usage: &Usage, after: Duration) -> bool {
        tokio::time::timeout(after, usage.unused_for(TIME))
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_nobody_came_for_the_time() {
        let usage = Usage::default();
        assert!(!is_over(&usage, TIME / 2).await);
        assert!(is_over(&usage, TIME * 2).await);
        assert_eq!(usage.enter(Purpose::Request).err(), Some(Refused::Closed));
        assert_eq!(usage.enter(Purpose::Lease).err(), Some(Refused::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_keeps_it_up_and_its_end_starts_the_time_anew() {
        for purpose in [Purpose::Request, Purpose::Lease] {
            let usage = Usage::default();
            let user = usage.enter(purpose).unwrap();
            assert!(!is_over(&usage, TIME * 3).await);
            let started = tokio::time::Instant::now();
            let (at, ()) = tokio::join!(
                async {
                    usage.unused_for(TIME).await;
                    started.elapsed()
                },
                async {
                    tokio::time::sleep(TIME * 2).await;
                    drop(user);
                    tokio::time::sleep(TIME / 2).await;
                    drop(usage.enter(purpose).unwrap());
                }
            );
            assert!((TIME * 7 / 2..TIME * 4).contains(&at), "{at:?}");
        }
    }

    #[tokio::test]
    async fn a_response_counts_until_it_is_sent() {
        let usage = Usage::default();
        let user = usage.enter(Purpose::Request).unwrap();
        let response = user.until_sent(Response::new(Body::from("hello")));
        assert_eq!(usage.0.borrow().requests, 1);
        assert_eq!(response.body().size_hint().exact(), Some(5));
        let body = axum::body::to_bytes(response.into_body(), 10).await;
        assert_eq!(body.unwrap(), "hello");
        assert_eq!(usage.0.borrow().requests, 0);
    }

    #[test]
    fn leases_are_bounded_and_requests_are_not() {
        let usage = Usage::default();
        let mut users: Vec<User> = (0..LEASE_LIMIT)
            .map(|_| usage.enter(Purpose::Lease).unwrap())
            .collect();
        let refused = usage.enter(Purpose::Lease).err();
        assert_eq!(refused, Some(Refused::TooManyLeases));
        usage.enter(Purpose::Request).unwrap();
        users.pop();
        usage.enter(Purpose::Lease).unwrap();
        assert_eq!(usage.leases(), LEASE_LIMIT - 1);
    }
}
