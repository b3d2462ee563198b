//! Where the cache is, which hub to ask, and as whom: the only place that reads the environment.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk;

/// A hub access token; neither its `Debug` nor any error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token without the white space around it, if anything is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How [`resolve`](super::resolve) finds models.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The hub's cache folder: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, or `hub` in the hub's home
    /// (`HF_HOME`, `XDG_CACHE_HOME/huggingface`, or `~/.cache/huggingface`).
    pub cache_dir: PathBuf,
    /// The hub's address: `HF_ENDPOINT`, or `https://huggingface.co`.
    pub endpoint: String,
    /// `HF_TOKEN`, or the file `HF_TOKEN_PATH`, or `token` in the hub's home.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`): no network, only what the cache holds.
    pub offline: bool,
    /// The user's home folder, for a leading `~`.
    pub home: Option<PathBuf>,
    /// The running executable, which the built-in model lies near.
    pub executable: PathBuf,
    /// How long the hub may say nothing before a request counts as failed.
    pub timeout: Duration,
    /// The pause before the first retry; each further one is twice as long.
    pub retry_delay: Duration,
    /// Free bytes on the disk of a folder.
    pub free_space: fn(&Path) -> io::Result<u64>,
}

impl HubOptions {
    /// The options that the environment asks for, by the rules of Python's `huggingface_hub`
    /// (its `constants.py` and `utils/_auth.py`).
    pub fn from_env() -> Self {
        let executable = std::env::current_exe().unwrap_or_default();
        Self::from_lookup(executable, std::env::home_dir(), |name| {
            std::env::var_os(name)
        })
    }

    /// [`from_env`](Self::from_env) with the environment as a function.
    fn from_lookup(
        executable: PathBuf,
        home: Option<PathBuf>,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let value = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path =
            |name: &str| value(name).map(|value| expand_home(Path::new(&value), home.as_deref()));
        let truthy = |name: &str| {
            value(name).is_some_and(|value| {
                let value = value.to_string_lossy().to_uppercase();
                ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
            })
        };

        let hub_home = path("HF_HOME").unwrap_or_else(|| {
            let caches = path("XDG_CACHE_HOME");
            let default = || home.clone().unwrap_or_default().join(".cache");
            caches.unwrap_or_else(default).join("huggingface")
        });
        let token = if truthy("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            let named = value("HF_TOKEN").and_then(|value| Token::new(&value.to_string_lossy()));
            named.or_else(|| {
                let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hub_home.join("token"));
                Token::new(&std::fs::read_to_string(file).ok()?)
            })
        };
        Self {
            cache_dir: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| hub_home.join("hub")),
            endpoint: value("HF_ENDPOINT").map_or_else(
                || "https://huggingface.co".to_owned(),
                |value| value.to_string_lossy().trim_end_matches('/').to_owned(),
            ),
            token,
            offline: truthy("HF_HUB_OFFLINE") || truthy("TRANSFORMERS_OFFLINE"),
            home,
            executable,
            timeout: Duration::from_secs(10),
            retry_delay: Duration::from_millis(500),
            free_space: disk::free_space,
        }
    }
}

/// `~` and `~/…` with the home folder in place.
pub(super) fn expand_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => home.to_owned(),
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_lookup("/bin/mlxcel".into(), Some("/home/u".into()), |name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_python_looks() {
        let cache = |variables: &[(&str, &str)]| options(variables).cache_dir;
        assert_eq!(cache(&[]), Path::new("/home/u/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        let home = ("HF_HOME", "~/hf");
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/x")]),
            Path::new("/home/u/hf/hub")
        );
        let old = ("HUGGINGFACE_HUB_CACHE", "/old");
        assert_eq!(cache(&[home, old]), Path::new("/old"));
        assert_eq!(
            cache(&[home, old, ("HF_HUB_CACHE", "/new")]),
            Path::new("/new")
        );
        assert_eq!(
            cache(&[("HF_HOME", "")]),
            Path::new("/home/u/.cache/huggingface/hub")
        );
    }

    #[test]
    fn the_token_comes_from_the_variable_then_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), " hf_file\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        assert_eq!(options(&[home]).token, Token::new("hf_file"));
        assert_eq!(
            options(&[home, ("HF_TOKEN", "hf_named\n")]).token,
            Token::new("hf_named")
        );
        assert_eq!(
            options(&[home, ("HF_TOKEN", " ")]).token,
            Token::new("hf_file")
        );
        assert_eq!(
            options(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token,
            None
        );
        assert_eq!(options(&[]).token, None);
    }

    #[test]
    fn a_token_never_shows() {
        let options = options(&[("HF_TOKEN", "hf_secret")]);
        assert!(!format!("{options:?}").contains("hf_secret"));
    }

    #[test]
    fn offline_and_endpoint() {
        assert!(!options(&[]).offline);
        assert!(!options(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert!(options(&[("HF_HUB_OFFLINE", "true")]).offline);
        assert!(options(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert_eq!(options(&[]).endpoint, "https://huggingface.co");
        assert_eq!(
            options(&[("HF_ENDPOINT", "http://mirror/")]).endpoint,
            "http://mirror"
        );
    }
}
