//! From a folder to a model.

use std::path::Path;

use crate::mlx::{Device, Dtype, check_version};

use super::Model;
use super::builder::Builder;
use super::config::ConfigFile;
use super::error::LoadError;
use super::quantization::Quantization;
use super::registry::{self, Architecture};
use super::weights::Weights;

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Where the model is to run; it becomes the thread's default.
    pub device: Device,
    /// Bytes that the weights may take; `None` does not check.
    pub available_memory: Option<u64>,
}

/// How far loading has come, in bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Loaded so far.
    pub bytes: u64,
    /// To be loaded.
    pub total: u64,
}

/// Loads the model in `dir` on the calling thread, the one that will compute with it.
///
/// On the CPU backend everything is computed in float32, whatever the checkpoint holds: half
/// precision is slower there by a factor of ten and drifts. On a GPU the checkpoint's type stays.
pub fn load(
    dir: &Path,
    options: &LoadOptions,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Box<dyn Model>, LoadError> {
    check_version()?;
    options.device.make_default()?;
    let config = ConfigFile::read(dir)?;
    let (architecture, load_as) = registry::find(config.model_type()?)?;
    let quantization = Quantization::read(&config)?;
    let compute = match options.device {
        Device::Cpu => Some(Dtype::Float32),
        Device::Gpu => None,
    };
    let checkpoint = Checkpoint {
        architecture,
        config: &config,
        quantization: quantization.as_ref(),
        available_memory: options.available_memory,
    };
    load_as(&checkpoint, Weights::open(dir, compute, progress)?)
}

/// A model folder that was read, but for its tensors.
pub(super) struct Checkpoint<'a> {
    architecture: &'a str,
    config: &'a ConfigFile,
    quantization: Option<&'a Quantization>,
    available_memory: Option<u64>,
}

/// Loads a checkpoint of a known architecture.
pub(super) type LoadFn = fn(&Checkpoint<'_>, Weights<'_>) -> Result<Box<dyn Model>, LoadError>;

/// Loads a checkpoint as an `A`.
pub(super) fn load_as<A: Architecture>(
    checkpoint: &Checkpoint<'_>,
    mut weights: Weights<'_>,
) -> Result<Box<dyn Model>, LoadError> {
    let config: A::Config = checkpoint.config.parse()?;
    A::sanitize(&config, &mut weights)?;
    let needed = weights.memory_bytes();
    if let Some(available) = checkpoint.available_memory
        && needed > available
    {
        return Err(LoadError::TooLarge { needed, available });
    }
    weights.start();
    let mut builder = Builder::new(
        checkpoint.architecture,
        &mut weights,
        checkpoint.quantization,
    );
    let model = A::build(&config, &mut builder)?;
    weights.finish(checkpoint.architecture)?;
    Ok(Box::new(model))
}
