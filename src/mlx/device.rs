//! Where the arithmetic runs, and whether the right `libmlx` was loaded.

use super::bridge::ffi;
use super::error::{MlxError, OrMlxError};
use super::kernels;

/// What freed buffers may keep of a CPU's memory before it goes back to the system.
const CPU_CACHE_BYTES: u64 = 64 << 20;

/// A kind of device. A machine's first one of that kind is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// Metal on a Mac, CUDA elsewhere.
    Gpu,
}

impl Device {
    /// The GPU where MLX finds one, else the CPU.
    pub fn best() -> Self {
        if ffi::gpu_available() {
            Self::Gpu
        } else {
            Self::Cpu
        }
    }

    /// Makes this the device of every operation that follows, and bounds MLX's buffer cache.
    ///
    /// Called once, on the engine thread, before any array is made.
    #[track_caller]
    pub fn make_default(self) -> Result<(), MlxError> {
        if self == Self::Gpu && !ffi::gpu_available() {
            return Err(MlxError::new("this machine has no GPU that MLX can use"));
        }
        ffi::use_gpu(self == Self::Gpu).or_mlx()?;
        if self == Self::Cpu {
            ffi::set_cache_limit(CPU_CACHE_BYTES).or_mlx()?;
            kernels::start()?;
        }
        Ok(())
    }

    /// Bytes of memory that a model may take on a GPU.
    #[track_caller]
    pub fn gpu_memory() -> Result<u64, MlxError> {
        ffi::gpu_memory().or_mlx()
    }
}

/// The version of the `libmlx` that is loaded.
pub fn version() -> String {
    ffi::library_version()
}

/// Checks that the `libmlx` that was loaded is the one whose headers the bridge was built with:
/// the C++ ABI changes between versions.
#[track_caller]
pub fn check_version() -> Result<(), MlxError> {
    compare_versions(&ffi::header_version(), &version())
}

#[track_caller]
fn compare_versions(built: &str, loaded: &str) -> Result<(), MlxError> {
    if built == loaded {
        return Ok(());
    }
    Err(MlxError::new(format!(
        "mlxcel was built for mlx {built}, but the libmlx it found is {loaded}; \
         install mlx=={built}, or rebuild mlxcel"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_library_is_the_one_built_against() {
        check_version().unwrap();
    }

    #[test]
    fn a_version_that_differs_is_an_error_naming_both() {
        let error = compare_versions("0.32.4", "0.33.0")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("0.32.4") && error.contains("0.33.0"),
            "{error}"
        );
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error() {
        if Device::best() == Device::Cpu {
            let error = Device::Gpu.make_default().unwrap_err().to_string();
            assert!(error.contains("no GPU"), "{error}");
        }
    }
}
