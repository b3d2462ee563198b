//! Anthropic's Messages API, after the types of its SDK: what requests say, what messages, their
//! events and errors look like. The routes are in `routes/messages`.

pub mod assembly;
pub mod error;
pub mod event;
pub mod input;
pub mod message;
pub mod refused;
pub mod request;
pub mod shapes;
pub mod tools;

/// A random id, for instance `msg_…`.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}
