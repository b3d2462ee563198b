//! HTTP/1 over accepted connections, and how they end.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;

use super::listener::{Accepted, Listener};

/// Largest head of a request, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Pause after a failed accept, for instance when there are no file descriptors left: they come back
/// as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until it is drained.
pub struct Connections {
    router: Router,
    http: http1::Builder,
    graceful: GracefulShutdown,
}

impl Connections {
    /// `read_timeout` bounds how long a request's head may take, and a connection may be idle.
    pub fn new(router: Router, read_timeout: Duration) -> Self {
        let mut http = http1::Builder::new();
        // Not half-close: a client that ends its side has gone, and the handler ends with it, which
        // cancels the generation.
        http.timer(TokioTimer::new())
            .header_read_timeout(read_timeout)
            .max_header_size(HEAD_LIMIT)
            .half_close(false);
        Self {
            router,
            http,
            graceful: GracefulShutdown::new(),
        }
    }

    /// Accepts for ever.
    pub async fn accept(&self, listener: &Listener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok(accepted) => self.serve(accepted),
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

    fn serve(&self, accepted: Accepted) {
        let Accepted { stream, hangup } = accepted;
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            // Clients come and go; that is no news for the log of a server.
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                },
                () = hangup.wait() => tracing::debug!("a client hung up"),
            }
        });
    }

    /// Lets running requests end, and closes connections as they do.
    pub async fn drain(self) {
        self.graceful.shutdown().await;
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
