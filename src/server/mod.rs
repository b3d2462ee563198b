//! The HTTP server: OpenAI's API over a TCP port or a Unix socket.
//!
//! Requests become typed and checked ([`openai`]), then tokens ([`submit`]), then the engine's; its
//! tokens become text ([`generate`]) in the shapes of an endpoint ([`routes`]). All of that happens
//! on HTTP's threads: the engine's sees token ids only.

mod access_log;
pub mod anthropic;
pub mod auth;
pub mod blocks;
pub mod body;
mod breakers;
mod call_grammar;
pub mod clock;
mod connections;
pub mod conversation;
pub mod defaults;
mod descriptors;
pub mod dialect;
pub mod error;
pub mod generate;
pub mod lifeline;
pub mod listener;
pub mod load;
pub mod metrics;
mod middleware;
pub mod model;
pub mod openai;
pub mod prefill;
pub mod reader;
mod reload;
mod resident;
pub mod responses;
pub mod routes;
pub mod sites;
mod sse;
mod stall;
pub mod state;
pub mod submit;
pub mod terms;
pub mod thinking;
pub mod tls;
mod usage;

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use self::auth::Keys;
use self::connections::{Connections, Limits};
use self::lifeline::{Lifeline, LifelineError};
use self::listener::{Address, ListenError, Listener, Reach};
use self::load::{ModelError, ModelOptions};
use self::model::ServedModel;
use self::sites::{Origin, Sites};
use self::state::App;
use self::tls::Tls;
use crate::hub::HubOptions;

/// How long running requests may go on when the owner is gone, for whom they most likely ran.
const ORPHAN_TIMEOUT: Duration = Duration::from_millis(500);

/// How long requests that were cut off may take to tell their clients so.
const ABORT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the engine may take for its last step. A process that ends in the middle of one can leave
/// a GPU's memory wired.
const STEP_TIMEOUT: Duration = Duration::from_millis(500);

/// All that the server is told.
pub struct ServerOptions {
    /// Where to listen.
    pub address: Address,
    /// Who may ask.
    pub keys: Keys,
    /// Serve other machines although no key is wanted.
    pub insecure: bool,
    /// Names that the server goes by, beside this machine's own.
    pub allowed_hosts: Vec<String>,
    /// Sites whose scripts may call it.
    pub allowed_origins: Vec<Origin>,
    /// Speak TLS.
    pub tls: Option<Tls>,
    /// How long a request may take to arrive, and a client may not read what it is sent.
    pub timeout: Duration,
    /// How long running requests may go on after the first signal.
    pub drain_timeout: Duration,
    /// How long to stay once nobody uses the server; `None` is for ever.
    pub exit_when_idle: Option<Duration>,
    /// Whom the server works for.
    pub lifeline: Option<Lifeline>,
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
    /// Everybody could use it.
    #[error(
        "{0} can be reached from other machines, and no API key is set: set one in LLAMA_API_KEY or \
         with --api-key-file, or give --insecure to serve everybody"
    )]
    Exposed(String),
    /// It has nothing to serve.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine is gone, so HTTP goes too.
    #[error("the engine died: {0}")]
    Engine(String),
    /// It cannot watch over its owner.
    #[error(transparent)]
    Lifeline(#[from] LifelineError),
    /// The system does not let it hear signals.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
}

