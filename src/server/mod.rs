//! The HTTP server: OpenAI's API over a TCP port or a Unix socket.
//!
//! Requests become typed and checked ([`openai`]), then tokens ([`submit`]), then the engine's; its
//! tokens become text ([`generate`]) in the shapes of an endpoint ([`routes`]). All of that happens
//! on HTTP's threads: the engine's sees token ids only.

pub mod auth;
pub mod body;
mod breakers;
pub mod clock;
mod connections;
pub mod defaults;
pub mod error;
mod fields;
pub mod generate;
pub mod listener;
pub mod load;
mod middleware;
pub mod model;
pub mod openai;
pub mod routes;
mod sse;
pub mod state;
pub mod submit;

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::auth::Keys;
use self::connections::Connections;
use self::listener::{Address, ListenError, Listener};
use self::load::{ModelError, ModelOptions};
use self::state::App;
use crate::hub::HubOptions;

/// How long running requests may go on after the first signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests that were cut off may take to tell their clients so.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// All that the server is told.
pub struct ServerOptions {
    /// Where to listen.
    pub address: Address,
    /// Who may ask.
    pub keys: Keys,
    /// How long a request may take to arrive.
    pub read_timeout: Duration,
    /// What to serve.
    pub model: ModelOptions,
    /// Where models come from.
    pub hub: HubOptions,
}

/// Why the server ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It has nothing to serve.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine is gone, so HTTP goes too.
    #[error("the engine died: {0}")]
    Engine(String),
    /// The system does not let it hear signals.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
}

/// Listens, loads, and serves until a signal (then `Ok`) or a failure ends it.
pub async fn run(options: ServerOptions) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let listener = Listener::bind(&options.address).await?;
    announce(&listener);
    let app = App::new(options.keys, options.read_timeout);
    if !app.keys().required() {
        tracing::warn!(address = %listener, "no API key is set: whoever reaches the server may use it");
    }
    let connections = Connections::new(routes::router(app.clone()), options.read_timeout);
    tokio::select! {
        () = connections.accept(&listener) => {}
        ended = keep_a_model(&app, options.model, &options.hub) => {
            let Err(error) = ended;
            return Err(error);
        }
        () = signals.next() => {}
    }
    // From here nobody finds the socket, and another server may have the address.
    drop(listener);
    if let Some(model) = app.model() {
        model.engine.drain();
        tracing::info!(running = model.engine.stats().running, "shutting down");
        tokio::select! {
            () = drain(&app, connections) => {}
            () = signals.next() => tracing::warn!("a second signal: requests are cut off"),
        }
    }
    Ok(())
}

/// Loads the model and watches over it; only ever ends with an error.
async fn keep_a_model(
    app: &App,
    options: ModelOptions,
    hub: &HubOptions,
) -> Result<Infallible, ServeError> {
    let model = Arc::new(load::load(app, options, hub).await?);
    load::announce(&model, &model.path);
    let engine = model.engine.clone();
    app.ready(model);
    Err(ServeError::Engine(engine.closed().await))
}

async fn drain(app: &App, connections: Connections) {
    let mut drained = std::pin::pin!(connections.drain());
    if tokio::time::timeout(DRAIN_TIMEOUT, &mut drained)
        .await
        .is_ok()
    {
        return;
    }
    tracing::warn!(
        "requests still run after {} s and are cut off",
        DRAIN_TIMEOUT.as_secs()
    );
    app.abort();
    if tokio::time::timeout(ABORT_TIMEOUT, drained).await.is_err() {
        tracing::warn!("some clients do not read their answers");
    }
}

/// Tells the process that started this one where to ask, in one line of JSON.
fn announce(listener: &Listener) {
    let line = serde_json::json!({"event": "listening", "address": listener.to_string()});
    let mut stdout = io::stdout().lock();
    let told = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    if let Err(error) = told {
        tracing::warn!(%error, "stdout is closed");
    }
    tracing::info!(address = %listener, "listening");
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self {
            terminate,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
