//! The hub's cache on disk, as Python's `huggingface_hub` lays it out:
//!
//! ```text
//! models--owner--name/
//!     blobs/<etag>                  the bytes
//!     blobs/<etag>.incomplete       as far as a download got
//!     refs/<revision>               the commit that a branch or tag stood for
//!     snapshots/<commit>/<file>     a link to ../../blobs/<etag>
//!     trees/<commit>.json           every file of the commit (written by Python, read here)
//! .locks/models--owner--name/<etag>.lock
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::error::HubError;
use super::reference::RepoId;
use super::{files, folder};

/// How often a waiter looks whether the lock is free.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// One repository's part of the cache.
#[derive(Debug)]
pub(super) struct Cache {
    repo: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(root: &Path, repo: &RepoId) -> Self {
        let folder = format!("models--{}--{}", repo.owner, repo.name);
        Self {
            repo: root.join(&folder),
            locks: root.join(".locks").join(folder),
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repo.join("blobs").join(etag)
    }

    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.repo.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The snapshot of a revision if all of it is here, else what is missing.
    pub(super) fn complete_snapshot(&self, revision: &str) -> Result<PathBuf, String> {
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let text = std::fs::read_to_string(self.repo.join("refs").join(revision));
            let commit = text.map_err(|_| format!("no `{revision}` of it was downloaded"))?;
            commit.trim().to_owned()
        };
        let snapshot = self.snapshot(&commit);
        if !is_commit(&commit) || !snapshot.is_dir() {
            return Err(format!("no `{revision}` of it was downloaded"));
        }
        let listed = self.listed(&commit);
        let wanted = files::wanted(listed.iter().map(String::as_str));
        if let Some(file) = wanted
            .into_iter()
            .find(|file| !snapshot.join(file).is_file())
        {
            return Err(format!("{file} was not downloaded"));
        }
        folder::check(snapshot).map_err(|error| error.to_string())
    }

    /// The files of a commit as Python recorded them; none where it did not.
    fn listed(&self, commit: &str) -> Vec<String> {
        #[derive(Deserialize)]
        struct Tree {
            files: serde_json::Map<String, serde_json::Value>,
        }
        let text = std::fs::read(self.repo.join("trees").join(format!("{commit}.json")));
        let tree: Option<Tree> = text
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        tree.map(|tree| tree.files.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Makes the folders that [`partial`](Self::partial) and [`lock`](Self::lock) need.
    pub(super) fn create(&self) -> Result<(), HubError> {
        for folder in [self.repo.join("blobs"), self.locks.clone()] {
            std::fs::create_dir_all(&folder).map_err(HubError::io("create", &folder))?;
        }
        Ok(())
    }

    /// Takes the lock of a blob, calling `waiting` every now and then while another has it.
    ///
    /// It is the `flock` that Python takes on the same file. It ends with its holder, so none is
    /// ever left behind by a process that died.
    pub(super) async fn lock(
        &self,
        etag: &str,
        mut waiting: impl FnMut(),
    ) -> Result<File, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(HubError::io("create", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => waiting(),
                Err(TryLockError::Error(error)) => return Err(HubError::io("lock", &path)(error)),
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// Makes `snapshots/<commit>/<file>` stand for a blob.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let pointer = self.snapshot(commit).join(file);
        let folder = pointer.parent().unwrap_or(&pointer);
        std::fs::create_dir_all(folder).map_err(HubError::io("create", folder))?;
        let depth = file.matches('/').count();
        place(&pointer, |temporary| {
            link_blob(&self.blob(etag), etag, depth, temporary)
        })
        .map_err(HubError::io("create", &pointer))
    }

    /// Records the commit that a branch or tag stands for.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.repo.join("refs").join(revision);
        if revision == commit || std::fs::read_to_string(&path).is_ok_and(|old| old == commit) {
            return Ok(());
        }
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(&self.repo))?;
            place(&path, |temporary| std::fs::write(temporary, commit))
        };
        write().map_err(HubError::io("write", &path))
    }
}

