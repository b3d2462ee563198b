//! Model arguments: a folder, the built-in model, or a repository of the Hugging Face hub.
//!
//! Downloads live in the hub's own cache, in the layout that Python's `huggingface_hub` writes and
//! reads (`blobs/`, `refs/`, `snapshots/<commit>/`), so that neither fetches again what the other
//! has. One download serves any number of starters, it resumes where it was cut, and what arrives
//! is checked before anybody can see it.
//!
//! The listing of a repository goes through the `hf-hub` crate; the bytes do not, for the reasons
//! given in `transfer.rs`.

mod builtin;
mod cache;
mod client;
mod disk;
mod error;
mod files;
mod folder;
mod options;
mod reference;
mod snapshot;
mod transfer;

use std::path::PathBuf;

pub use builtin::BUILTIN_MODEL;
pub use error::HubError;
pub use options::{HubOptions, Token};
pub use reference::{ModelRef, RepoId};

/// How far a download is, over all the files of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The file that the latest bytes belong to.
    pub file: String,
    /// Bytes of this model's download that are on disk, those of an earlier attempt included.
    pub bytes: u64,
    /// Bytes that the download takes in all.
    pub total: u64,
    /// Another process is downloading `file`, and this one waits for it.
    pub waiting: bool,
}

/// The folder that a model argument stands for, downloaded first where it has to be.
///
/// `progress` is called about ten times a second while bytes arrive, and never when nothing has to
/// be downloaded.
///
/// # Errors
///
/// [`HubError`] names what is wrong and what to do about it.
pub async fn resolve(
    model: &str,
    options: &HubOptions,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<PathBuf, HubError> {
    let meant = reference::parse(model, options.home.as_deref(), &|path| path.exists())?;
    match meant {
        ModelRef::Folder(path) => folder::check(path),
        ModelRef::BuiltIn => builtin::find(&options.executable),
        ModelRef::Repo(repo) => snapshot::fetch(&repo, options, &progress).await,
    }
}
