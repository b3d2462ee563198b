//! The shapes of OpenAI's API: what requests say, and what answers look like. No I/O.

pub mod chat;
pub mod completions;
pub mod constraint;
pub mod ending;
pub mod logprobs;
pub mod message;
pub mod messages;
pub mod metadata;
pub mod ranges;
pub mod reasoning;
pub mod refused;
pub mod response_format;
pub mod sampling;
pub mod shapes;
pub mod tools;
pub mod usage;

/// A random id, for instance `chatcmpl-…`.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}

/// Names the build, where OpenAI names the backend's configuration.
pub const FINGERPRINT: &str = concat!("mlxcel-", env!("CARGO_PKG_VERSION"));
