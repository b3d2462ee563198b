//! Bounds on time: llguidance counts what it does, and a clock stands behind its counts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use llguidance::CancellationHandle;
use llguidance::api::ParserLimits;

use super::error::GrammarError;

/// Address space for compiling; only what is used becomes memory.
const STACK_BYTES: usize = 256 << 20;

/// How long a grammar may be compiled. By llguidance's counts it is a second or two.
pub(super) const COMPILING: Duration = Duration::from_secs(10);

/// Compilations that may go on although nobody waits for them any more: they cannot be stopped.
const ABANDONED: usize = 2;

/// How long one mask may be made. By llguidance's counts it is some hundredths of a second.
const MASK: Duration = Duration::from_secs(2);

/// How often masks are looked after.
const TICK: Duration = Duration::from_millis(200);

/// llguidance's own bounds on one mask are kept; those on a grammar are lowered to about a second
/// and some tens of megabytes.
pub(super) fn counts() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Runs llguidance's recursive code on a stack that the longest schema cannot exhaust (a stack
/// overflow would end the process), turns a panic on odd input into an error, and waits no longer
/// than `limit`.
pub(super) fn isolated<T: Send + 'static>(
    limit: Duration,
    build: impl FnOnce() -> Result<T, GrammarError> + Send + 'static,
) -> Result<T, GrammarError> {
    static LATE: AtomicUsize = AtomicUsize::new(0);
    if LATE.load(Ordering::Acquire) >= ABANDONED {
        return Err(GrammarError::Busy);
    }
    let (done, result) = sync_channel(1);
    let waited = Arc::new(Mutex::new(true));
    let waits = Arc::clone(&waited);
    let work = move || {
        let built = catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err(given_up()));
        let waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
        if !*waits {
            LATE.fetch_sub(1, Ordering::AcqRel);
        }
        // Whoever has given up does not read it.
        let _ = done.send(built);
    };
    std::thread::Builder::new()
        .name("grammar".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map_err(|error| GrammarError::Failed(format!("no thread for it: {error}")))?;
    match result.recv_timeout(limit) {
        Ok(built) => built,
        Err(RecvTimeoutError::Disconnected) => Err(given_up()),
        Err(RecvTimeoutError::Timeout) => {
            let mut waits = waited.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(built) = result.try_recv() {
                return built;
            }
            *waits = false;
            LATE.fetch_add(1, Ordering::AcqRel);
            Err(GrammarError::TooSlow(limit.as_secs()))
        }
    }
}

/// What a panic says.
fn given_up() -> GrammarError {
    GrammarError::TooComplex("llguidance gave up on it".to_owned())
}

/// What a matcher does, under the clock: when it takes longer than a mask may, it is cancelled.
pub(super) struct Timed {
    run: Arc<Run>,
}

struct Run {
    /// Milliseconds on the clock when it began; 0 where nothing is done.
    since: AtomicU64,
    handle: CancellationHandle,
}

impl Timed {
    /// `handle` cancels the matcher.
    pub fn new(handle: CancellationHandle) -> Self {
        let since = AtomicU64::new(0);
        let run = Arc::new(Run { since, handle });
        Clock::shared().watch(&run);
        Self { run }
    }

    /// Does something with the matcher.
    pub fn run<T>(&self, what: impl FnOnce() -> T) -> T {
        let now = Clock::shared().now();
        self.run.since.store(now, Ordering::Release);
        let result = what();
        self.run.since.store(0, Ordering::Release);
        result
    }

    /// Why it was cancelled, if it was.
    pub fn error(&self) -> Option<GrammarError> {
        let message = || format!("a token's mask takes longer than {} s", MASK.as_secs());
        let cancelled = self.run.handle.is_cancelled();
        cancelled.then(|| GrammarError::TooComplex(message()))
    }
}

/// Looks after all matchers, on a thread that begins with the first and lives as long as the process.
struct Clock {
    start: Instant,
    runs: Mutex<Vec<Weak<Run>>>,
    thread: OnceLock<Option<std::thread::Thread>>,
}

impl Clock {
    fn shared() -> &'static Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        CLOCK.get_or_init(|| Self {
            start: Instant::now(),
            runs: Mutex::default(),
            thread: OnceLock::new(),
        })
    }

    /// Milliseconds, from 1.
    fn now(&self) -> u64 {
        let passed = self.start.elapsed().as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn watch(&'static self, run: &Arc<Run>) {
        self.runs().push(Arc::downgrade(run));
        let thread = self.thread.get_or_init(|| {
            let thread = std::thread::Builder::new().name("mask-clock".to_owned());
            let thread = thread.spawn(|| self.tick()).ok()?;
            Some(thread.thread().clone())
        });
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let most = u64::try_from(MASK.as_millis()).unwrap_or(u64::MAX);
        loop {
            let mut runs = self.runs();
            let now = self.now();
            runs.retain(|run| {
                let Some(run) = run.upgrade() else {
                    return false;
                };
                let since = run.since.load(Ordering::Acquire);
                if since > 0 && now.saturating_sub(since) > most {
                    run.handle.cancel();
                }
                true
            });
            let idle = runs.is_empty();
            drop(runs);
            match idle {
                true => std::thread::park(),
                false => std::thread::sleep(TICK),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_compiles_for_too_long_is_not_waited_for() {
        let (go_on, wait) = channel::<()>();
        let slow = isolated(Duration::from_millis(10), move || {
            let _ = wait.recv();
            Ok(1)
        });
        assert_eq!(slow, Err(GrammarError::TooSlow(0)));
        // Another one is not held up by it.
        assert_eq!(isolated(COMPILING, || Ok(2)), Ok(2));
        drop(go_on);
    }

    #[test]
    fn a_panic_is_an_error() {
        let panics = || -> Result<(), GrammarError> { panic!("odd input") };
        let error = isolated(COMPILING, panics).unwrap_err();
        assert!(matches!(error, GrammarError::TooComplex(_)), "{error}");
    }

    #[test]
    fn a_mask_that_takes_too_long_is_cancelled() {
        let handle = CancellationHandle::default();
        let timed = Timed::new(handle.clone());
        timed.run(|| ());
        assert_eq!(timed.error(), None);
        let deadline = Instant::now() + MASK * 30;
        timed.run(|| {
            while !handle.is_cancelled() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        assert!(matches!(timed.error(), Some(GrammarError::TooComplex(_))));
    }
}
