//! The engine as the HTTP workers see it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::latency::{Latencies, Stopwatch};
use super::meter::Meter;
use super::request::{EngineError, Event, Request};
use super::siblings::Outlet;
use super::slots::{Board, Task};
use crate::mlx::Device;
use crate::models::ModelInfo;

/// Between two looks at whether the engine is at rest.
const REST_EVERY: Duration = Duration::from_millis(5);

/// A request on its way to the engine thread.
pub(super) struct Submission {
    pub request: Request,
    /// Of the request's own output.
    pub outlet: Outlet,
    /// Of `request.siblings`, in their order.
    pub sibling_outlets: Vec<Outlet>,
    pub submitted: Instant,
}

/// Counters that the engine thread writes and anybody reads.
pub(super) struct Counters {
    /// Submitted and not yet running.
    pub waiting: AtomicUsize,
    pub running: AtomicUsize,
    pub requests: AtomicU64,
    pub prompt_tokens: Meter,
    pub completion_tokens: Meter,
    pub cached_tokens: AtomicU64,
    /// Tokens of the prompts that the prefix cache was asked for.
    pub queried_tokens: AtomicU64,
    pub preemptions: AtomicU64,
    /// Bytes that the states of the running sequences take.
    pub kv_bytes: AtomicU64,
    /// Bytes that the prefix cache holds.
    pub cache_bytes: AtomicU64,
    pub draining: AtomicBool,
    pub board: Board,
    pub latencies: Arc<Latencies>,
}

impl Counters {
    pub fn new() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            prompt_tokens: Meter::new(),
            completion_tokens: Meter::new(),
            cached_tokens: AtomicU64::new(0),
            queried_tokens: AtomicU64::new(0),
            preemptions: AtomicU64::new(0),
            kv_bytes: AtomicU64::new(0),
            cache_bytes: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            board: Board::default(),
            latencies: Arc::new(Latencies::new()),
        }
    }
}

/// What the engine is doing, and what it has done since it started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    /// Requests in the batch.
    pub running: usize,
    /// Requests that wait for a place in it.
    pub waiting: usize,
    /// Places in the batch.
    pub parallel: usize,
    /// Requests accepted so far.
    pub requests: u64,
    /// Prompt tokens computed so far.
    pub prompt_tokens: u64,
    /// Tokens generated so far.
    pub completion_tokens: u64,
    /// Prompt tokens that were found in the prefix cache so far.
    pub cached_tokens: u64,
    /// Prompt tokens that were looked for there.
    pub queried_tokens: u64,
    /// Places taken from running requests so far, for want of memory.
    pub preemptions: u64,
    /// Bytes that states may take, the prefix cache included.
    pub kv_budget: u64,
    /// Bytes that the running requests' states take.
    pub kv_bytes: u64,
    /// Bytes that the prefix cache holds.
    pub cache_bytes: u64,
    /// Prompt tokens computed a second, lately.
    pub prompt_tokens_per_second: f64,
    /// Tokens generated a second, lately, over all requests.
    pub completion_tokens_per_second: f64,
}

/// A way to the engine thread. Cheap to clone; the thread ends when the last handle is gone.
#[derive(Clone)]
pub struct EngineHandle {
    pub(super) submissions: Sender<Submission>,
    pub(super) counters: Arc<Counters>,
    pub(super) facts: Arc<Facts>,
    pub(super) death: watch::Receiver<Option<String>>,
    pub(super) thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What is known once the model is loaded.
pub(super) struct Facts {
    pub model: ModelInfo,
    pub device: Device,
    pub context_length: usize,
    pub parallel: usize,
    pub queue_size: usize,
    pub kv_bytes: u64,
}

impl EngineHandle {
    /// Queues a request, and gives the events of its own output; siblings are cancelled.
    ///
    /// Errors: as [`EngineHandle::submit_all`].
    pub fn submit(&self, request: Request) -> Result<TokenStream, EngineError> {
        let mut streams = self.submit_all(request)?;
        Ok(streams.swap_remove(0))
    }

    /// Queues a request, and gives the events of each of its outputs: its own, then its siblings'.
    ///
    /// Errors: [`EngineError::QueueFull`], [`EngineError::ShuttingDown`],
    /// [`EngineError::ContextExceeded`], [`EngineError::UnknownToken`] and
    /// [`EngineError::EmptyPrompt`]; then the request never started.
    pub fn submit_all(&self, request: Request) -> Result<Vec<TokenStream>, EngineError> {
        let counters = &self.counters;
        if counters.draining.load(Ordering::Acquire) {
            return Err(EngineError::ShuttingDown);
        }
        let (prompt, context) = (request.prompt.len(), self.facts.context_length);
        if prompt == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        // One place is left for the first token.
        if prompt >= context {
            return Err(EngineError::ContextExceeded { prompt, context });
        }
        // MLX does not check indices: one beyond the embedding would read whatever lies there.
        let vocab = self.facts.model.vocab_size;
        if let Some(&token) = request
            .prompt
            .iter()
            .find(|&&token| token as usize >= vocab)
        {
            return Err(EngineError::UnknownToken { token, vocab });
        }
        let outputs = 1 + request.siblings.len();
        let bound = self.facts.queue_size + self.facts.parallel;
        let enter = |waiting: usize| {
            let running = counters.running.load(Ordering::Acquire);
            (waiting + running + outputs <= bound).then_some(waiting + outputs)
        };
        counters
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, enter)
            .map_err(EngineError::QueueFull)?;

