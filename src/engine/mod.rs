//! The engine: one thread that owns MLX and serves every request by turns.

pub mod grammar;
mod request;

pub use request::*;