/// Makes a file under a name of its own and moves it into place, so that no reader sees half of it.
fn place(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
    let temporary = PathBuf::from(temporary);
    let placed = make(&temporary).and_then(|()| std::fs::rename(&temporary, path));
    if placed.is_err() {
        // Nothing to report beyond the error itself: there may be no such file.
        let _ = std::fs::remove_file(&temporary);
    }
    placed
}

#[cfg(unix)]
fn link_blob(_blob: &Path, etag: &str, depth: usize, pointer: &Path) -> io::Result<()> {
    let blobs = PathBuf::from("../".repeat(depth) + "../../blobs");
    std::os::unix::fs::symlink(blobs.join(etag), pointer)
}

/// Symbolic links take a privilege on Windows; hard links do not.
#[cfg(not(unix))]
fn link_blob(blob: &Path, _etag: &str, _depth: usize, pointer: &Path) -> io::Result<()> {
    std::fs::hard_link(blob, pointer)
}

/// A full commit hash: what never changes, and is safe as the name of a folder.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether an ETag can be the name of a file.
pub(super) fn is_blob_name(etag: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !etag.is_empty() && etag.len() <= 200 && !etag.starts_with('.') && etag.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache() -> (tempfile::TempDir, Cache) {
        let root = tempfile::tempdir().unwrap();
        let repo = RepoId {
            owner: "o".into(),
            name: "n".into(),
            revision: None,
        };
        let cache = Cache::new(root.path(), &repo);
        cache.create().unwrap();
        (root, cache)
    }

    fn put(cache: &Cache, file: &str) {
        std::fs::write(cache.blob(file), "{}").unwrap();
        cache.link(COMMIT, file, file).unwrap();
    }

    #[test]
    fn a_snapshot_is_complete_with_all_that_is_known_of_it() {
        let (_root, cache) = cache();
        let missing = |cache: &Cache| cache.complete_snapshot("main").unwrap_err();
        assert!(missing(&cache).contains("no `main`"));
        put(&cache, "config.json");
        cache.write_ref("main", COMMIT).unwrap();
        assert!(missing(&cache).contains("no *.safetensors"));
        put(&cache, "model.safetensors");
        assert_eq!(
            cache.complete_snapshot("main").unwrap(),
            cache.snapshot(COMMIT)
        );
        assert_eq!(
            cache.complete_snapshot(COMMIT).unwrap(),
            cache.snapshot(COMMIT)
        );

        let trees = cache.repo.join("trees");
        std::fs::create_dir(&trees).unwrap();
        let tree = r#"{"format_version": 1, "files": {"tokenizer.json": {}, "README.md": {}}}"#;
        std::fs::write(trees.join(format!("{COMMIT}.json")), tree).unwrap();
        assert_eq!(missing(&cache), "tokenizer.json was not downloaded");
        put(&cache, "tokenizer.json");
        assert!(cache.complete_snapshot("main").is_ok());

        std::fs::remove_file(cache.blob("model.safetensors")).unwrap();
        assert!(
            missing(&cache).contains("no *.safetensors"),
            "a link to nothing is no file"
        );
    }

    #[test]
    fn a_ref_that_is_no_commit_leads_nowhere() {
        let (_root, cache) = cache();
        cache.write_ref("main", "../../../etc").unwrap();
        assert!(cache.complete_snapshot("main").is_err());
    }

    #[tokio::test]
    async fn a_lock_waits_for_its_holder_only() {
        let (_root, cache) = cache();
        let held = std::cell::RefCell::new(Some(cache.lock("e", || ()).await.unwrap()));
        let waits = std::cell::Cell::new(0);
        cache
            .lock("e", || {
                waits.set(waits.get() + 1);
                held.borrow_mut().take();
            })
            .await
            .unwrap();
        assert_eq!(waits.get(), 1);
    }

    #[test]
    fn names_from_the_hub_stay_inside_the_cache() {
        assert!(is_commit(COMMIT) && !is_commit("main") && !is_commit(&COMMIT.to_uppercase()));
        assert!(is_blob_name("a1b2-3") && is_blob_name("6cc8…".trim_end_matches('…')));
        for etag in ["", "..", "../x", "a/b", ".hidden", "a b"] {
            assert!(!is_blob_name(etag), "{etag}");
        }
    }
}
