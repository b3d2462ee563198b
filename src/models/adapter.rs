//! Adapters that a checkpoint was fine-tuned with, in mlx-lm's format: low-rank updates of linear layers
//! (LoRA: Hu et al., 2021; DoRA: Liu et al., 2024), or whole tensors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::mlx::{Array, Dtype};

use super::error::LoadError;
use super::shard::Shard;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapters.safetensors";

/// What `adapter_config.json` says that is needed here: the tensors tell which layers are meant.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    fine_tune_type: Kind,
    lora_parameters: Option<Parameters>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Lora,
    Dora,
    Full,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    scale: Option<f32>,
}

/// An adapter whose tensors were not all taken yet.
pub struct Adapter {
    dir: PathBuf,
    scale: f32,
    /// In float32, by name.
    tensors: HashMap<String, Array>,
}

/// The update of one layer: `y + scale · (x A) B`, and then, where there is a magnitude, each output
/// scaled so that the updated matrix' row has that norm.
#[derive(Debug)]
pub struct LowRank {
    /// `[inputs, rank]`.
    pub a: Array,
    /// `[rank, outputs]`, with the scale in it.
    pub b: Array,
    /// `[outputs]`.
    pub magnitude: Option<Array>,
}

/// What an adapter's folder holds.
pub enum Tuned {
    /// Updates of layers.
    Layers(Adapter),
    /// A file with tensors that take the place of the checkpoint's.
    Tensors(PathBuf),
}

/// Reads the adapter in `dir`.
pub fn open(dir: &Path) -> Result<Tuned, LoadError> {
    let broken = |message: String| LoadError::Adapter {
        path: dir.to_owned(),
        message,
    };
    let io = |path: &Path, source| LoadError::Io {
        path: path.to_owned(),
        source,
    };
    let path = dir.join(CONFIG);
    let text = std::fs::read(&path).map_err(|source| io(&path, source))?;
    let config: Config = serde_json::from_slice(&text).map_err(|error| LoadError::Json {
        path: path.clone(),
        message: error.to_string(),
    })?;
    let path = dir.join(WEIGHTS);
    if config.fine_tune_type == Kind::Full {
        return Ok(Tuned::Tensors(path));
    }
    // Others write `alpha`, which means something else.
    let scale = config
        .lora_parameters
        .and_then(|parameters| parameters.scale)
        .ok_or_else(|| {
            broken(format!(
                "{CONFIG} has no lora_parameters.scale: it is not mlx-lm's"
            ))
        })?;
    let (shard, infos) = Shard::open(&path)?;
    let mut tensors = HashMap::new();
    for (name, info) in infos {
        let dtype = match info.dtype {
            safetensors::Dtype::F32 => Dtype::Float32,
            safetensors::Dtype::BF16 => Dtype::Bfloat16,
            safetensors::Dtype::F16 => Dtype::Float16,
            other => return Err(broken(format!("tensor {name} has type {other:?}"))),
        };
        let shape: Vec<i32> = info.shape.iter().map(|&dim| dim as i32).collect();
        let array = Array::from_bytes(&shard.map[info.range], &shape, dtype)?;
        tensors.insert(name, array.astype(Dtype::Float32)?);
    }
    Ok(Tuned::Layers(Adapter {
        dir: dir.to_owned(),
        scale,
        tensors,
    }))
}

impl Adapter {
    /// Gives tensors the name that `name` has for them, where it has one.
    pub fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        let all = std::mem::take(&mut self.tensors);
        let renamed = all
            .into_iter()
            .map(|(old, tensor)| (name(&old).unwrap_or(old), tensor));
        self.tensors = renamed.collect();
    }

    /// The update of the layer at `path`, `[inputs]` to `[outputs]`, if it has one.
    pub fn take(
        &mut self,
        path: &str,
        inputs: i32,
        outputs: i32,
    ) -> Result<Option<LowRank>, LoadError> {
        let name = |part: &str| format!("{path}.{part}");
        let Some(a) = self.tensors.remove(&name("lora_a")) else {
            return Ok(None);
        };
        let rank = a.dim(1);
        self.check(&name("lora_a"), &a, &[inputs, rank])?;
        let Some(b) = self.tensors.remove(&name("lora_b")) else {
            return Err(self.broken(format!("tensor {} is missing", name("lora_b"))));
        };
        self.check(&name("lora_b"), &b, &[rank, outputs])?;
        let magnitude = self.tensors.remove(&name("m"));
        if let Some(magnitude) = &magnitude {
            self.check(&name("m"), magnitude, &[outputs])?;
        }
        Ok(Some(LowRank {
            a,
            b: b.scale(self.scale)?,
            magnitude,
        }))
    }

    fn check(&self, name: &str, array: &Array, shape: &[i32]) -> Result<(), LoadError> {
        if array.shape() == shape && array.size() > 0 {
            return Ok(());
        }
        Err(self.broken(format!(
            "tensor {name} has shape {:?}, but the model asks for {shape:?}",
            array.shape()
        )))
    }

    /// Fails where tensors are left that no layer took.
    pub fn finish(self) -> Result<(), LoadError> {
        match self.tensors.keys().min() {
            None => Ok(()),
            Some(name) => Err(self.broken(format!(
                "tensor {name} belongs to no linear layer of this model (experts and embeddings cannot \
                 be adapted yet: fuse the adapter with mlx_lm.fuse)"
            ))),
        }
    }

    fn broken(&self, message: String) -> LoadError {
        LoadError::Adapter {
            path: self.dir.clone(),
            message,
        }
    }
}

impl LowRank {
    /// Outputs `start..stop`.
    pub fn outputs(&self, start: i32, stop: i32) -> Result<Self, LoadError> {
        Ok(Self {
            a: self.a.clone(),
            b: self.b.slice(&[0, start], &[self.b.dim(0), stop])?,
            magnitude: match &self.magnitude {
                Some(magnitude) => Some(magnitude.slice(&[start], &[stop])?),
                None => None,
            },
        })
    }
}
