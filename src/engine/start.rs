//! Bringing the engine up: the thread, the model, the context it can hold.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use tokio::sync::watch;

use super::handle::{Counters, EngineHandle, Facts, Submission};
use super::worker::Worker;
use crate::mlx::{self, Device, MlxError};
use crate::models::{
    self, LoadError, LoadOptions, LoadProgress, Logits, Model, ModelInfo, Row, available_memory,
};

/// What the engine is to run, and how much of it.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// A folder with `config.json` and safetensors.
    pub model_dir: PathBuf,
    /// `None` takes the GPU if there is one.
    pub device: Option<Device>,
    /// Tokens that prompt and output of one request may have together; `None` is what the model
    /// was made for, or what memory holds.
    pub ctx_size: Option<usize>,
    /// Requests in the batch.
    pub n_parallel: usize,
    /// Requests that may wait beyond them.
    pub queue_size: usize,
    /// Load even what does not seem to fit.
    pub force: bool,
    /// Compute one token before the first request needs it.
    pub warmup: bool,
}

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The model could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// MLX failed.
    #[error(transparent)]
    Mlx(#[from] MlxError),
    /// More context was asked for than the model was made for.
    #[error(
        "--ctx-size {asked} is more than this model's {model} tokens; leave it out or lower it"
    )]
    ContextTooLong {
        /// The argument.
        asked: usize,
        /// `max_position_embeddings`.
        model: usize,
    },
    /// The context does not fit beside the weights.
    #[error(
        "a context of {asked} tokens takes {needed} MB, {available} MB are left beside the \
         weights; lower --ctx-size, or load anyway with --force"
    )]
    ContextTooLarge {
        /// Tokens of context.
        asked: usize,
        /// What they take.
        needed: u64,
        /// What is there.
        available: u64,
    },
    /// The thread could not be made, or ended without a word.
    #[error("the engine thread failed: {0}")]
    Thread(String),
}

/// Starts the engine thread, loads the model on it, and returns when it can answer. Blocks.
pub fn start(
    options: EngineOptions,
    progress: impl FnMut(LoadProgress) + Send + 'static,
) -> Result<EngineHandle, StartError> {
    let (submissions, receiver) = mpsc::channel();
    let (ready, loaded) = mpsc::channel();
    let (death, died) = watch::channel(None);
    let counters = Arc::new(Counters::new());
    let shared = counters.clone();
    let (parallel, queue_size) = (options.n_parallel, options.queue_size);
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            // Dropped last, also by a panic: the process must not outlive its engine.
            let _death = DeathNotice(death);
            serve(options, progress, receiver, shared, &ready);
        })
        .map_err(|error| StartError::Thread(error.to_string()))?;

    let (model, device, context_length) = loaded
        .recv()
        .map_err(|_| StartError::Thread("it ended while loading the model".to_owned()))??;
    let facts = Arc::new(Facts {
        model,
        device,
        context_length,
        parallel,
        queue_size,
    });
    Ok(EngineHandle {
        submissions,
        counters,
        facts,
        death: died,
    })
}

type Loaded = Result<(ModelInfo, Device, usize), StartError>;

fn serve(
    options: EngineOptions,
    mut progress: impl FnMut(LoadProgress),
    submissions: mpsc::Receiver<Submission>,
    counters: Arc<Counters>,
    ready: &mpsc::Sender<Loaded>,
) {
    let loaded = load(&options, &mut progress);
    let (model, device, context_length) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            // Nobody waits only if `start`'s caller is gone, and then nobody cares.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready
        .send(Ok((model.info().clone(), device, context_length)))
        .is_err()
    {
        return;
    }
    let parallel = options.n_parallel;
    Worker {
        model,
        submissions,
        counters,
        context_length,
        parallel,
    }
    .run();
}

fn load(
    options: &EngineOptions,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(Box<dyn Model>, Device, usize), StartError> {
    mlx::check_version()?;
    let device = options.device.unwrap_or_else(Device::best);
    device.make_default()?;
    let memory = if options.force {
        None
    } else {
        available_memory(device)
    };
    let load_options = LoadOptions {
        device,
        available_memory: memory,
    };
    let model = models::load(&options.model_dir, &load_options, progress)?;
    let info = model.info();
    let left = memory.map(|bytes| bytes.saturating_sub(info.weight_bytes));
    let context = context_length(info, options.ctx_size, left)?;
    if options.warmup {
        warm_up(&*model)?;
    }
    Ok((model, device, context))
}

/// What one request may have: the model's context or what was asked for, as memory allows.
fn context_length(
    info: &ModelInfo,
    asked: Option<usize>,
    memory: Option<u64>,
) -> Result<usize, StartError> {
    let model = info.context_length;
    if let Some(asked) = asked.filter(|&asked| asked > model) {
        return Err(StartError::ContextTooLong { asked, model });
    }
    let per_token = info.state_bytes_per_token.max(1);
    let wanted = asked.unwrap_or(model);
    let Some(available) = memory else {
        return Ok(wanted);
    };
    // A tenth is left to the arithmetic's own buffers and to everybody else.
    let available = available / 10 * 9;
    let held = usize::try_from(available / per_token).unwrap_or(usize::MAX);
    let too_large = |tokens: usize| StartError::ContextTooLarge {
        asked: tokens,
        needed: (tokens as u64 * per_token).div_ceil(1_000_000),
        available: available / 1_000_000,
    };
    match asked {
        Some(tokens) if tokens > held => Err(too_large(tokens)),
        // With less than this there is no use in starting.
        None if held < wanted.min(512) => Err(too_large(wanted.min(512))),
        _ => Ok(wanted.min(held)),
    }
}

/// Computes one token, so that the first request does not wait for what MLX sets up once.
fn warm_up(model: &dyn Model) -> Result<(), MlxError> {
    let mut state = model.new_state();
    let mut rows = [Row {
        tokens: &[0],
        state: &mut state,
        logits: Logits::Last,
    }];
    let logits = model.forward(&mut rows)?;
    let arrays: Vec<_> = logits.iter().flatten().collect();
    mlx::Array::eval_all(&arrays)
}

struct DeathNotice(watch::Sender<Option<String>>);

impl Drop for DeathNotice {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() {
            "the engine thread panicked; its message is above"
        } else {
            "the engine thread ended"
        };
        self.0.send_replace(Some(reason.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ModelInfo {
        ModelInfo {
            architecture: "llama".to_owned(),
            vocab_size: 10,
            context_length: 4096,
            parameters: 0,
            weight_bytes: 0,
            state_bytes_per_token: 1000,
            quantization: None,
            dtype: "float32".to_owned(),
        }
    }

    #[test]
    fn the_context_is_the_models_unless_memory_holds_less() {
        assert_eq!(context_length(&info(), None, None).unwrap(), 4096);
        assert_eq!(
            context_length(&info(), None, Some(100_000_000)).unwrap(),
            4096
        );
        assert_eq!(context_length(&info(), None, Some(1_000_000)).unwrap(), 900);
        assert_eq!(
            context_length(&info(), Some(600), Some(1_000_000)).unwrap(),
            600
        );
    }

    #[test]
    fn a_context_that_cannot_be_is_refused_with_both_numbers() {
        let error = context_length(&info(), Some(5000), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("5000") && error.contains("4096"), "{error}");
        let error = context_length(&info(), Some(4000), Some(1_000_000)).unwrap_err();
        assert!(matches!(
            error,
            StartError::ContextTooLarge {
                asked: 4000,
                needed: 4,
                ..
            }
        ));
        assert!(context_length(&info(), None, Some(100_000)).is_err());
    }
}
