//! OpenAI's Responses API: what requests say, what responses and their events look like, and the
//! responses that are kept. The routes are in `routes/responses`.

pub mod assembly;
pub mod event;
pub mod input;
pub mod item;
pub mod refused;
pub mod request;
pub mod response;
pub mod shapes;
pub mod store;
pub mod text;
pub mod tools;
pub mod truncation;

/// A random id, for instance `resp_…`; 122 bits of it cannot be guessed.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}
