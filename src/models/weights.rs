//! A checkpoint's tensors: found in one safetensors file or several, taken by name.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::mlx::{Array, Dtype};

use super::LoadProgress;
use super::error::LoadError;
use super::shard::{Shard, TensorInfo};

const INDEX: &str = "model.safetensors.index.json";

/// The tensors that were not taken yet. Opening reads the headers only.
pub struct Weights<'p> {
    dir: PathBuf,
    shards: Vec<Shard>,
    tensors: HashMap<String, (usize, TensorInfo)>,
    /// What floating-point tensors are converted to; `None` keeps the checkpoint's type.
    compute: Option<Dtype>,
    progress: LoadProgress,
    report: &'p mut dyn FnMut(LoadProgress),
}

impl<'p> Weights<'p> {
    /// Opens the safetensors of `dir`: those that the index names, else `model.safetensors`, else
    /// every `model*.safetensors`.
    pub fn open(
        dir: &Path,
        compute: Option<Dtype>,
        report: &'p mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        let mut weights = Self {
            dir: dir.to_owned(),
            shards: Vec::new(),
            tensors: HashMap::new(),
            compute,
            progress: LoadProgress { bytes: 0, total: 0 },
            report,
        };
        for (index, path) in find_files(dir)?.iter().enumerate() {
            let (shard, tensors) = Shard::open(path)?;
            weights.shards.push(shard);
            let located = tensors
                .into_iter()
                .map(|(name, info)| (name, (index, info)));
            weights.tensors.extend(located);
        }
        Ok(weights)
    }

    /// Whether a tensor is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor that is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors
            .get(name)
            .map(|(_, info)| info.shape.as_slice())
    }

    /// Drops the tensors whose names `unwanted` picks: what an architecture does not use.
    pub fn discard(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unwanted(name));
    }

    /// Bytes that the tensors take in memory once they are converted.
    pub fn memory_bytes(&self) -> u64 {
        self.tensors
            .values()
            .map(|(_, info)| self.bytes_of(info))
            .sum()
    }

    fn bytes_of(&self, info: &TensorInfo) -> u64 {
        let elements = info.shape.iter().product::<usize>() as u64;
        match (to_dtype(info.dtype), self.compute) {
            (Some(dtype), Some(compute)) if dtype.is_float() => elements * compute.size() as u64,
            _ => info.range.len() as u64,
        }
    }

    /// Fixes the total that progress is told against, after the last [`Self::discard`].
    pub fn start(&mut self) {
        self.progress.total = self.memory_bytes();
        (self.report)(self.progress);
    }

    /// Takes a tensor of floating-point numbers, in the type that the model computes in.
    pub fn take(&mut self, name: &str, shape: &[i32]) -> Result<Array, LoadError> {
        self.take_checked(name, shape, |dtype| {
            if dtype.is_float() {
                Ok(())
            } else {
                Err("float32, bfloat16 or float16 is expected")
            }
        })
    }

    /// Takes a tensor of packed integers.
    pub fn take_packed(&mut self, name: &str, shape: &[i32]) -> Result<Array, LoadError> {
        self.take_checked(name, shape, |dtype| {
            if dtype == Dtype::Uint32 {
                Ok(())
            } else {
                Err("packed integers (U32) are expected")
            }
        })
    }

    fn take_checked(
        &mut self,
        name: &str,
        shape: &[i32],
        check: impl Fn(Dtype) -> Result<(), &'static str>,
    ) -> Result<Array, LoadError> {
        let Some((shard, info)) = self.tensors.remove(name) else {
            return Err(LoadError::MissingTensor {
                name: name.to_owned(),
                dir: self.dir.clone(),
            });
        };
        let bytes = self.bytes_of(&info);
        let shard = &self.shards[shard];
        let mismatch = |expected| LoadError::DtypeMismatch {
            name: name.to_owned(),
            path: shard.path.clone(),
            found: format!("{:?}", info.dtype),
            expected,
        };
        let dtype = to_dtype(info.dtype).ok_or_else(|| mismatch("this format is not supported"))?;
        check(dtype).map_err(mismatch)?;
        if !same_shape(&info.shape, shape) {
            return Err(LoadError::ShapeMismatch {
                name: name.to_owned(),
                path: shard.path.clone(),
                expected: shape.iter().map(|&dim| i64::from(dim)).collect(),
                found: info.shape,
            });
        }
        let array = read(shard, &info, shape, dtype)?;
        let array = match self.compute {
            Some(compute) if dtype.is_float() && dtype != compute => {
                let converted = array.astype(compute)?;
                // Now, so that only one tensor at a time is in memory twice.
                Array::eval_all(&[&converted])?;
                converted
            }
            _ => array,
        };
        self.progress.bytes += bytes;
        (self.report)(self.progress);
        Ok(array)
    }

    /// Fails where tensors are left that nobody took.
    pub fn finish(self, architecture: &str) -> Result<(), LoadError> {
        match self.tensors.keys().min() {
            None => Ok(()),
            Some(first) => Err(LoadError::UnusedTensors {
                count: self.tensors.len(),
                first: first.clone(),
                architecture: architecture.to_owned(),
            }),
        }
    }
}

