//! HTTP/1 over accepted connections, and how they end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::error::ApiError;
use super::listener::{Accepted, Connection, Listener};
use super::stall::Stall;
use super::tls::Tls;

/// Largest head of a request, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Most lines in it.
const HEAD_LINES: usize = 100;

/// Pause after a failed accept, for instance when there are no file descriptors left: they come back
/// as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections beyond the limit that are told so at a time; others are just closed.
const REFUSALS: usize = 32;

/// How long telling one may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a request's head may take to arrive, a client may not read what it is sent, and a
    /// connection may be idle.
    pub timeout: Duration,
    /// Connections at a time.
    pub connections: usize,
}

/// Serves connections until it is drained.
pub struct Connections {
    router: Router,
    http: http1::Builder,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    graceful: GracefulShutdown,
    closing: watch::Sender<bool>,
}

impl Connections {
    /// Over TLS where that is given.
    pub fn new(router: Router, limits: Limits, tls: Option<Arc<Tls>>) -> Self {
        let mut http = http1::Builder::new();
        // Not half-close: a client that ends its side has gone, and the handler ends with it, which
        // cancels the generation.
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.timeout)
            .max_header_size(HEAD_LIMIT)
            .max_headers(HEAD_LINES)
            .half_close(false);
        Self {
            router,
            http,
            tls,
            limits,
            places: Arc::new(Semaphore::new(limits.connections)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            graceful: GracefulShutdown::new(),
            closing: watch::Sender::new(false),
        }
    }

    /// Accepts for ever.
    pub async fn accept(&self, listener: &Listener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok(accepted) => match self.places.clone().try_acquire_owned() {
                    Ok(place) => self.serve(accepted, place),
                    Err(_) => self.refuse(accepted),
                },
                Err(error) if is_the_clients(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, accepted: Accepted, place: OwnedSemaphorePermit) {
        let Accepted { stream, hangup } = accepted;
        let stream = Stall::new(stream, self.limits.timeout);
        let serving = Serving {
            router: self.router.clone(),
            http: self.http.clone(),
            graceful: self.graceful.watcher(),
        };
        let (tls, mut closing) = (self.tls.clone(), self.closing.subscribe());
        tokio::spawn(async move {
            let _place = place;
            let served = async {
                let Some(tls) = tls else {
                    return serving.run(stream).await;
                };
                // Nobody waits at the end for a client that has not said a word yet.
                let stream = tokio::select! {
                    agreed = tls.accept(stream) => agreed.map_err(Broken::Tls)?,
                    _ = closing.wait_for(|&closing| closing) => return Ok(()),
                };
                serving.run(stream).await
            };
            // Clients come and go; that is no news for the log of a server.
            tokio::select! {
                ended = served => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                },
                () = hangup.wait() => tracing::debug!("a client hung up"),
            }
        });
    }

    /// Tells a client that there are too many.
    fn refuse(&self, accepted: Accepted) {
        tracing::warn!(
            connections = self.limits.connections,
            "too many connections: one is refused"
        );
        // In the clear nothing can be said to one who expects TLS.
        let Ok(turn) = self.refusals.clone().try_acquire_owned() else {
            return;
        };
        if self.tls.is_some() {
            return;
        }
        let answer = ApiError::too_many_connections(self.limits.connections).as_http();
        tokio::spawn(async move {
            let _turn = turn;
            let told = tell(accepted.stream, &answer);
            if !matches!(
                tokio::time::timeout(REFUSAL_TIMEOUT, told).await,
                Ok(Ok(()))
            ) {
                tracing::debug!("a refused client did not listen");
            }
        });
    }

    /// Lets running requests end, and closes connections as they do.
    pub async fn drain(self) {
        self.closing.send_replace(true);
        self.graceful.shutdown().await;
    }
}

/// What a connection is served with.
struct Serving {
    router: Router,
    http: http1::Builder,
    graceful: Watcher,
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Tls(io::Error),
    #[error("{0}")]
    Http(hyper::Error),
}

impl Serving {
    async fn run(self, stream: impl Connection + 'static) -> Result<(), Broken> {
        let service = TowerToHyperService::new(self.router);
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        self.graceful.watch(connection).await.map_err(Broken::Http)
    }
}

/// Writes an answer, and reads what the client sends meanwhile: it would lose the answer otherwise.
async fn tell(mut stream: impl Connection, answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
