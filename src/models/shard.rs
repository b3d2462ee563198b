//! One safetensors file, memory-mapped.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::{SafeTensorError, SafeTensors};

use super::error::LoadError;
use super::pages;

/// Where a tensor lies.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// The file's name for the element type, for instance `BF16`.
    pub dtype: safetensors::Dtype,
    /// The dimensions.
    pub shape: Vec<usize>,
    /// Bytes of the file.
    pub range: Range<usize>,
}

/// A weights file.
pub struct Shard {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub map: Arc<Mmap>,
}

impl Shard {
    /// Maps the file, checks its header against its size, and lists its tensors.
    pub fn open(path: &Path) -> Result<(Self, Vec<(String, TensorInfo)>), LoadError> {
        let io = |source| LoadError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        // SAFETY: weights are read-only data. Whoever rewrites them in place while the server runs
        // changes what it computes, as with every memory-mapped model.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        pages::prefer_large(&map);
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| damage(path, &map, &error))?;
        let data = 8 + header;
        let tensors = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (start, end) = info.data_offsets;
                let info = TensorInfo {
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    range: data + start..data + end,
                };
                (name, info)
            })
            .collect();
        let shard = Self {
            path: path.to_owned(),
            map: Arc::new(map),
        };
        Ok((shard, tensors))
    }
}

/// What is wrong with a file that `safetensors` refuses.
fn damage(path: &Path, bytes: &[u8], error: &SafeTensorError) -> LoadError {
    if let Some((tensor, needed)) = first_cut_off(bytes) {
        return LoadError::Truncated {
            path: path.to_owned(),
            tensor,
            needed,
            size: bytes.len() as u64,
        };
    }
    LoadError::Corrupt {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

/// The first tensor that ends behind the file's last byte, and where it ends.
fn first_cut_off(bytes: &[u8]) -> Option<(String, u64)> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let header = bytes.get(8..8usize.checked_add(usize::try_from(length).ok()?)?)?;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    header
        .into_iter()
        .filter_map(|(name, info)| {
            let end = info.get("data_offsets")?.get(1)?.as_u64()?;
            Some((name, end.checked_add(8)?.checked_add(length)?))
        })
        .filter(|(_, end)| *end > bytes.len() as u64)
        .min_by_key(|(_, end)| *end)
}
