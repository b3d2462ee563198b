//! Brings one file's bytes into the cache.
//!
//! This is our own because hf-hub 1.0.0's `download_file` starts from the beginning each time,
//! gives up on another's lock after ten seconds, downloads again what that other has just
//! downloaded, takes an error page for the file (it does not look at the status of its GET), and
//! checks neither length nor hash. Its `download_file_stream` takes a range, but does not tell
//! whether the hub honoured it. All of them send the first request without any limit of time.

use std::path::{Path, PathBuf};

use reqwest::{Response, StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, SeekFrom};

use super::cache::Cache;
use super::client::{Failure, Hub, Meta};
use super::error::HubError;
use super::snapshot::Tracker;

/// What [`blob`] needs to know of the download it is a part of.
pub(super) struct Transfer<'a> {
    pub(super) hub: &'a Hub<'a>,
    pub(super) cache: &'a Cache,
    pub(super) commit: &'a str,
    pub(super) tracker: &'a Tracker<'a>,
}

impl Transfer<'_> {
    /// Downloads a blob, unless somebody else just did.
    pub(super) async fn blob(&self, meta: &Meta) -> Result<(), HubError> {
        let path = self.cache.partial(&meta.etag);
        let _lock = self
            .cache
            .lock(&meta.etag, || {
                self.tracker.waiting(&meta.file, length(&path));
            })
            .await?;
        let blob = self.cache.blob(&meta.etag);
        if blob.is_file() {
            self.tracker.complete(&meta.file, meta.size);
            return Ok(());
        }

        let checked = |bytes| self.tracker.advance(&meta.file, bytes);
        let mut partial = Partial::open(path, checked).await?;
        if meta.sha256().is_none() {
            // A small file: nothing would tell whether what an earlier attempt left is sound.
            partial.restart().await?;
        }
        let resumed = partial.len > 0;
        if resumed {
            tracing::info!(file = %meta.file, bytes = partial.len, "resuming a download");
        }
        self.fill(&mut partial, meta).await?;
        if resumed && partial.damage(meta).is_some() {
            // What an earlier attempt left may have been damaged; what this one brings is judged
            // by itself.
            partial.restart().await?;
            self.fill(&mut partial, meta).await?;
        }
        if let Some(detail) = partial.damage(meta) {
            partial.discard().await?;
            return Err(self.hub.corrupt(&meta.file, detail));
        }
        partial
            .finish(&blob)
            .await
            .map_err(|error| self.full(error))?;
        self.tracker.complete(&meta.file, meta.size);
        Ok(())
    }

    /// Appends to `partial` until it is as long as the file.
    async fn fill(&self, partial: &mut Partial, meta: &Meta) -> Result<(), HubError> {
        if partial.len > meta.size {
            partial.restart().await?;
        }
        let mut failures = 0;
        while partial.len < meta.size {
            let before = partial.len;
            let Err(failure) = self.receive(partial, meta).await else {
                continue;
            };
            failures = if partial.len > before {
                1
            } else {
                failures + 1
            };
            self.hub.pause(failure, failures).await?;
        }
        Ok(())
    }

    /// One request, as far as it gets.
    async fn receive(&self, partial: &mut Partial, meta: &Meta) -> Result<(), Failure> {
        let mut response = self.hub.get(self.commit, &meta.file, partial.len).await?;
        if starts_at(&response) != Some(partial.len) {
            let from_the_start = response.status() == StatusCode::OK;
            partial.restart().await.map_err(Failure::Fatal)?;
            if !from_the_start {
                return Err(Failure::transient(format!(
                    "it cannot resume {}",
                    meta.file
                )));
            }
        }
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if partial.len == meta.size => return Ok(()),
                Ok(None) => return Err(Failure::transient("it ended the answer early")),
                Err(error) => return Err(self.hub.transport(error)),
            };
            if partial.len + chunk.len() as u64 > meta.size {
                partial.restart().await.map_err(Failure::Fatal)?;
                return Err(Failure::transient(format!(
                    "it sends more than all of {}",
                    meta.file
                )));
            }
            let appended = partial.append(&chunk).await;
            appended.map_err(|error| Failure::Fatal(self.full(error)))?;
            self.tracker.advance(&meta.file, partial.len);
        }
    }

    /// Makes the error of a write that found the disk full say so.
    fn full(&self, error: HubError) -> HubError {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error {
            HubError::Io { source, .. }
                if [StorageFull, QuotaExceeded].contains(&source.kind()) =>
            {
                self.hub.disk_full(self.tracker.remaining())
            }
            error => error,
        }
    }
}

/// The bytes of an unfinished file that are on disk, and nothing else: no length is written down
/// anywhere, so a process that dies at any moment leaves what the next one can go on from.
struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    hash: Sha256,
}

impl Partial {
    /// Opens what is there. Its hash takes a while where that is much, so `checked` hears how far it
    /// has got.
    async fn open(path: PathBuf, checked: impl Fn(u64)) -> Result<Self, HubError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .await;
        let file = file.map_err(HubError::io("create", &path))?;
        let mut partial = Self {
            path,
            file,
            len: 0,
            hash: Sha256::new(),
        };
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = partial.file.read(&mut buffer).await;
            match read.map_err(HubError::io("read", &partial.path))? {
                0 => return Ok(partial),
                read => {
                    partial.hash.update(&buffer[..read]);
                    partial.len += read as u64;
                    checked(partial.len);
                }
            }
        }
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file
            .write_all(bytes)
            .await
            .map_err(HubError::io("write", &self.path))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is there.
    async fn restart(&mut self) -> Result<(), HubError> {
        let emptied = async {
            self.file.set_len(0).await?;
            self.file.seek(SeekFrom::Start(0)).await
        };
        emptied.await.map_err(HubError::io("write", &self.path))?;
        self.hash = Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// How the bytes differ from the file, if they do.
    fn damage(&self, meta: &Meta) -> Option<String> {
        let expected = meta.sha256()?;
        let found: String = self
            .hash
            .clone()
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        (found != expected).then(|| format!("its SHA-256 is {found}, not {expected}"))
    }

    async fn discard(self) -> Result<(), HubError> {
        tokio::fs::remove_file(&self.path)
            .await
            .map_err(HubError::io("remove", &self.path))
    }

    /// Puts the file in its place, whole also after a power cut.
    async fn finish(mut self, blob: &Path) -> Result<(), HubError> {
        let done = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            tokio::fs::rename(&self.path, blob).await
        };
        done.await.map_err(HubError::io("write", blob))
    }
}

/// The offset of an answer's first byte; `None` if it has no bytes of the file.
fn starts_at(response: &Response) -> Option<u64> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = response
                .headers()
                .get(header::CONTENT_RANGE)?
                .to_str()
                .ok()?;
            range
                .strip_prefix("bytes ")?
                .split('-')
                .next()?
                .parse()
                .ok()
        }
        StatusCode::OK => Some(0),
        _ => None,
    }
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
