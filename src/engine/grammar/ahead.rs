//! Masks made ahead of time, while the model computes the logits that they are for.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Matcher;

/// A matcher that several threads take turns with: the one that first needs a mask makes it.
#[derive(Debug, Clone)]
pub struct SharedMatcher(Arc<Mutex<Matcher>>);

impl SharedMatcher {
    /// Shares it.
    pub fn new(matcher: Matcher) -> Self {
        Self(Arc::new(Mutex::new(matcher)))
    }

    /// Waits until nobody else uses it. What a panic left half done fails when it is used.
    pub fn lock(&self) -> std::sync::MutexGuard<'_, Matcher> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads that make masks. They start with the first mask and end with their owner.
#[derive(Debug, Default)]
pub struct Masks {
    queue: OnceLock<Option<Sender<SharedMatcher>>>,
}

impl Masks {
    /// Has the mask of the matcher's state made. Whoever asks for it earlier makes it himself, so
    /// nothing but time depends on this.
    pub fn make(&self, matcher: &SharedMatcher) {
        if let Some(queue) = self.queue.get_or_init(start) {
            // Threads that are gone make none.
            let _ = queue.send(matcher.clone());
        }
    }
}

/// One thread for every other processor: the model computes at the same time.
fn start() -> Option<Sender<SharedMatcher>> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (queue, matchers) = channel();
    let matchers = Arc::new(Mutex::new(matchers));
    let threads = (0..processors.div_ceil(2)).filter_map(|_| {
        let matchers = Arc::clone(&matchers);
        let thread = std::thread::Builder::new().name("masks".to_owned());
        thread.spawn(move || work(&matchers)).ok()
    });
    (threads.count() > 0).then_some(queue)
}

fn work(matchers: &Mutex<Receiver<SharedMatcher>>) {
    loop {
        // In one statement: a lock held while a mask is made would keep the other threads from theirs.
        let next = matchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(matcher) = next else { return };
        // An error stays in the matcher, and is told to whoever asks for the mask.
        let _ = matcher.lock().mask();
    }
}
