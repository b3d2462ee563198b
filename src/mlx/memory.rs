//! MLX's memory, in bytes.

use super::bridge::ffi;
use super::error::{MlxError, OrMlxError};

/// Bytes that arrays hold now. Memory-mapped weights are not among them.
pub fn active_memory() -> u64 {
    ffi::active_memory()
}

/// Gives the freed buffers back to the system.
#[track_caller]
pub fn clear_cache() -> Result<(), MlxError> {
    ffi::clear_cache().or_mlx()
}
