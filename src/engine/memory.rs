//! How much memory states may take, and giving back what is free.

use crate::mlx;

/// Gives MLX's free buffers back to the system.
pub(super) fn return_free_buffers() {
    if let Err(error) = mlx::clear_cache() {
        tracing::warn!(%error, "MLX kept its free buffers");
    }
}
