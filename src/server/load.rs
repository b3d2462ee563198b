//! From a model argument to a model that answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::model::{Names, ServedModel, TextFiles, TextFilesError};
use super::reader::Telling;
use super::state::{App, Progress, Stage};
use super::terms::Policy;
use crate::engine::{self, EngineHandle, EngineOptions, StartError};
use crate::hub::{self, HubError, HubOptions};
use crate::mlx::Device;
use crate::models::KvFormat;
use crate::text::output::ToolFormat;

/// Requests that may wait beyond those in the batch.
const QUEUE_SIZE: usize = 256;

/// What to serve, and how.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// A folder, the built-in model, or a repository.
    pub model: String,
    /// The folder of an adapter that its weights are to be loaded with.
    pub adapter: Option<PathBuf>,
    /// What clients see instead of its name.
    pub alias: Option<String>,
    /// Tokens of one request, prompt and output; `None` is the model's.
    pub ctx_size: Option<usize>,
    /// Most tokens of an output.
    pub n_predict: Option<usize>,
    /// Requests in the batch.
    pub n_parallel: usize,
    /// Bytes for the states of requests; `None` is by the device's memory.
    pub kv_cache_budget: Option<u64>,
    /// In what keys and values are kept.
    pub kv_format: KvFormat,
    /// Positions that a token sees at most.
    pub max_kv_size: Option<i32>,
    /// Whether the states of earlier prompts are kept.
    pub prefix_cache: bool,
    /// On which terms requests are served.
    pub policy: Policy,
    /// Set up what the first request would wait for.
    pub warmup: bool,
    /// Load what does not seem to fit.
    pub force: bool,
    /// `None` takes the GPU if there is one.
    pub device: Option<Device>,
    /// How the model writes tool calls; `None` asks its template.
    pub tool_call_parser: Option<ToolFormat>,
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It was not found, or not downloaded.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Its tokenizer, template or defaults.
    #[error(transparent)]
    Text(#[from] TextFilesError),
    /// Its weights, or the engine.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// Thoughts that are messages of their own are never part of another.
    #[error(
        "--reasoning-format none does not go with this model, whose thoughts are messages of their own"
    )]
    ThoughtsApart,
    /// A bug.
    #[error("loading the model hit a bug: {0}")]
    Panic(#[from] tokio::task::JoinError),
}

/// Downloads and loads the model, and tells `app` on the way.
pub async fn load(
    app: &App,
    options: ModelOptions,
    hub: &HubOptions,
) -> Result<ServedModel, ModelError> {
    let downloading = app.clone();
    let dir = hub::resolve(&options.model, hub, move |progress| {
        downloading.advance(Progress {
            stage: Stage::Downloading,
            done: progress.bytes,
            total: progress.total,
        });
    })
    .await?;
    app.advance(Progress::start(Stage::Loading));

    let text_dir = dir.clone();
    let tools = options.tool_call_parser;
    let text = tokio::task::spawn_blocking(move || TextFiles::load(&text_dir, tools));
    let starting = app.clone();
    let (engine_dir, engine_options) = (dir.clone(), options.clone());
    let engine = tokio::task::spawn_blocking(move || start(&starting, engine_dir, &engine_options));
    // A broken tokenizer is told before gigabytes of weights are read.
    let (text, engine) = tokio::try_join!(flatten(text), flatten(engine))?;
    let apart = text.dialect.tools() == Some(ToolFormat::Harmony);
    if apart && options.policy.telling == Telling::InContent {
        return Err(ModelError::ThoughtsApart);
    }
    let names = Names::new(options.alias, &options.model, &dir);
    Ok(ServedModel::new(
        names,
        dir,
        options.n_predict,
        options.policy,
        engine,
        text,
    ))
}

async fn flatten<T, E>(task: tokio::task::JoinHandle<Result<T, E>>) -> Result<T, ModelError>
where
    ModelError: From<E>,
{
    Ok(task.await??)
}

fn start(
    app: &App,
    model_dir: PathBuf,
    options: &ModelOptions,
) -> Result<EngineHandle, StartError> {
    let engine_options = EngineOptions {
        model_dir,
        adapter: options.adapter.clone(),
        device: options.device,
        ctx_size: options.ctx_size,
        n_parallel: options.n_parallel,
        queue_size: QUEUE_SIZE,
        kv_cache_budget: options.kv_cache_budget,
        kv_format: options.kv_format,
        max_kv_size: options.max_kv_size,
        prefix_cache: options.prefix_cache,
        force: options.force,
        warmup: options.warmup,
    };
    let (app, warmup) = (app.clone(), options.warmup);
    engine::start(engine_options, move |progress| {
        if warmup && progress.bytes >= progress.total {
            app.advance(Progress::start(Stage::Warmup));
        } else {
            app.advance(Progress {
                stage: Stage::Loading,
                done: progress.bytes,
                total: progress.total,
            });
        }
    })
}

/// Says in the log what is served.
pub fn announce(model: &Arc<ServedModel>, path: &Path) {
    let info = model.engine.model();
    tracing::info!(
        model = model.id,
        path = %path.display(),
        architecture = info.architecture,
        parameters = info.parameters,
        dtype = info.dtype,
        quantization = info.quantization,
        n_ctx = model.engine.context_length(),
        "the model is ready"
    );
}
