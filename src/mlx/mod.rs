//! The only place that knows C++: a small bridge to `libmlx` and a safe [`Array`] over it.
//!
//! Every exception of MLX becomes an [`MlxError`], also one that is thrown on a stream's own
//! thread while a graph runs: MLX keeps it and throws it again where the result is waited for.

mod array;
mod bridge;
mod cores;
mod device;
mod dtype;
mod error;
pub mod fast;
pub mod kernels;
mod matrix;
mod memory;
mod ops;
pub mod recurrent;

pub use array::Array;
pub use device::{Device, check_version, version};
pub use dtype::Dtype;
pub use error::MlxError;
pub use matrix::{Matrix, gated_product};
pub use memory::{Memory, clear_cache};
pub use ops::{Activation, Affine};
