//! The only place that knows C++: a small bridge to `libmlx` and a safe [`Array`] over it.
//!
//! Every exception of MLX becomes an [`MlxError`], also one that is thrown on a stream's own
//! thread while a graph runs: MLX keeps it and throws it again where the result is waited for.

mod array;
#[allow(
    clippy::too_many_arguments,
    reason = "C++ takes them one by one, and `cxx` has no other way"
)]
mod bridge;
mod cores;
mod device;
mod dtype;
mod error;
mod experts;
pub mod fast;
mod heads;
pub mod kernels;
mod matrix;
mod memory;
mod ops;
mod packing;
pub mod recurrent;

pub use array::Array;
pub use device::{Device, check_version, version};
pub use dtype::Dtype;
pub use error::MlxError;
pub use experts::{Experts, Gate, Routing, Scoring, gated_experts, route};
pub use heads::{HeadNorms, Projections};
pub use matrix::{Matrix, gated_mlp, gated_product};
pub use memory::{Memory, clear_cache};
pub use ops::Activation;
pub use packing::{Affine, Mode, Packed, Packing};
