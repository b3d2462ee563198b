//! On which terms a request is served: how long it may take, and with whom it shares the prefix cache.

use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::auth::KeyId;
use super::body::Body;
use super::error::ApiError;
use super::reader::Telling;
use super::state::App;
use crate::engine::CacheSalt;

/// Longest `cache_salt`, in bytes.
const SALT_LIMIT: usize = 1024;

/// The terms for everybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy {
    /// How long a request may wait and run.
    pub request_timeout: Option<Duration>,
    /// Whether only requests with the same API key share the prefix cache: by the time a prompt takes,
    /// others could tell whether it was seen before.
    pub cache_per_key: bool,
    /// Whether a request that names another model is refused.
    pub strict_model: bool,
    /// Where a chat's thoughts are told, if its request does not say.
    pub telling: Telling,
}

/// The terms of one request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// When it is given up.
    pub deadline: Option<Instant>,
    /// Who shares the prefix cache with it: those with the same salt.
    pub cache_salt: Option<CacheSalt>,
}

impl FromRequestParts<App> for Terms {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let policy = app
            .model()
            .map_or_else(Policy::default, |model| model.policy);
        let key = KeyId::from_request_parts(parts, app).await?;
        let apart = policy.cache_per_key && key != KeyId::NOBODY;
        Ok(Self {
            deadline: policy.request_timeout.map(|limit| Instant::now() + limit),
            cache_salt: apart.then(|| salt(None, key.bytes())),
        })
    }
}

impl Terms {
    /// With the body's own `cache_salt` (vLLM's name): requests that give another one, or none, share
    /// nothing with it.
    pub fn read(mut self, body: &mut Body) -> Result<Self, ApiError> {
        let text = match body.take("cache_salt") {
            None | Some(Value::Null) => return Ok(self),
            Some(Value::String(text)) => text,
            Some(_) => {
                let message = "`cache_salt` must be a string";
                return Err(ApiError::wrong_type("cache_salt", message));
            }
        };
        if text.is_empty() || text.len() > SALT_LIMIT {
            let message = format!("`cache_salt` must have 1 to {SALT_LIMIT} bytes");
            return Err(ApiError::invalid("cache_salt", message));
        }
        self.cache_salt = Some(salt(self.cache_salt, text.as_bytes()));
        Ok(self)
    }
}

/// A digest, so that no key lies in the engine.
fn salt(within: Option<CacheSalt>, text: &[u8]) -> CacheSalt {
    let mut digest = Sha256::new();
    // A salt within a key's is never the salt of a key.
    digest.update(within.unwrap_or_default());
    digest.update(text);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(terms: Terms, body: &str) -> Result<Option<CacheSalt>, ApiError> {
        let mut body = Body::parse(body.as_bytes()).unwrap();
        terms.read(&mut body).map(|terms| terms.cache_salt)
    }

    #[test]
    fn salts_tell_keys_and_texts_apart() {
        let key = |key: &str| Terms {
            cache_salt: Some(salt(None, key.as_bytes())),
            ..Terms::default()
        };
        let none = Terms::default();
        let salted = r#"{"cache_salt": "a"}"#;
        assert_eq!(read(none, "{}").unwrap(), None);
        assert_eq!(read(none, r#"{"cache_salt": null}"#).unwrap(), None);
        let all = [
            read(none, salted).unwrap().unwrap(),
            read(none, r#"{"cache_salt": "b"}"#).unwrap().unwrap(),
            read(key("one"), "{}").unwrap().unwrap(),
            read(key("two"), "{}").unwrap().unwrap(),
            read(key("one"), salted).unwrap().unwrap(),
            read(key("two"), salted).unwrap().unwrap(),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b), "{i}");
        }
        assert_eq!(read(key("one"), salted).unwrap(), Some(all[4]));
    }

    #[test]
    fn what_is_no_salt_is_refused() {
        for body in [r#"{"cache_salt": ""}"#, r#"{"cache_salt": 3}"#] {
            let error = read(Terms::default(), body).unwrap_err();
            assert_eq!(error.param(), Some("cache_salt"), "{body}");
        }
    }
}