/// Listens, loads, and serves until it is told to stop (then `Ok`) or a failure ends it.
pub async fn run(options: ServerOptions) -> Result<(), ServeError> {
    let owner = options.lifeline.map(Lifeline::watch).transpose()?;
    let mut owner = std::pin::pin!(lost(owner).fuse());
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let tls = options.tls.map(Arc::new);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listener = Listener::bind(&options.address, scheme).await?;
    let keyed = options.keys.required();
    if listener.reach() == Reach::Network && !keyed && !options.insecure {
        return Err(ServeError::Exposed(listener.to_string()));
    }
    announce(&listener);
    let names = options.address.host().map(str::to_owned);
    let names = names.into_iter().chain(options.allowed_hosts).collect();
    let sites = Sites::new(listener.reach(), keyed, names, options.allowed_origins);
    let app = App::new(options.keys, sites, options.timeout);
    if !keyed {
        tracing::warn!(address = %listener, "no API key is set: whoever reaches the server may use it");
    }
    reload::on_hangup(app.clone(), tls.clone()).map_err(ServeError::Signals)?;
    let limits = Limits {
        timeout: options.timeout,
        connections: descriptors::connections(),
    };
    let connections = Connections::new(routes::router(app.clone()), limits, tls);
    // A task of its own: whatever a load does, this one hears that it is to stop.
    let mut model = tokio::spawn(keep_a_model(app.clone(), options.model, options.hub));
    let stop = tokio::select! {
        never = connections.accept(&listener) => match never {},
        ended = &mut model => {
            let error = ended.map_or_else(|panic| ModelError::from(panic).into(), |Err(error)| error);
            return Err(error);
        }
        () = signals.next() => Stop::Signal,
        () = &mut owner => Stop::OwnerGone,
        () = unused(&app, options.exit_when_idle) => Stop::Unused,
    };
    // From here nobody finds the socket, and another server may have the address.
    drop(listener);
    if stop == Stop::OwnerGone {
        options.address.remove_private_folder();
    }
    app.usage().close();
    if let Some(model) = app.model() {
        model.engine.drain();
        let running = model.engine.stats().running;
        tracing::info!(reason = stop.reason(), running, "shutting down");
        tokio::select! {
            () = drain(&app, connections, stop.patience(options.drain_timeout)) => {}
            () = signals.next() => {
                tracing::warn!("a second signal: requests are cut off");
                app.abort();
            }
            () = &mut owner => app.abort(),
        }
        if tokio::time::timeout(STEP_TIMEOUT, model.engine.at_rest())
            .await
            .is_err()
        {
            tracing::warn!("the engine is still at work");
        }
    }
    Ok(())
}

/// Why the server stops without having failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Signal,
    OwnerGone,
    Unused,
}

impl Stop {
    fn reason(self) -> &'static str {
        match self {
            Self::Signal => "a signal",
            Self::OwnerGone => "the process that started this server is gone",
            Self::Unused => "nobody uses this server",
        }
    }

    /// How long running requests may go on.
    fn patience(self, drain_timeout: Duration) -> Duration {
        match self {
            Self::Signal | Self::Unused => drain_timeout,
            Self::OwnerGone => ORPHAN_TIMEOUT,
        }
    }
}

/// Resolves when the owner, if there is one, is gone.
async fn lost(owner: Option<oneshot::Receiver<()>>) {
    match owner {
        // Also where the watch ended without a word: nobody would watch any more.
        Some(owner) => drop(owner.await),
        None => std::future::pending().await,
    }
}

/// Resolves when a server that may end for want of use has had none for the time, once it is ready.
async fn unused(app: &App, time: Option<Duration>) {
    match time {
        Some(time) => {
            app.loaded().await;
            app.usage().unused_for(time).await;
        }
        None => std::future::pending().await,
    }
}

/// Loads the model and watches over it; only ever ends with an error.
async fn keep_a_model(
    app: App,
    options: ModelOptions,
    hub: HubOptions,
) -> Result<Infallible, ServeError> {
    let model = Arc::new(load::load(&app, options, &hub).await?);
    load::announce(&model, &model.path);
    Err(outlive(&app, model).await)
}

/// Serves the model for as long as its engine lives.
async fn outlive(app: &App, model: Arc<ServedModel>) -> ServeError {
    let engine = model.engine.clone();
    app.ready(model);
    ServeError::Engine(engine.closed().await)
}

async fn drain(app: &App, connections: Connections, patience: Duration) {
    let mut drained = std::pin::pin!(connections.drain());
    if tokio::time::timeout(patience, &mut drained).await.is_ok() {
        return;
    }
    tracing::warn!(
        "requests still run after {} s and are cut off",
        patience.as_secs_f64()
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::model::{Names, TextFiles};
    use super::terms::Policy;
    use super::*;

    /// What the command ends with; `cli/engine_death.rs` looks at the process.
    #[tokio::test]
    async fn a_dead_engine_ends_the_server_with_a_message() {
        let (engine, die) = crate::engine::tests::mortal();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
        let text = TextFiles::load(&dir, None).unwrap();
        let names = Names::new(None, "mortal", &dir);
        let model = ServedModel::new(names, dir, None, Policy::default(), engine, text);
        let app = App::new(Keys::default(), Sites::default(), Duration::from_secs(5));
        let death = outlive(&app, Arc::new(model));
        tokio::pin!(death);
        assert!(
            tokio::time::timeout(Duration::from_millis(50), &mut death)
                .await
                .is_err(),
            "it ended while the engine lives"
        );
        die();
        let error = tokio::time::timeout(Duration::from_secs(20), death).await;
        let message = error.unwrap().to_string();
        assert!(message.starts_with("the engine died: "), "{message}");
    }
}
