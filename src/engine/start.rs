//! Bringing the engine up: the thread, the model, the context it can hold.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::watch;

use super::handle::{Counters, EngineHandle, Facts, Submission};
use super::prefix_cache::cached_bytes;
use super::worker::{Capacity, Worker};
use crate::mlx::{self, Device, MlxError};
use crate::models::{
    self, KvFormat, LoadError, LoadOptions, LoadProgress, Logits, Model, ModelInfo, Row, StateSize,
    available_memory, token_ids, with_kv_format, with_kv_size,
};

/// Full contexts that the prefix cache may hold where no budget is given.
const CACHED_CONTEXTS: u64 = 4;

/// What the engine is to run, and how much of it.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// A folder with `config.json` and safetensors.
    pub model_dir: PathBuf,
    /// The folder of an adapter in mlx-lm's format.
    pub adapter: Option<PathBuf>,
    /// `None` takes the GPU if there is one.
    pub device: Option<Device>,
    /// Tokens that prompt and output of one request may have together; `None` is what the model
    /// was made for, or what memory holds.
    pub ctx_size: Option<usize>,
    /// Requests in the batch.
    pub n_parallel: usize,
    /// Requests that may wait beyond them.
    pub queue_size: usize,
    /// Bytes that the states of running requests and of the prefix cache may take; `None` is half of
    /// what the weights leave of the device's memory.
    pub kv_cache_budget: Option<u64>,
    /// In what keys and values are kept.
    pub kv_format: KvFormat,
    /// Positions that a token sees at most; `None` is all before it. More than four.
    pub max_kv_size: Option<i32>,
    /// Whether the states of earlier requests are kept for those that begin alike.
    pub prefix_cache: bool,
    /// Load even what does not seem to fit.
    pub force: bool,
    /// Set up what the first request would wait for.
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
    /// No useful context fits into the budget.
    #[error(
        "a context of {asked} tokens takes {needed} bytes, --kv-cache-budget is {budget}; raise it, \
         or lower --ctx-size"
    )]
    BudgetTooSmall {
        /// Tokens of context.
        asked: usize,
        /// What they take.
        needed: u64,
        /// What they may take.
        budget: u64,
    },
    /// The thread could not be made, or ended without a word.
    #[error("the engine thread failed: {0}")]
    Thread(String),
}

/// Starts the engine thread, loads the model on it, and returns when it can answer. Blocks.
pub fn start(
    options: EngineOptions,
    mut progress: impl FnMut(LoadProgress) + Send + 'static,
) -> Result<EngineHandle, StartError> {
    let queue_size = options.queue_size;
    spawn(queue_size, move || load(&options, &mut progress))
}

/// Starts the engine thread with the model that `load` makes there: arrays stay on their thread.
pub(super) fn spawn(
    queue_size: usize,
    load: impl FnOnce() -> Result<(Box<dyn Model>, Capacity), StartError> + Send + 'static,
) -> Result<EngineHandle, StartError> {
    let (submissions, receiver) = mpsc::channel();
    let (ready, loaded) = mpsc::channel();
    let (death, died) = watch::channel(None);
    let counters = Arc::new(Counters::new());
    let shared = counters.clone();
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            // Dropped last, also by a panic: the process must not outlive its engine.
            let _death = DeathNotice(death);
            serve(load, receiver, shared, &ready);
        })
        .map_err(|error| StartError::Thread(error.to_string()))?;

    let (model, capacity) = loaded
        .recv()
        .map_err(|_| StartError::Thread("it ended while loading the model".to_owned()))??;
    let facts = Arc::new(Facts {
        model,
        device: capacity.device,
        context_length: capacity.context,
        parallel: capacity.places,
        queue_size,
        kv_bytes: capacity.kv_bytes,
    });
    Ok(EngineHandle {
        submissions,
        counters,
        facts,
        death: died,
        thread: Arc::new(Mutex::new(Some(thread))),
    })
}

type Loaded = Result<(ModelInfo, Capacity), StartError>;

