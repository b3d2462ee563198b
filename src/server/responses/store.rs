//! Responses that are kept: to be read again, and to be continued.
//!
//! Bounded in number, in bytes and in time; what was unused for the longest goes first. A response
//! belongs to the API key that made it: for any other it is not there.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::task::AbortHandle;

use super::item::Item;
use super::response::Response;
use crate::server::auth::KeyId;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Responses.
    pub count: usize,
    /// Bytes of their JSON, each conversation counted in full for each of its responses.
    pub bytes: usize,
    /// How long after they were last used.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            count: 1000,
            bytes: 64 << 20,
            time: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A response with all that came before it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The object.
    pub response: Response,
    /// The items it answers, those of the responses before it included.
    pub input: Vec<Arc<Value>>,
}

impl Kept {
    /// The items of the conversation, the answer included.
    pub fn conversation(&self) -> impl Iterator<Item = Arc<Value>> {
        let item = |item: &Item| Arc::new(item.to_input());
        let output = self.response.output.iter().map(item);
        self.input
            .clone()
            .into_iter()
            .chain(output.collect::<Vec<_>>())
    }

    fn bytes(&self) -> usize {
        let input: usize = self.input.iter().map(|item| size(item.as_ref())).sum();
        input + size(&self.response)
    }
}

/// Bytes of a value's JSON.
fn size(value: &impl Serialize) -> usize {
    let mut count = Count(0);
    // Counting cannot fail, and what cannot be written takes no place.
    let _counted = serde_json::to_writer(&mut count, value);
    count.0
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that is kept.
#[derive(Default)]
pub struct Store {
    limits: Limits,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<String, Entry>,
    bytes: usize,
    /// Uses so far: orders the entries by their last one.
    uses: u64,
}

struct Entry {
    owner: KeyId,
    kept: Kept,
    bytes: usize,
    used: Instant,
    use_number: u64,
    /// What makes it, where it is made in the background.
    task: Option<AbortHandle>,
}

impl Store {
    /// With limits of its own.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Keeps a response; `task` is what makes it, where it is not made yet.
    pub fn keep(&self, owner: KeyId, kept: Kept, task: Option<AbortHandle>) {
        let mut entries = self.entries();
        let bytes = kept.bytes();
        entries.uses += 1;
        let entry = Entry {
            owner,
            bytes,
            used: Instant::now(),
            use_number: entries.uses,
            task,
            kept,
        };
        entries.bytes += bytes;
        entries.by_id.insert(entry.kept.response.id.clone(), entry);
        entries.bound(&self.limits);
    }

    /// A response of this owner.
    pub fn get(&self, owner: KeyId, id: &str) -> Option<Kept> {
        let mut entries = self.entries();
        entries.expire(self.limits.time);
        entries.touch(owner, id).map(|entry| entry.kept.clone())
    }

    /// Writes down how far a response is that is made in the background. Nothing happens where it was
    /// deleted or cancelled meanwhile.
    pub fn advance(&self, response: &Response) {
        let mut entries = self.entries();
        let Some(entry) = entries.by_id.get_mut(&response.id) else {
            return;
        };
        if entry.kept.response.status.is_final() {
            return;
        }
        entry.kept.response = response.clone();
        if response.status.is_final() {
            entry.task = None;
        }
        let (old, new) = (entry.bytes, entry.kept.bytes());
        entry.bytes = new;
        entries.bytes = entries.bytes.saturating_sub(old) + new;
        entries.bound(&self.limits);
    }

    /// Ends a response that is made in the background, and returns it as it is then.
    pub fn cancel(&self, owner: KeyId, id: &str) -> Option<Response> {
        let mut entries = self.entries();
        let entry = entries.touch(owner, id)?;
        if let Some(task) = entry.task.take() {
            task.abort();
            entry.kept.response.cancel();
        }
        Some(entry.kept.response.clone())
    }

    /// Forgets a response; whether there was one.
    pub fn delete(&self, owner: KeyId, id: &str) -> bool {
        let mut entries = self.entries();
        entries.touch(owner, id).is_some() && entries.remove(id)
    }

    /// The item with this id out of what the owner's responses made.
    pub fn item(&self, owner: KeyId, id: &str) -> Option<Value> {
        let entries = self.entries();
        let mut own = entries.by_id.values().filter(|entry| entry.owner == owner);
        let item = own.find_map(|entry| {
            let mut items = entry.kept.response.output.iter();
            items.find(|item| item.id() == id)
        });
        item.map(Item::to_input)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn touch(&mut self, owner: KeyId, id: &str) -> Option<&mut Entry> {
        self.uses += 1;
        let entry = self
            .by_id
            .get_mut(id)
            .filter(|entry| entry.owner == owner)?;
        entry.used = Instant::now();
        entry.use_number = self.uses;
        Some(entry)
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.by_id.remove(id) else {
            return false;
        };
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        if let Some(task) = entry.task {
            task.abort();
        }
        true
    }

    fn expire(&mut self, time: Duration) {
        let over = |entry: &&Entry| entry.task.is_none() && entry.used.elapsed() > time;
        let id = |entry: &Entry| entry.kept.response.id.clone();
        let old: Vec<String> = self.by_id.values().filter(over).map(id).collect();
        for id in old {
            self.remove(&id);
        }
    }

    /// Forgets what is over the limits. What is still made stays: the engine's queue bounds it.
    fn bound(&mut self, limits: &Limits) {
        self.expire(limits.time);
        while self.by_id.len() > limits.count || self.bytes > limits.bytes {
            let made = self.by_id.values().filter(|entry| entry.task.is_none());
            let oldest = made.min_by_key(|entry| entry.use_number);
            let Some(id) = oldest.map(|entry| entry.kept.response.id.clone()) else {
                return;
            };
            self.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::responses::item::{Item, ItemStatus, Message};
    use crate::server::responses::response::Status;
    use crate::server::responses::response::tests::settings;
    use serde_json::json;

    const NOBODY: KeyId = KeyId::NOBODY;

    fn message(status: ItemStatus) -> Item {
        Item::Message(Message {
            id: "msg_1".into(),
            status,
            role: "assistant",
            content: Vec::new(),
        })
    }

    fn one() -> KeyId {
        KeyId::of(b"one")
    }

    const LIMITS: Limits = Limits {
        count: 3,
        bytes: 1 << 20,
        time: Duration::from_secs(3600),
    };

    fn kept(text: &str) -> Kept {
        let mut response = Response::new("m", settings());
        response.status = Status::Completed;
        Kept {
            response,
            input: vec![Arc::new(json!({"id": "msg_1", "content": text}))],
        }
    }

    fn add(store: &Store, owner: KeyId, text: &str) -> String {
        let kept = kept(text);
        let id = kept.response.id.clone();
        store.keep(owner, kept, None);
        id
    }

    #[test]
    fn a_response_is_its_owners_alone() {
        let store = Store::new(LIMITS);
        let id = add(&store, one(), "a");
        for other in [NOBODY, KeyId::of(b"two")] {
            assert!(store.get(other, &id).is_none());
            assert!(store.cancel(other, &id).is_none());
            assert!(!store.delete(other, &id));
        }
        assert!(store.get(one(), &id).is_some());
        assert!(store.delete(one(), &id));
        assert!(store.get(one(), &id).is_none());
        assert_eq!(store.entries().bytes, 0);
    }

    #[test]
    fn what_was_unused_for_the_longest_goes_first() {
        let store = Store::new(LIMITS);
        let ids: Vec<String> = (0..3).map(|_| add(&store, NOBODY, "a")).collect();
        assert!(store.get(NOBODY, &ids[0]).is_some());
        add(&store, NOBODY, "a");
        let there = |id: &String| store.get(NOBODY, id).is_some();
        assert_eq!(
            ids.iter().map(there).collect::<Vec<_>>(),
            [true, false, true]
        );
    }

    #[test]
    fn bytes_and_time_are_bounded() {
        let store = Store::new(LIMITS);
        let first = add(&store, NOBODY, &"x".repeat(600 << 10));
        let second = add(&store, NOBODY, &"x".repeat(600 << 10));
        assert!(store.get(NOBODY, &first).is_none());
        assert!(store.get(NOBODY, &second).is_some());
        let store = Store::new(Limits {
            time: Duration::ZERO,
            ..LIMITS
        });
        let id = add(&store, NOBODY, "a");
        std::thread::sleep(Duration::from_millis(2));
        assert!(store.get(NOBODY, &id).is_none());
    }

    #[tokio::test]
    async fn what_was_cancelled_stays_cancelled() {
        let store = Store::new(LIMITS);
        let mut kept = kept("a");
        kept.response.status = Status::InProgress;
        kept.response.output = vec![
            message(ItemStatus::Completed),
            message(ItemStatus::InProgress),
        ];
        let mut done = kept.response.clone();
        let task = tokio::spawn(std::future::pending::<()>());
        store.keep(NOBODY, kept, Some(task.abort_handle()));
        let cancelled = store.cancel(NOBODY, &done.id).unwrap();
        assert_eq!(cancelled.status, Status::Cancelled);
        let cut_off = [ItemStatus::Completed, ItemStatus::Incomplete].map(message);
        assert_eq!(cancelled.output, cut_off);
        assert!(task.await.unwrap_err().is_cancelled());
        done.status = Status::Completed;
        store.advance(&done);
        assert_eq!(
            store.get(NOBODY, &done.id).unwrap().response.status,
            Status::Cancelled
        );
    }
}
