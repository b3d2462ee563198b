//! Giving memory back.

use crate::mlx;

/// Gives MLX's free buffers back to the system, and what the allocator below it kept of them.
pub(super) fn return_free_buffers() {
    if let Err(error) = mlx::clear_cache() {
        tracing::warn!(%error, "MLX kept its free buffers");
    }
    trim();
}

/// glibc keeps what lies below the last block in use, and a server's states come and go in all sizes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: takes a number, and touches only memory that nobody uses.
    let _whether_any = unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