fn serve(
    load: impl FnOnce() -> Result<(Box<dyn Model>, Capacity), StartError>,
    submissions: mpsc::Receiver<Submission>,
    counters: Arc<Counters>,
    ready: &mpsc::Sender<Loaded>,
) {
    let (model, capacity) = match load() {
        Ok(loaded) => loaded,
        Err(error) => {
            // Nobody waits only if `start`'s caller is gone, and then nobody cares.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok((model.info().clone(), capacity))).is_err() {
        return;
    }
    Worker::new(model, submissions, counters, capacity).run();
}

fn load(
    options: &EngineOptions,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(Box<dyn Model>, Capacity), StartError> {
    mlx::check_version()?;
    let device = options.device.unwrap_or_else(Device::best);
    device.make_default()?;
    let memory = available_memory(device);
    let load_options = LoadOptions {
        device,
        available_memory: memory.filter(|_| !options.force),
        adapter: options.adapter.clone(),
    };
    let format = match options.kv_format {
        // There keys and values are computed in the checkpoint's type.
        KvFormat::Half if device == Device::Gpu => KvFormat::Computed,
        format => format,
    };
    let model = models::load(&options.model_dir, &load_options, progress)?;
    let mut model = with_kv_format(model, format)?;
    if let Some(positions) = options.max_kv_size {
        model = with_kv_size(model, positions)?;
    }
    let info = model.info();
    let left = memory.map(|bytes| bytes.saturating_sub(info.weight_bytes));
    let limit = left.filter(|_| !options.force);
    let context = context_length(info, options.ctx_size, options.kv_cache_budget, limit)?;
    let kv_bytes = options
        .kv_cache_budget
        .unwrap_or_else(|| kv_budget(&info.state, context, options.n_parallel, left));
    let prefix_cache = match options.kv_cache_budget {
        Some(budget) => budget,
        // A server that was told nothing does not grow for as long as there is memory.
        None => kv_bytes.min(cached_bytes(&info.state, context).saturating_mul(CACHED_CONTEXTS)),
    };
    let capacity = Capacity {
        device,
        context,
        places: options.n_parallel,
        kv_bytes,
        prefix_cache: options.prefix_cache.then_some(prefix_cache),
    };
    if options.warmup {
        warm_up(&*model, device)?;
    }
    Ok((model, capacity))
}

/// Half of the memory that is left, and at least one request's context; where the system does not
/// say what is left, a context for every place.
fn kv_budget(size: &StateSize, context: usize, places: usize, left: Option<u64>) -> u64 {
    let one = size.bytes(context);
    left.map_or_else(
        || one.saturating_mul(places as u64),
        |left| (left / 2).max(one),
    )
}

/// What one request may have: the model's context or what was asked for, as the budget and the
/// memory allow.
fn context_length(
    info: &ModelInfo,
    asked: Option<usize>,
    budget: Option<u64>,
    memory: Option<u64>,
) -> Result<usize, StartError> {
    let model = info.context_length;
    if model == 0 {
        return Err(LoadError::config("max_position_embeddings", "must be at least 1").into());
    }
    if let Some(asked) = asked.filter(|&asked| asked > model) {
        return Err(StartError::ContextTooLong { asked, model });
    }
    let wanted = asked.unwrap_or(model);
    // With less than this there is no use in starting.
    let least = asked.unwrap_or(wanted.min(512));
    let within = |bytes| info.state.tokens_within(bytes, wanted);
    let mut context = wanted;
    if let Some(budget) = budget {
        context = context.min(within(budget));
        if context < least {
            return Err(StartError::BudgetTooSmall {
                asked: least,
                needed: info.state.bytes(least),
                budget,
            });
        }
    }
    if let Some(memory) = memory {
        // A tenth is left to the arithmetic's own buffers and to everybody else.
        let available = memory / 10 * 9;
        context = context.min(within(available));
        if context < least {
            return Err(StartError::ContextTooLarge {
                asked: least,
                needed: info.state.bytes(least).div_ceil(1_000_000),
                available: available / 1_000_000,
            });
        }
    }
    Ok(context)
}

/// Sets up what the first request would wait for, and fails where the model cannot be computed.
///
/// A GPU compiles its kernels when they first run, so it computes a token. On the CPU that would take as long as the
/// weights take to be read from memory, and spare the first request nothing of that: there a token's computation is
/// only built, which checks all shapes.
fn warm_up(model: &dyn Model, device: Device) -> Result<(), MlxError> {
    let mut state = model.new_state();
    let mut rows = [Row {
        len: 1,
        state: &mut state,
        logits: Logits::Last,
    }];
    let logits = model.forward(&token_ids(&[0], model.info().vocab_size)?, &mut rows)?;
    match device {
        Device::Gpu => mlx::Array::eval_all(&logits.iter().collect::<Vec<_>>()),
        Device::Cpu => Ok(()),
    }
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
            state: StateSize::growing(1000),
            quantization: None,
            dtype: "float32".to_owned(),
        }
    }

    #[test]
    fn the_context_is_the_models_unless_memory_or_budget_hold_less() {
        let context =
            |asked, budget, memory| context_length(&info(), asked, budget, memory).unwrap();
        assert_eq!(context(None, None, None), 4096);
        assert_eq!(context(None, None, Some(100_000_000)), 4096);
        // Memory is taken by 256 tokens at a time, and a tenth of it is left.
        assert_eq!(context(None, None, Some(1_000_000)), 768);
        assert_eq!(context(Some(600), None, Some(1_000_000)), 600);
        assert_eq!(context(None, Some(2_000_000), None), 1792);
        assert_eq!(context(None, Some(2_000_000), Some(1_000_000)), 768);
    }

    #[test]
    fn a_context_that_cannot_be_is_refused_with_both_numbers() {
        let error = |asked, budget, memory| {
            let error = context_length(&info(), asked, budget, memory).unwrap_err();
            error.to_string()
        };
        let nothing = ModelInfo {
            context_length: 0,
            ..info()
        };
        let text = context_length(&nothing, None, None, None).unwrap_err();
        assert!(text.to_string().contains("max_position_embeddings"));
        let text = error(Some(5000), None, None);
        assert!(text.contains("5000") && text.contains("4096"), "{text}");
        let text = error(Some(4000), None, Some(1_000_000));
        assert!(text.contains("4000") && text.contains(" 5 MB"), "{text}");
        assert!(error(None, None, Some(100_000)).contains("512"));
        let text = error(Some(4000), Some(1_000_000), None);
        assert!(
            text.contains("4096000") && text.contains("1000000"),
            "{text}"
        );
    }

    #[test]
    fn the_budget_is_half_of_what_is_left_and_holds_a_context() {
        let size = StateSize::growing(1000);
        assert_eq!(kv_budget(&size, 4096, 8, Some(100_000_000)), 50_000_000);
        assert_eq!(kv_budget(&size, 4096, 8, Some(5_000_000)), 4_096_000);
        assert_eq!(kv_budget(&size, 4096, 8, None), 8 * 4_096_000);
    }
}
