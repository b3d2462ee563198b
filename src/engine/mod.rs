//! The engine: one thread that owns MLX and serves every request by turns.

mod request;

pub use request::*;
