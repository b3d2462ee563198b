//! What can go wrong on the way from a model argument to a folder.

use std::path::{Path, PathBuf};

/// Why a model argument does not lead to a folder, and what to do about it.
///
/// No variant ever holds the token, nor a URL beyond the hub's own address: the links that a
/// hub redirects to are signed, and thus secrets too.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The argument has none of the forms of a model.
    #[error(
        "`{model}` is not a model: {reason}; write the path of a folder, `mlxcel-tiny`, or a \
         Hugging Face repository as `owner/name` or `owner/name@revision`"
    )]
    InvalidModel {
        /// The argument.
        model: String,
        /// What about it cannot be.
        reason: String,
    },

    /// The argument is a path, and nothing is there.
    #[error("there is no folder {}", .path.display())]
    FolderNotFound {
        /// The path looked at.
        path: PathBuf,
    },

    /// The argument is a path, and a file is there.
    #[error(
        "{} is {format}; mlxcel loads a folder with config.json and *.safetensors", .path.display()
    )]
    NotAFolder {
        /// The path looked at.
        path: PathBuf,
        /// The kind of file, with its article.
        format: String,
    },

    /// A folder or a repository is no complete model.
    #[error("{place} is not a model that mlxcel can load: {missing}")]
    Incomplete {
        /// The folder or repository.
        place: String,
        /// What is missing.
        missing: String,
    },

    /// A folder or a repository has weights, none of them in safetensors.
    #[error(
        "{place} has its weights as {formats} only; mlxcel loads safetensors: look for a \
         conversion of this model, for instance at https://huggingface.co/mlx-community"
    )]
    NoSafetensors {
        /// The folder or repository.
        place: String,
        /// The formats that are there.
        formats: String,
    },

    /// The built-in model did not come with this executable.
    #[error("the built-in model mlxcel-tiny is missing; looked in {}", list(.looked))]
    BuiltInMissing {
        /// Every folder looked in.
        looked: Vec<PathBuf>,
    },

    /// `HF_HUB_OFFLINE` is set and the cache has no complete copy.
    #[error(
        "HF_HUB_OFFLINE is set and {repo} is not complete in the cache {}: {missing}; unset \
         HF_HUB_OFFLINE to download it", .cache.display()
    )]
    Offline {
        /// The repository, with its revision.
        repo: String,
        /// The cache folder.
        cache: PathBuf,
        /// What of it is missing.
        missing: String,
    },

    /// `HF_ENDPOINT` is no address.
    #[error("HF_ENDPOINT is not the address of a hub: {reason}")]
    InvalidEndpoint {
        /// What is wrong with it.
        reason: String,
    },

    /// The token has characters that no HTTP header can carry.
    #[error("the Hugging Face token has characters that no token has: set HF_TOKEN anew")]
    InvalidToken,

    /// The HTTPS client cannot be set up.
    #[error("cannot set up an HTTPS client: {detail}")]
    Tls {
        /// The reason, for instance that the system has no root certificates.
        detail: String,
    },

    /// The hub wants to know who asks (401), or there is no such repository: it does not tell.
    #[error("{host} does not show {repo} (401): {remedy}{}", hint(.cached))]
    Unauthorized {
        /// The repository, with its revision.
        repo: String,
        /// The hub's host.
        host: String,
        /// What to do.
        remedy: &'static str,
        /// A complete copy is in the cache.
        cached: bool,
    },

    /// The repository is gated, and this token's account has not accepted its terms.
    #[error(
        "{repo} is gated: accept its licence at {page}, then set HF_TOKEN to a token of the \
         account that did (`hf auth login` stores one){}", hint(.cached)
    )]
    Gated {
        /// The repository, with its revision.
        repo: String,
        /// The page with the form.
        page: String,
        /// A complete copy is in the cache.
        cached: bool,
    },

    /// The account may not read the repository (403).
    #[error(
        "{host} forbids reading {repo} (403): set HF_TOKEN to a token with read access to it{}",
        hint(.cached)
    )]
    Forbidden {
        /// The repository, with its revision.
        repo: String,
        /// The hub's host.
        host: String,
        /// A complete copy is in the cache.
        cached: bool,
    },

    /// There is no such repository (404).
    #[error("{host} has no repository {repo} (404): check the spelling of `owner/name`")]
    RepoNotFound {
        /// The repository.
        repo: String,
        /// The hub's host.
        host: String,
    },

    /// The repository has no such branch, tag or commit (404).
    #[error("{repo} has no revision `{revision}` (404): name a branch, a tag or a commit of it")]
    RevisionNotFound {
        /// The repository.
        repo: String,
        /// The revision asked for.
        revision: String,
    },

    /// The hub does not answer, or breaks off again and again.
    #[error("cannot download {repo} from {host}: {detail}; check the network{}", hint(.cached))]
    Unreachable {
        /// The repository, with its revision.
        repo: String,
        /// The hub's host.
        host: String,
        /// What happened last.
        detail: String,
        /// A complete copy is in the cache.
        cached: bool,
    },

    /// The hub's answer is not what a hub answers.
    #[error("{host} gave no answer of a Hugging Face hub for {repo}: {detail}")]
    Protocol {
        /// The repository, with its revision.
        repo: String,
        /// The hub's host.
        host: String,
        /// What is wrong with it.
        detail: String,
    },

    /// The bytes that arrived are not the file.
    #[error(
        "{file} of {repo} arrived damaged ({detail}) and was removed; start again to fetch it anew"
    )]
    Corrupt {
        /// The repository, with its revision.
        repo: String,
        /// The file.
        file: String,
        /// How it differs.
        detail: String,
    },

    /// The disk has no room for the model.
    #[error(
        "{repo} needs {} more on the disk of {} and {} are free: free some space, or set \
         HF_HUB_CACHE to a folder on a larger disk",
        size(.needed), .cache.display(), size(.free)
    )]
    DiskFull {
        /// The repository, with its revision.
        repo: String,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The cache folder.
        cache: PathBuf,
    },

    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl HubError {
    /// Wraps an I/O error with what was done to what; made for `map_err`.
    pub(super) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> HubError + use<> {
        let path = path.to_owned();
        move |source| HubError::Io {
            action,
            path,
            source,
        }
    }
}

fn hint(cached: &bool) -> &'static str {
    if *cached {
        ", or set HF_HUB_OFFLINE=1 to use the copy in the cache"
    } else {
        ""
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

/// Bytes for people, and exactly: `4.08 GB (4080263168 bytes)`.
fn size(bytes: &u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut value = *bytes as f64;
    let mut unit = None;
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = Some(next);
    }
    match unit {
        None => format!("{bytes} bytes"),
        Some(unit) => format!("{value:.2} {unit} ({bytes} bytes)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable_and_exact() {
        assert_eq!(size(&999), "999 bytes");
        assert_eq!(size(&4_080_263_168), "4.08 GB (4080263168 bytes)");
    }
}
