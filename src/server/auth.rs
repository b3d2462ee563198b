//! API keys: where they come from, how a request's is compared, and who it says is asking.

use std::fmt;
use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::error::ApiError;
use super::state::App;

/// Anthropic's header for a key.
const X_API_KEY: &str = "x-api-key";

/// Who asks: the same for all requests with one key, also after a restart, and another for each key.
/// It does not tell the key. Handlers take it as an argument.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 32]);

impl KeyId {
    /// Whoever sends no key to a server that wants none.
    pub const NOBODY: Self = Self([0; 32]);

    /// Whoever sends this key.
    pub fn of(key: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(b"mlxcel key\0");
        Self(digest.chain_update(key).finalize().into())
    }

    /// For what is kept apart by key.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyId {
    /// Enough to tell two of them apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "KeyId({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

impl FromRequestParts<App> for KeyId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, ApiError> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::NOBODY))
    }
}

/// The keys that open the server; none at all leaves it open. Only their digests are kept.
#[derive(Default)]
pub struct Keys {
    variable: Option<KeyId>,
    file: Option<PathBuf>,
    current: ArcSwap<Vec<KeyId>>,
}

/// Why the keys could not be read. The messages never hold a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file cannot be read.
    #[error("cannot read the API key file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing in the file is a key.
    #[error("the API key file {0} holds no key; write one a line")]
    EmptyFile(PathBuf),
    /// A variable that is set to nothing would leave the server open by accident.
    #[error("LLAMA_API_KEY is set but empty; unset it to serve without a key")]
    EmptyVariable,
    /// A key that no `Authorization` header could carry.
    #[error("an API key from {0} holds characters other than visible ASCII")]
    NotAscii(String),
}

impl Keys {
    /// Joins the value of `LLAMA_API_KEY` and the lines of a file.
    pub fn load(variable: Option<String>, file: Option<&Path>) -> Result<Self, KeyError> {
        let variable = match variable.as_deref().map(str::trim) {
            None => None,
            Some("") => return Err(KeyError::EmptyVariable),
            Some(key) => Some(checked(key, "LLAMA_API_KEY")?),
        };
        let keys = Self {
            variable,
            file: file.map(Path::to_owned),
            current: ArcSwap::default(),
        };
        keys.reload()?;
        Ok(keys)
    }

    /// Reads the file anew. What was read before stays where that fails.
    pub fn reload(&self) -> Result<(), KeyError> {
        let mut keys: Vec<KeyId> = self.variable.into_iter().collect();
        if let Some(path) = &self.file {
            keys.extend(read(path)?);
        }
        self.current.store(keys.into());
        Ok(())
    }

    /// The file that they come from, if any do.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether any key is wanted.
    pub fn required(&self) -> bool {
        !self.current.load().is_empty()
    }

    /// Who asks; `None` where that may not pass. Takes the same time for every wrong key of one length.
    pub fn admit(&self, headers: &HeaderMap) -> Option<KeyId> {
        let mut given = given(headers).map(KeyId::of);
        let keys = self.current.load();
        if keys.is_empty() {
            return Some(given.next().unwrap_or(KeyId::NOBODY));
        }
        given.find(|given| {
            let equal = |key: &KeyId| key.0.ct_eq(&given.0);
            keys.iter()
                .map(equal)
                .fold(Choice::from(0), |any, one| any | one)
                .into()
        })
    }
}

fn read(path: &Path) -> Result<Vec<KeyId>, KeyError> {
    let text = std::fs::read_to_string(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let origin = path.display().to_string();
    let keys: Vec<KeyId> = lines
        .map(|line| checked(line, &origin))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(KeyError::EmptyFile(path.to_owned()));
    }
    Ok(keys)
}

fn checked(key: &str, origin: &str) -> Result<KeyId, KeyError> {
    if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(KeyId::of(key.as_bytes()))
    } else {
        Err(KeyError::NotAscii(origin.to_owned()))
    }
}

/// The keys that a request gives: OpenAI's way, and Anthropic's.
fn given(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let other = headers.get(X_API_KEY).map(|key| key.as_bytes());
    [bearer(headers), other].into_iter().flatten()
}

/// The token of `Authorization: Bearer …`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    fn bearing(value: &str) -> HeaderMap {
        headers(header::AUTHORIZATION, value)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn no_keys_admit_everybody_and_tell_them_apart() {
        let keys = Keys::default();
        assert!(!keys.required());
        assert_eq!(keys.admit(&HeaderMap::new()), Some(KeyId::NOBODY));
        let one = keys.admit(&bearing("Bearer one")).unwrap();
        assert!(one != KeyId::NOBODY && keys.admit(&bearing("Bearer two")) != Some(one));
    }

    #[test]
    fn every_key_opens_and_nothing_else_does() {
        let file = file("second\n\n  third  \n");
        let keys = Keys::load(Some("first".into()), Some(file.path())).unwrap();
        let mut seen = Vec::new();
        for key in ["first", "second", "third"] {
            let id = keys.admit(&bearing(&format!("Bearer {key}"))).unwrap();
            for same in [
                bearing(&format!("bearer {key}")),
                headers(HeaderName::from_static(X_API_KEY), key),
            ] {
                assert_eq!(keys.admit(&same), Some(id), "{key}");
            }
            assert!(!seen.contains(&id));
            seen.push(id);
        }
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer fir",
            "Bearer firsts",
            "Basic first",
            "first",
        ] {
            assert_eq!(keys.admit(&bearing(value)), None, "{value}");
        }
        assert_eq!(keys.admit(&HeaderMap::new()), None);
    }

    #[test]
    fn either_header_may_carry_the_key() {
        let keys = Keys::load(Some("first".into()), None).unwrap();
        let mut both = bearing("Bearer dummy");
        both.insert(X_API_KEY, "first".parse().unwrap());
        assert!(keys.admit(&both).is_some());
    }

    #[test]
    fn a_file_is_read_anew_and_a_broken_one_changes_nothing() {
        let file = file("old");
        let keys = Keys::load(Some("fixed".into()), Some(file.path())).unwrap();
        let open = |key: &str| keys.admit(&bearing(&format!("Bearer {key}"))).is_some();
        std::fs::write(file.path(), "new\nother\n").unwrap();
        assert!(open("old") && !open("new"));
        keys.reload().unwrap();
        assert!(open("fixed") && open("new") && open("other") && !open("old"));
        for broken in ["", "\u{e4}"] {
            std::fs::write(file.path(), broken).unwrap();
            assert!(keys.reload().is_err());
            assert!(open("fixed") && open("new"));
        }
        std::fs::remove_file(file.path()).unwrap();
        assert!(keys.reload().is_err() && open("new") && keys.required());
    }

    #[test]
    fn empty_sources_are_errors_not_an_open_door() {
        let file = file("");
        assert!(matches!(
            Keys::load(Some(" ".into()), None),
            Err(KeyError::EmptyVariable)
        ));
        assert!(matches!(
            Keys::load(None, Some(file.path())),
            Err(KeyError::EmptyFile(_))
        ));
        let missing = Path::new("/nonexistent/keys");
        assert!(matches!(
            Keys::load(None, Some(missing)),
            Err(KeyError::Read { .. })
        ));
    }

    #[test]
    fn neither_errors_nor_ids_show_the_key() {
        let error = Keys::load(Some("schlüssel".into()), None).err().unwrap();
        assert!(!error.to_string().contains("schl"));
        assert!(!format!("{:?}", KeyId::of(b"secret")).contains("secret"));
    }
}
