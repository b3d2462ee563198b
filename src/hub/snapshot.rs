//! One commit of a repository, whole in the cache.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};

use super::cache::{Cache, is_commit};
use super::client::{Hub, Meta};
use super::error::HubError;
use super::options::HubOptions;
use super::reference::RepoId;
use super::transfer::Transfer;
use super::{Progress, files, folder};

/// Files asked about, and files downloaded, at the same time.
const PARALLEL_HEADS: usize = 8;
const PARALLEL_FILES: usize = 4;

/// The pause between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);

type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// The folder of a repository's files, from the cache if the hub has nothing newer.
///
/// A branch is looked up at the hub each time; a commit that is complete in the cache needs no
/// network. When the hub cannot be reached, a complete copy in the cache does, with a warning in
/// the log.
pub(super) async fn fetch(
    repo: &RepoId,
    options: &HubOptions,
    progress: Report<'_>,
) -> Result<PathBuf, HubError> {
    let cache = Cache::new(&options.cache_dir, repo);
    let cached = cache.complete_snapshot(repo.revision());
    if options.offline {
        return cached.map_err(|missing| HubError::Offline {
            repo: repo.to_string(),
            cache: options.cache_dir.clone(),
            missing,
        });
    }
    let cached = cached.ok();
    if let (true, Some(snapshot)) = (is_commit(repo.revision()), &cached) {
        return Ok(snapshot.clone());
    }
    let hub = Hub::new(repo, options, cached.is_some())?;
    match (update(repo, &cache, &hub, options, progress).await, cached) {
        (Err(HubError::Unreachable { host, detail, .. }), Some(snapshot)) => {
            tracing::warn!(
                %repo, %host, %detail, snapshot = %snapshot.display(),
                "the hub cannot be reached; using the copy in the cache"
            );
            Ok(snapshot)
        }
        (result, _) => result,
    }
}

async fn update(
    repo: &RepoId,
    cache: &Cache,
    hub: &Hub<'_>,
    options: &HubOptions,
    progress: Report<'_>,
) -> Result<PathBuf, HubError> {
    let listing = hub.listing().await?;
    let names = listing.files.iter().map(String::as_str);
    files::check(
        &repo.to_string(),
        &names.clone().filter(|name| !name.contains('/')).collect(),
    )?;
    let snapshot = cache.snapshot(&listing.commit);
    let mut absent = files::wanted(names);
    absent.retain(|file| !snapshot.join(file).is_file());
    if !absent.is_empty() {
        cache.create()?;
        // The futures are made before the stream: a closure inside it that takes a reference keeps
        // rustc from seeing that this future is `Send`.
        let heads: Vec<_> = absent
            .iter()
            .map(|file| hub.head(&listing.commit, file))
            .collect();
        let heads = stream::iter(heads).buffer_unordered(PARALLEL_HEADS);
        let metas: Vec<Meta> = heads.try_collect().await?;
        let tracker = Tracker::new(cache, &metas, progress);
        // A disk that does not tell its free space tells when it is full.
        if (options.free_space)(&options.cache_dir).is_ok_and(|free| free < tracker.remaining()) {
            return Err(hub.disk_full(tracker.remaining()));
        }
        let transfer = Transfer {
            hub,
            cache,
            commit: &listing.commit,
            tracker: &tracker,
        };
        let blobs: Vec<_> = metas.iter().map(|meta| transfer.blob(meta)).collect();
        let blobs = stream::iter(blobs).buffer_unordered(PARALLEL_FILES);
        blobs.try_collect::<()>().await?;
        publish(cache, &listing.commit, &metas)?;
    }
    let snapshot = folder::check(snapshot)?;
    cache.write_ref(repo.revision(), &listing.commit)?;
    Ok(snapshot)
}

/// Links the files into the snapshot, the configuration last: a snapshot that has one is complete.
fn publish(cache: &Cache, commit: &str, metas: &[Meta]) -> Result<(), HubError> {
    let (config, others): (Vec<_>, Vec<_>) =
        metas.iter().partition(|meta| meta.file == files::CONFIG);
    others
        .iter()
        .chain(&config)
        .try_for_each(|meta| cache.link(commit, &meta.file, &meta.etag))
}

/// Adds up the bytes of all files, and reports them.
pub(super) struct Tracker<'a> {
    report: Report<'a>,
    total: u64,
    state: Mutex<State>,
}

struct State {
    /// Bytes on disk, by file.
    bytes: HashMap<String, u64>,
    reported: Option<Instant>,
}

impl<'a> Tracker<'a> {
    fn new(cache: &Cache, metas: &[Meta], report: Report<'a>) -> Self {
        let on_disk = |meta: &Meta| {
            let blob = cache.blob(&meta.etag).metadata();
            let found = blob.or_else(|_| cache.partial(&meta.etag).metadata());
            found.map_or(0, |metadata| metadata.len().min(meta.size))
        };
        let bytes = metas
            .iter()
            .map(|meta| (meta.file.clone(), on_disk(meta)))
            .collect();
        let total = metas.iter().map(|meta| meta.size).sum();
        Self {
            report,
            total,
            state: Mutex::new(State {
                bytes,
                reported: None,
            }),
        }
    }

    /// Bytes that are still to come.
    pub(super) fn remaining(&self) -> u64 {
        self.total.saturating_sub(self.state().bytes.values().sum())
    }

    /// `bytes` of `file` are on disk.
    pub(super) fn advance(&self, file: &str, bytes: u64) {
        self.set(file, bytes, false, false);
    }

    /// All of `file` is on disk.
    pub(super) fn complete(&self, file: &str, size: u64) {
        self.set(file, size, false, true);
    }

    /// Another process is at work on `file`, and has got to `bytes`.
    pub(super) fn waiting(&self, file: &str, bytes: u64) {
        self.set(file, bytes, true, false);
    }

    fn set(&self, file: &str, bytes: u64, waiting: bool, always: bool) {
        let progress = {
            let mut state = self.state();
            if let Some(known) = state.bytes.get_mut(file) {
                *known = bytes;
            }
            if !always && state.reported.is_some_and(|at| at.elapsed() < REPORT_EVERY) {
                return;
            }
            state.reported = Some(Instant::now());
            Progress {
                file: file.to_owned(),
                bytes: state.bytes.values().sum::<u64>().min(self.total),
                total: self.total,
                waiting,
            }
        };
        (self.report)(progress);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
