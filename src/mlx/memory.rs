//! MLX's memory, in bytes.

use super::bridge::ffi;
use super::error::{MlxError, OrMlxError};

/// What MLX has of the memory, in bytes. Memory-mapped weights are not among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Held by arrays now.
    pub active: u64,
    /// The most that arrays have held.
    pub peak: u64,
    /// Freed, and kept for the next arrays.
    pub cache: u64,
}

impl Memory {
    /// What MLX has now; any thread may ask.
    pub fn now() -> Self {
        Self {
            active: ffi::active_memory(),
            peak: ffi::peak_memory(),
            cache: ffi::cache_memory(),
        }
    }
}

/// Gives the freed buffers back to the system.
#[track_caller]
pub fn clear_cache() -> Result<(), MlxError> {
    ffi::clear_cache().or_mlx()
}
