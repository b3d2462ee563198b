//! A local inference server for language models on Apple's MLX.
//!
//! Arrows point one way: `cli → server → engine → models → mlx`. `text` and `hub` are leaves.
//! One thread owns every MLX array; see [`engine`].

pub mod cli;
pub mod engine;
mod fields;
pub mod hub;
pub mod mlx;
pub mod models;
mod python_json;
pub mod server;
pub mod text;
