//! MLX's memory, in bytes.

use super::bridge::ffi;
use super::error::{MlxError, OrMlxError};

/// Bytes that arrays hold now. Memory-mapped weights are not among them.
pub fn active_memory() -> u64 {
    ffi::active_memory()
}

/// Bytes of freed buffers that MLX keeps for the next allocation.
pub fn cache_memory() -> u64 {
    ffi::cache_memory()
}

/// Gives the freed buffers back to the system.
#[track_caller]
pub fn clear_cache() -> Result<(), MlxError> {
    ffi::clear_cache().or_mlx()
}
