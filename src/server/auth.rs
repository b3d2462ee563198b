//! API keys: where they come from and how a request's is compared.

use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};

/// The keys that open the server; none at all leaves it open.
#[derive(Default)]
pub struct Keys(Vec<String>);

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
        let mut keys = Vec::new();
        if let Some(key) = variable {
            let key = key.trim();
            if key.is_empty() {
                return Err(KeyError::EmptyVariable);
            }
            keys.push(checked(key, "LLAMA_API_KEY")?);
        }
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| KeyError::Read {
                path: path.to_owned(),
                source,
            })?;
            let before = keys.len();
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                keys.push(checked(line, &path.display().to_string())?);
            }
            if keys.len() == before {
                return Err(KeyError::EmptyFile(path.to_owned()));
            }
        }
        Ok(Self(keys))
    }

    /// Whether any key is wanted.
    pub fn required(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the request may pass. Takes the same time for every wrong key of one length.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(given) = bearer(headers) else {
            return false;
        };
        let equal = |key: &String| key.as_bytes().ct_eq(given);
        self.0
            .iter()
            .map(equal)
            .fold(Choice::from(0), |any, one| any | one)
            .into()
    }
}

fn checked(key: &str, origin: &str) -> Result<String, KeyError> {
    if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(key.to_owned())
    } else {
        Err(KeyError::NotAscii(origin.to_owned()))
    }
}

/// The token of `Authorization: Bearer …`; the scheme's case does not matter (RFC 9110, 11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn no_keys_admit_everybody() {
        assert!(Keys::default().admit(&HeaderMap::new()));
    }

    #[test]
    fn every_key_opens_and_nothing_else_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "second\n\n  third  \n").unwrap();
        let keys = Keys::load(Some("first".into()), Some(file.path())).unwrap();
        for key in ["first", "second", "third"] {
            assert!(keys.admit(&headers(&format!("Bearer {key}"))), "{key}");
            assert!(keys.admit(&headers(&format!("bearer {key}"))), "{key}");
        }
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer fir",
            "Bearer firsts",
            "Basic first",
            "first",
        ] {
            assert!(!keys.admit(&headers(value)), "{value}");
        }
        assert!(!keys.admit(&HeaderMap::new()));
    }

    #[test]
    fn empty_sources_are_errors_not_an_open_door() {
        let file = tempfile::NamedTempFile::new().unwrap();
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
    fn errors_do_not_show_the_key() {
        let error = Keys::load(Some("schlüssel".into()), None).err().unwrap();
        assert!(!error.to_string().contains("schl"));
    }
}