        let (mut outlets, streams): (Vec<Outlet>, Vec<TokenStream>) =
            (0..outputs).map(|_| channel(&counters.latencies)).unzip();
        let sibling_outlets = outlets.split_off(1);
        let submission = Submission {
            request,
            outlet: outlets.swap_remove(0),
            sibling_outlets,
            submitted: Instant::now(),
        };
        if self.submissions.send(submission).is_err() {
            counters.waiting.fetch_sub(outputs, Ordering::AcqRel);
            return Err(EngineError::ShuttingDown);
        }
        counters.requests.fetch_add(1, Ordering::Relaxed);
        Ok(streams)
    }

    /// Outputs that can run and wait at the same time.
    pub fn room(&self) -> usize {
        self.facts.queue_size + self.facts.parallel
    }

    /// Facts about the model.
    pub fn model(&self) -> &ModelInfo {
        &self.facts.model
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.facts.device
    }

    /// Tokens that prompt and output of one request may have together.
    pub fn context_length(&self) -> usize {
        self.facts.context_length
    }

    /// What the engine is doing now.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        Stats {
            running: counters.running.load(Ordering::Acquire),
            waiting: counters.waiting.load(Ordering::Acquire),
            parallel: self.facts.parallel,
            requests: counters.requests.load(Ordering::Relaxed),
            prompt_tokens: counters.prompt_tokens.total(),
            completion_tokens: counters.completion_tokens.total(),
            prompt_tokens_per_second: counters.prompt_tokens.per_second(),
            completion_tokens_per_second: counters.completion_tokens.per_second(),
            cached_tokens: counters.cached_tokens.load(Ordering::Relaxed),
            queried_tokens: counters.queried_tokens.load(Ordering::Relaxed),
            preemptions: counters.preemptions.load(Ordering::Relaxed),
            kv_budget: self.facts.kv_bytes,
            kv_bytes: counters.kv_bytes.load(Ordering::Relaxed),
            cache_bytes: counters.cache_bytes.load(Ordering::Relaxed),
        }
    }

    /// What is at each of the batch's places.
    pub fn slots(&self) -> Vec<Option<Task>> {
        let mut tasks = self.counters.board.tasks();
        tasks.resize_with(tasks.len().max(self.facts.parallel), || None);
        tasks
    }

    /// How long requests have waited for what.
    pub fn latencies(&self) -> &Latencies {
        &self.counters.latencies
    }

    /// Refuses new requests from now on; those accepted go on.
    pub fn drain(&self) {
        self.counters.draining.store(true, Ordering::Release);
    }

    /// Resolves when no request is left, and none is being computed.
    pub async fn at_rest(&self) {
        loop {
            let stats = self.stats();
            if stats.running + stats.waiting == 0 {
                return;
            }
            tokio::time::sleep(REST_EVERY).await;
        }
    }

    /// Resolves, with the reason, when the engine thread is gone: nobody can be served any more.
    pub async fn closed(&self) -> String {
        let mut death = self.death.clone();
        // The sender lives as long as the thread; were it dropped silently, that is death too.
        let reason = death.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_else(|| "the engine thread ended".to_owned())
    }

    /// Gives this handle up and blocks until the thread has ended, which it does when no other
    /// handle is left.
    pub fn close(self) {
        let thread = self.thread.clone();
        drop(self);
        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Its panic was told by `closed` and by the panic's own message.
            let _ = thread.join();
        }
    }
}

fn channel(latencies: &Arc<Latencies>) -> (Outlet, TokenStream) {
    let (sender, events) = mpsc::unbounded_channel();
    let cancelled = Arc::new(AtomicBool::new(false));
    let stopwatch = Stopwatch::start(latencies.clone());
    let outlet = Outlet::new(sender, cancelled.clone(), stopwatch);
    (outlet, TokenStream { events, cancelled })
}

/// The events of one output. Dropping it cancels the output before the engine's next step.
pub struct TokenStream {
    events: mpsc::UnboundedReceiver<Event>,
    cancelled: Arc<AtomicBool>,
}

impl TokenStream {
    /// The next event; `None` after the last one, or when the engine is gone.
    pub async fn recv(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
    }
}