fn read(shard: &Shard, info: &TensorInfo, shape: &[i32], dtype: Dtype) -> Result<Array, LoadError> {
    let bytes = &shard.map[info.range.clone()];
    // A header of odd length leaves the tensors unaligned.
    if bytes.as_ptr().addr().is_multiple_of(dtype.size()) {
        Ok(Array::from_mmap(
            &shard.map,
            info.range.clone(),
            shape,
            dtype,
        )?)
    } else {
        Ok(Array::from_bytes(bytes, shape, dtype)?)
    }
}

fn same_shape(found: &[usize], expected: &[i32]) -> bool {
    found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(&a, &b)| usize::try_from(b) == Ok(a))
}

fn to_dtype(dtype: safetensors::Dtype) -> Option<Dtype> {
    Some(match dtype {
        safetensors::Dtype::F32 => Dtype::Float32,
        safetensors::Dtype::BF16 => Dtype::Bfloat16,
        safetensors::Dtype::F16 => Dtype::Float16,
        safetensors::Dtype::U8 => Dtype::Uint8,
        safetensors::Dtype::U32 => Dtype::Uint32,
        safetensors::Dtype::I32 => Dtype::Int32,
        safetensors::Dtype::I64 => Dtype::Int64,
        safetensors::Dtype::BOOL => Dtype::Bool,
        safetensors::Dtype::U16 => Dtype::Uint16,
        _ => return None,
    })
}

fn find_files(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let index = dir.join(INDEX);
    if index.is_file() {
        return indexed_files(dir, &index);
    }
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let entries = dir.read_dir().map_err(|source| LoadError::Io {
        path: dir.to_owned(),
        source,
    })?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("model") && name.ends_with(".safetensors")
        })
        .map(|entry| entry.path())
        .collect();
    if files.is_empty() {
        return Err(LoadError::NoWeights(dir.to_owned()));
    }
    files.sort();
    Ok(files)
}

/// The files that the index names, all of them there.
fn indexed_files(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, LoadError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let json = |message: String| LoadError::Json {
        path: index.to_owned(),
        message,
    };
    let text = std::fs::read(index).map_err(|source| LoadError::Io {
        path: index.to_owned(),
        source,
    })?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| json(error.to_string()))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    if names.is_empty() {
        return Err(json("weight_map is empty".to_owned()));
    }
    names
        .into_iter()
        .map(|name| {
            if Path::new(name)
                .file_name()
                .is_none_or(|file| file != name.as_str())
            {
                return Err(json(format!(
                    "{name:?} is not the name of a file in this folder"
                )));
            }
            let path = dir.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(LoadError::MissingShard(path))
            }
        })
        .collect()
}
