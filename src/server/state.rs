//! What every handler shares: the keys, how far the start is, and then the model.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Serialize;
use tokio::sync::watch;

use super::auth::Keys;
use super::clock::unix_seconds;
use super::error::ApiError;
use super::model::ServedModel;
use super::responses::store::Store;
use super::sites::Sites;
use super::usage::Usage;

/// What the server does before it can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The model's files are looked for: on the disk, or by asking the hub.
    Finding,
    /// Files come from the hub.
    Downloading,
    /// Weights go into memory.
    Loading,
    /// What the first request would wait for is set up.
    Warmup,
}

/// How far the start is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes of the stage that are done.
    pub done: u64,
    /// Bytes of the stage; 0 where that is not known.
    pub total: u64,
}

impl Progress {
    /// The beginning of a stage.
    pub fn start(stage: Stage) -> Self {
        Self {
            stage,
            done: 0,
            total: 0,
        }
    }

    /// Share of the stage that is done, 0 to 1.
    pub fn fraction(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        (self.done as f64 / self.total as f64).clamp(0.0, 1.0)
    }
}

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    keys: Keys,
    sites: Sites,
    read_timeout: Duration,
    progress: Mutex<Progress>,
    model: OnceLock<Arc<ServedModel>>,
    loaded: watch::Sender<bool>,
    abort: watch::Sender<bool>,
    usage: Usage,
    responses: Store,
    started: Instant,
    started_at: u64,
}

impl App {
    /// A server that has no model yet, for those who hold one of `keys` and come from where `sites`
    /// allows. `read_timeout` bounds how long a body may take to arrive.
    pub fn new(keys: Keys, sites: Sites, read_timeout: Duration) -> Self {
        let progress = Mutex::new(Progress::start(Stage::Finding));
        let abort = watch::Sender::new(false);
        Self(Arc::new(Shared {
            keys,
            sites,
            read_timeout,
            progress,
            model: OnceLock::new(),
            loaded: watch::Sender::new(false),
            abort,
            usage: Usage::default(),
            responses: Store::default(),
            started: Instant::now(),
            started_at: unix_seconds(),
        }))
    }

    /// The keys that open it.
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Whom browsers may let in.
    pub fn sites(&self) -> &Sites {
        &self.0.sites
    }

    /// How long a request's body may take to arrive.
    pub fn read_timeout(&self) -> Duration {
        self.0.read_timeout
    }

    /// Who uses it.
    pub fn usage(&self) -> &Usage {
        &self.0.usage
    }

    /// The responses that are kept.
    pub fn responses(&self) -> &Store {
        &self.0.responses
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// When it started, in seconds since 1970.
    pub fn started_at(&self) -> u64 {
        self.0.started_at
    }

    /// Records how far the start is.
    pub fn advance(&self, progress: Progress) {
        *self
            .0
            .progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// How far the start is; `None` once the model answers.
    pub fn progress(&self) -> Option<Progress> {
        if self.0.model.get().is_some() {
            return None;
        }
        Some(
            *self
                .0
                .progress
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// From here on requests are answered. A second model is not taken.
    pub fn ready(&self, model: Arc<ServedModel>) {
        if self.0.model.set(model).is_err() {
            tracing::error!("a model is already served");
        }
        self.0.loaded.send_replace(true);
    }

    /// Resolves when requests are answered.
    pub async fn loaded(&self) {
        // The sender lives as long as `self`, so this can only end by the news.
        let mut loaded = self.0.loaded.subscribe();
        drop(loaded.wait_for(|&loaded| loaded).await);
    }

    /// The model, once it is loaded.
    pub fn model(&self) -> Option<&Arc<ServedModel>> {
        self.0.model.get()
    }

    /// Ends every running generation with an error: the time for draining is over.
    pub fn abort(&self) {
        self.0.abort.send_replace(true);
    }

    /// Resolves when running generations are to end.
    pub fn aborted(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut abort = self.0.abort.subscribe();
        let keep = self.clone();
        async move {
            // The sender lives as long as `keep`, so this can only end by the signal.
            let _ended = abort.wait_for(|&abort| abort).await;
            drop(keep);
        }
    }
}

/// The model, for handlers that need one; 503 while it loads.
pub struct Ready(pub Arc<ServedModel>);

impl FromRequestParts<App> for Ready {
    type Rejection = ApiError;

    async fn from_request_parts(_parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        app.model().cloned().map(Self).ok_or_else(ApiError::loading)
    }
}
