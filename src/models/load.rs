//! From a folder to a model.

use std::path::{Path, PathBuf};

use crate::mlx::{Device, Dtype, check_version};

use super::Model;
use super::adapter::{self, Adapter, Tuned};
use super::builder::Builder;
use super::config::{ConfigFile, FromConfig};
use super::error::LoadError;
use super::nesting;
use super::quantization::Quantization;
use super::registry::{self, Architecture};
use super::text_config;
use super::weights::Weights;

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where the model is to run; it becomes the thread's default.
    pub device: Device,
    /// Bytes that the weights may take; `None` does not check.
    pub available_memory: Option<u64>,
    /// The folder of an adapter in mlx-lm's format.
    pub adapter: Option<PathBuf>,
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
    let config = &text_config::of_language_model(ConfigFile::read(dir)?)?;
    let (architecture, load_as) = registry::find(config.model_type()?)?;
    let quantization = Quantization::read(config)?;
    let compute = match options.device {
        Device::Cpu => Some(Dtype::Float32),
        Device::Gpu => None,
    };
    let mut weights = Weights::open(dir, compute, progress)?;
    let mut adapter = match &options.adapter {
        Some(adapter) => match adapter::open(adapter)? {
            Tuned::Layers(layers) => Some(layers),
            Tuned::Tensors(file) => {
                weights.replace(&file)?;
                None
            }
        },
        None => None,
    };
    nesting::language_model_only(&mut weights);
    if let Some(adapter) = &mut adapter {
        adapter.rename(nesting::inner_name);
    }
    let checkpoint = Checkpoint {
        architecture,
        config,
        quantization: quantization.as_ref(),
        available_memory: options.available_memory,
    };
    load_as(&checkpoint, weights, adapter)
}

/// A model folder that was read, but for its tensors.
pub(super) struct Checkpoint<'a> {
    architecture: &'a str,
    config: &'a ConfigFile,
    quantization: Option<&'a Quantization>,
    available_memory: Option<u64>,
}

/// Loads a checkpoint of a known architecture.
pub(super) type LoadFn =
    fn(&Checkpoint<'_>, Weights<'_>, Option<Adapter>) -> Result<Box<dyn Model>, LoadError>;

/// Loads a checkpoint as an `A`.
pub(super) fn load_as<A: Architecture>(
    checkpoint: &Checkpoint<'_>,
    mut weights: Weights<'_>,
    adapter: Option<Adapter>,
) -> Result<Box<dyn Model>, LoadError> {
    let config = A::Config::from_config(checkpoint.config)?;
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
    )
    .with_adapter(adapter);
    let model = A::build(&config, &mut builder)?;
    builder.finish()?;
    weights.finish(checkpoint.architecture)?;
    Ok(Box::new(model))
}

#[cfg(test)]
mod tests {
    use super::super::llama::Llama;
    use super::super::testing::{folder, llama_config, llama_tensors, load_cpu, to_bf16};
    use super::*;
    use crate::mlx::Array;
    use crate::models::{Logits, Row, StateSize, token_ids};

    /// One step's logits, and the type of the state behind them.
    fn step(model: &dyn Model) -> (Array, Dtype) {
        let mut state = model.new_state();
        let tokens = [3, 1, 4, 1, 5];
        let row = Row {
            len: tokens.len(),
            state: &mut state,
            logits: Logits::Last,
        };
        let tokens = token_ids(&tokens, model.info().vocab_size).unwrap();
        let logits = model.forward(&tokens, &mut [row]).unwrap().unwrap();
        let dtype = state.arrays()[0].dtype().unwrap();
        (logits, dtype)
    }

    /// What a GPU does, tried on the CPU.
    #[test]
    fn without_a_conversion_the_checkpoints_type_goes_through_to_the_logits() {
        let tensors: Vec<_> = llama_tensors().into_iter().map(to_bf16).collect();
        let dir = folder(&llama_config(), &tensors);
        let config = ConfigFile::read(dir.path()).unwrap();
        let checkpoint = Checkpoint {
            architecture: "llama",
            config: &config,
            quantization: None,
            available_memory: None,
        };
        let mut ignore = |_| {};
        let weights = Weights::open(dir.path(), None, &mut ignore).unwrap();
        let model = load_as::<Llama>(&checkpoint, weights, None).unwrap();
        let info = model.info();
        assert_eq!(info.dtype, "bfloat16");
        assert_eq!(info.weight_bytes, 2 * info.parameters);
        assert_eq!(info.state, StateSize::growing(2 * 2 * 2 * 4 * 2));

        let (logits, state) = step(&*model);
        assert_eq!(state, Dtype::Bfloat16);
        assert_eq!(logits.dtype().unwrap(), Dtype::Float32);
        let (exact, state) = step(&*load_cpu(dir.path()).unwrap());
        assert_eq!(state, Dtype::Float32);
        let (half, exact) = (logits.to_vec_f32().unwrap(), exact.to_vec_f32().unwrap());
        let far = half
            .iter()
            .zip(&exact)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(far > 0.0 && far < 0.05, "they differ by {far}");
    }
}
