//! A checkpoint's tensors: found in one safetensors file or several, taken by name.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::mlx::{Array, Dtype, MlxError};

use super::LoadProgress;
use super::error::LoadError;
use super::pages;
use super::shard::{Shard, TensorInfo};
use super::weight_files;

/// The tensors that were not taken yet. Opening reads the headers only.
pub struct Weights<'p> {
    dir: PathBuf,
    shards: Vec<Shard>,
    tensors: HashMap<String, Tensor>,
    /// By the name that an architecture gave it: how the checkpoint calls a tensor.
    renamed: HashMap<String, String>,
    /// Tensors that the checkpoint has less one.
    less_one: HashSet<String>,
    /// What was taken as it lies in the files, and is to be brought in at last.
    in_place: Vec<Part>,
    /// What vectors of floating-point numbers are converted to; `None` keeps the checkpoint's type.
    compute: Option<Dtype>,
    progress: LoadProgress,
    report: &'p mut dyn FnMut(LoadProgress),
}

/// A tensor of the files, taken out of the table to make others of it.
#[derive(Clone)]
pub struct Part {
    shard: usize,
    info: TensorInfo,
}

/// Makes one tensor of the parts, which are as they are in the files.
type Make = Box<dyn FnOnce(&[Array]) -> Result<Array, MlxError>>;

/// An entry of the table.
struct Tensor {
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    /// One, where the tensor is in the files as it is.
    parts: Vec<Part>,
    make: Option<Make>,
}

/// What a tensor's elements are.
#[derive(Clone, Copy)]
enum Kind {
    Floats,
    Packed,
    Bytes,
}

/// A tensor that was taken out of the table and has the right shape and type.
struct Found {
    tensor: Tensor,
    dtype: Dtype,
    /// Bytes in memory.
    bytes: u64,
    /// Whether its pages may come last: it stays where it lies in the file, and the CPU, which does not look at it
    /// before, computes with it there.
    in_place: bool,
}

impl Part {
    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    /// The file's name for the element type.
    pub fn dtype(&self) -> safetensors::Dtype {
        self.info.dtype
    }

    /// Where it lies.
    fn pages<'s>(&self, shards: &'s [Shard]) -> (&'s Mmap, Range<usize>) {
        (&shards[self.shard].map, self.info.range.clone())
    }

    /// Whether it can be read where it lies: a header of odd length leaves all behind it unaligned.
    fn is_aligned(&self, dtype: Dtype) -> bool {
        self.info.range.start.is_multiple_of(dtype.size())
    }
}

impl<'p> Weights<'p> {
    /// Opens the safetensors of `dir`.
    pub fn open(
        dir: &Path,
        compute: Option<Dtype>,
        report: &'p mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        let mut weights = Self {
            dir: dir.to_owned(),
            shards: Vec::new(),
            tensors: HashMap::new(),
            renamed: HashMap::new(),
            less_one: HashSet::new(),
            in_place: Vec::new(),
            compute,
            progress: LoadProgress { bytes: 0, total: 0 },
            report,
        };
        for path in weight_files::find(dir)? {
            let tensors = weights.read_header(&path)?;
            weights.tensors.extend(tensors);
        }
        Ok(weights)
    }

    /// The tensors of a file, which becomes one of the shards.
    fn read_header(&mut self, path: &Path) -> Result<Vec<(String, Tensor)>, LoadError> {
        let (shard, tensors) = Shard::open(path)?;
        let index = self.shards.len();
        self.shards.push(shard);
        let located = tensors.into_iter().map(|(name, info)| {
            let tensor = Tensor {
                dtype: info.dtype,
                shape: info.shape.clone(),
                parts: vec![Part { shard: index, info }],
                make: None,
            };
            (name, tensor)
        });
        Ok(located.collect())
    }

    /// Puts the tensors of another file into the places of those that have their names.
    pub fn replace(&mut self, path: &Path) -> Result<(), LoadError> {
        for (name, tensor) in self.read_header(path)? {
            let Some(old) = self.tensors.get_mut(&name) else {
                return Err(LoadError::Adapter {
                    path: path.to_owned(),
                    message: format!("the model has no tensor {name}"),
                });
            };
            *old = tensor;
        }
        Ok(())
    }

    /// Whether a tensor is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor that is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The file's name for the element type of a tensor that is there.
    pub fn dtype(&self, name: &str) -> Option<safetensors::Dtype> {
        self.tensors.get(name).map(|tensor| tensor.dtype)
    }

    /// Takes a tensor of the files out of the table, for [`Self::make`].
    pub fn part(&mut self, name: &str) -> Result<Part, LoadError> {
        let tensor = self.tensors.remove(name);
        tensor
            .filter(|tensor| tensor.make.is_none())
            .and_then(|tensor| tensor.parts.into_iter().next())
            .ok_or_else(|| LoadError::MissingTensor {
                name: name.to_owned(),
                dir: self.dir.clone(),
            })
    }

    /// Puts a tensor into the table that is made of `parts` when it is taken: what mlx-lm's `sanitize`
    /// does to all tensors at once. One at a time, so that little is in memory twice.
    pub fn make(
        &mut self,
        name: String,
        dtype: safetensors::Dtype,
        shape: Vec<usize>,
        parts: Vec<Part>,
        make: impl FnOnce(&[Array]) -> Result<Array, MlxError> + 'static,
    ) {
        let tensor = Tensor {
            dtype,
            shape,
            parts,
            make: Some(Box::new(make)),
        };
        self.tensors.insert(name, tensor);
    }

    /// Drops the tensors whose names `unwanted` picks: what an architecture does not use.
    pub fn discard(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unwanted(name));
    }

    /// Gives tensors the names that an architecture builds with, where `name` has another one for them.
    pub fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        let renamed: Vec<(String, String)> = self
            .tensors
            .keys()
            .filter_map(|old| Some((old.clone(), name(old)?)))
            .collect();
        for (old, new) in renamed {
            if let Some(tensor) = self.tensors.remove(&old) {
                self.tensors.insert(new.clone(), tensor);
                self.renamed.insert(new, old);
            }
        }
    }

    /// The checkpoint's own name of the tensor `name`.
    pub fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.renamed.get(name).map_or(name, String::as_str)
    }

    /// Adds one to the vectors that `chosen` picks: norms that transformers has as an offset.
    pub fn add_one(&mut self, chosen: impl Fn(&str) -> bool) {
        let names = self.tensors.keys().filter(|name| chosen(name));
        self.less_one.extend(names.cloned());
    }

    /// The names of the tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Drops an output head that some checkpoints carry although the embeddings are it (`tied`).
    pub fn discard_tied_head(&mut self, tied: Option<bool>) {
        if tied == Some(true) {
            self.discard(|name| name.starts_with("lm_head."));
        }
    }

    /// Bytes that the tensors take in memory once they are converted.
    pub fn memory_bytes(&self) -> u64 {
        self.tensors
            .values()
            .map(|tensor| self.bytes_of(tensor))
            .sum()
    }

    /// What everything but matrices is converted to; `None` where the checkpoint's type stays.
    pub fn compute(&self) -> Option<Dtype> {
        self.compute
    }

    fn bytes_of(&self, tensor: &Tensor) -> u64 {
        let elements: u64 = tensor.shape.iter().map(|&dim| dim as u64).product();
        match (to_dtype(tensor.dtype), self.compute, tensor.shape.len()) {
            (Some(dtype), Some(compute), 1) if dtype.is_float() => elements * compute.size() as u64,
            (Some(dtype), _, _) => elements * dtype.size() as u64,
            (None, _, _) => tensor
                .parts
                .iter()
                .map(|part| part.info.range.len() as u64)
                .sum(),
        }
    }

    /// Fixes the total that progress is told against, after the last [`Self::discard`].
    pub fn start(&mut self) {
        self.progress.total = self.memory_bytes();
        (self.report)(self.progress);
    }

    /// Takes a tensor of floating-point numbers, in the type that the model computes in.
    pub fn take(&mut self, name: &str, shape: &[i32]) -> Result<Array, LoadError> {
        let mut found = self.find(name, shape, Kind::Floats)?;
        let mut array = self.read(&mut found, shape)?;
        match self.compute {
            Some(compute) if found.dtype != compute => {
                array = array.astype(compute)?;
                // Now, so that only one tensor at a time is in memory twice.
                Array::eval_all(&[&array])?;
                self.release(&found.tensor);
                self.tell(found.bytes);
            }
            _ => self.keep(found),
        }
        if self.less_one.contains(name) {
            array = array.add(&Array::from_f32(&[1.0], &[1])?.astype(array.dtype()?)?)?;
            Array::eval_all(&[&array])?;
        }
        Ok(array)
    }

    /// Takes a matrix of floating-point numbers in the type that the file has: products read it as it
    /// is.
    pub fn take_as_is(&mut self, name: &str, shape: &[i32]) -> Result<Array, LoadError> {
        self.take_stored(name, shape, Kind::Floats)
    }

    /// Takes a tensor of packed integers.
    pub fn take_packed(&mut self, name: &str, shape: &[i32]) -> Result<Array, LoadError> {
        self.take_stored(name, shape, Kind::Packed)
    }

    /// Takes a tensor of bytes: the scales of quantization to floating-point numbers.
    pub fn take_bytes(&mut self, name: &str, shape: &[i32]) -> Result<Array, LoadError> {
        self.take_stored(name, shape, Kind::Bytes)
    }

    fn take_stored(&mut self, name: &str, shape: &[i32], kind: Kind) -> Result<Array, LoadError> {
        let mut found = self.find(name, shape, kind)?;
        let array = self.read(&mut found, shape)?;
        self.keep(found);
        Ok(array)
    }

    /// Takes a tensor's entry out of the table, and checks it.
    fn find(&mut self, name: &str, shape: &[i32], kind: Kind) -> Result<Found, LoadError> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(LoadError::MissingTensor {
                name: self.stored_name(name).to_owned(),
                dir: self.dir.clone(),
            });
        };
        let dtype = match (to_dtype(tensor.dtype), kind) {
            (Some(dtype), Kind::Floats) if dtype.is_float() => dtype,
            (Some(Dtype::Uint32), Kind::Packed) => Dtype::Uint32,
            (Some(Dtype::Uint8), Kind::Bytes) => Dtype::Uint8,
            _ => return Err(self.wrong_type(name, &tensor, kind)),
        };
        if !same_shape(&tensor.shape, shape) {
            return Err(LoadError::ShapeMismatch {
                name: self.stored_name(name).to_owned(),
                path: self.path_of(&tensor),
                expected: shape.iter().map(|&dim| i64::from(dim)).collect(),
                found: tensor.shape,
            });
        }
        let bytes = self.bytes_of(&tensor);
        let in_place = match tensor.parts.as_slice() {
            [part] => tensor.make.is_none() && part.is_aligned(dtype) && self.compute.is_some(),
            _ => false,
        };
        Ok(Found {
            tensor,
            dtype,
            bytes,
            in_place,
        })
    }

    /// The file that a tensor, or the first of its parts, is in.
    fn path_of(&self, tensor: &Tensor) -> PathBuf {
        let shard = tensor
            .parts
            .first()
            .and_then(|part| self.shards.get(part.shard));
        shard.map_or_else(|| self.dir.clone(), |shard| shard.path.clone())
    }

    fn wrong_type(&self, name: &str, tensor: &Tensor, kind: Kind) -> LoadError {
        LoadError::DtypeMismatch {
            name: self.stored_name(name).to_owned(),
            path: self.path_of(tensor),
            found: format!("{:?}", tensor.dtype),
            expected: match kind {
                Kind::Floats => "F32, BF16 or F16 is expected",
                Kind::Packed => "packed integers (U32) are expected",
                Kind::Bytes => "bytes (U8) are expected",
            },
        }
    }

    /// Counts a tensor as loaded, or notes its pages where it lies in the file.
    fn keep(&mut self, found: Found) {
        match <[Part; 1]>::try_from(found.tensor.parts) {
            Ok([part]) if found.in_place => self.in_place.push(part),
            _ => self.tell(found.bytes),
        }
    }

    /// Has the pages read of what is going to be copied.
    fn bring_in(&mut self, found: &Found) {
        let parts = &found.tensor.parts;
        let whole: usize = parts.iter().map(|part| part.info.range.len()).sum();
        let shards = &self.shards;
        let ranges: Vec<_> = parts.iter().map(|part| part.pages(shards)).collect();
        let mut read = 0;
        pages::bring_in(&ranges, |bytes| {
            read += bytes;
            // The last step is told with the tensor.
            if read < whole {
                let share = read as f64 / whole as f64;
                (self.report)(LoadProgress {
                    bytes: self.progress.bytes + (found.bytes as f64 * share) as u64,
                    ..self.progress
                });
            }
        });
    }

    /// The tensor as it is in the file, in place if it can be; or what is made of its parts.
    fn read(&mut self, found: &mut Found, shape: &[i32]) -> Result<Array, MlxError> {
        if !found.in_place {
            self.bring_in(found);
        }
        let parts = &found.tensor.parts;
        let Some(make) = found.tensor.make.take() else {
            let first = parts
                .first()
                .ok_or_else(|| MlxError::new("a tensor of nothing"))?;
            return self.stored(first, shape, found.dtype);
        };
        let mut arrays = Vec::with_capacity(parts.len());
        for part in parts {
            let shape: Vec<i32> = part.info.shape.iter().map(|&dim| dim as i32).collect();
            let dtype = to_dtype(part.info.dtype)
                .ok_or_else(|| MlxError::new(format!("elements of type {:?}", part.info.dtype)))?;
            arrays.push(self.stored(part, &shape, dtype)?);
        }
        let made = make(&arrays)?.contiguous()?;
        if made.shape() != shape || made.dtype()? != found.dtype {
            return Err(MlxError::new(format!("{made:?} was made, not {shape:?}")));
        }
        Array::eval_all(&[&made])?;
        self.release(&found.tensor);
        Ok(made)
    }

    fn stored(&self, part: &Part, shape: &[i32], dtype: Dtype) -> Result<Array, MlxError> {
        let map = &self.shards[part.shard].map;
        let range = part.info.range.clone();
        if part.is_aligned(dtype) {
            Array::from_mmap(map, range, shape, dtype)
        } else {
            let copy = Array::from_bytes(&map[range.clone()], shape, dtype)?;
            pages::release(map, range);
            Ok(copy)
        }
    }

    /// Lets the file's pages go that were converted.
    fn release(&self, tensor: &Tensor) {
        for part in &tensor.parts {
            let (map, range) = part.pages(&self.shards);
            pages::release(map, range);
        }
    }

    fn tell(&mut self, bytes: u64) {
        self.progress.bytes += bytes;
        (self.report)(self.progress);
    }

    /// Fails where tensors are left that nobody took. Else has the pages read of those that stay in the files, and
    /// tells how far that is: they would come by themselves when they are used, but then all at once in the first
    /// step, which says nothing for as long as the disk takes.
    pub fn finish(mut self, architecture: &str) -> Result<(), LoadError> {
        if let Some(first) = self.names().map(|name| self.stored_name(name)).min() {
            return Err(LoadError::UnusedTensors {
                count: self.tensors.len(),
                first: first.to_owned(),
                architecture: architecture.to_owned(),
            });
        }
        let mut parts = std::mem::take(&mut self.in_place);
        parts.sort_by_key(|part| (part.shard, part.info.range.start));
        let shards = std::mem::take(&mut self.shards);
        let ranges: Vec<_> = parts.iter().map(|part| part.pages(&shards)).collect();
        pages::bring_in(&ranges, |bytes| self.tell(bytes as u64));
        Ok(())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{floats, to_bf16, write_tensors};
    use super::*;

    fn open_error(dir: &Path) -> String {
        match Weights::open(dir, None, &mut |_| {}) {
            Ok(_) => panic!("the weights were opened"),
            Err(error) => error.to_string(),
        }
    }

    /// Two shards with an index.
    fn sharded() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, name) in [("one.safetensors", "a"), ("two.safetensors", "b")] {
            write_tensors(&dir.path().join(file), &[floats(name, &[4, 2])]);
        }
        let index = json!({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}});
        let path = dir.path().join("model.safetensors.index.json");
        std::fs::write(path, index.to_string()).unwrap();
        dir
    }

    #[test]
    fn shards_are_found_through_the_index() {
        let dir = sharded();
        let mut ignore = |_| {};
        let mut weights = Weights::open(dir.path(), None, &mut ignore).unwrap();
        assert_eq!(weights.shape("b"), Some(&[4, 2][..]));
        let taken = weights.take("b", &[4, 2]).unwrap().to_vec_f32().unwrap();
        let (_, _, _, bytes) = floats("b", &[4, 2]);
        let written: Vec<f32> = bytes
            .chunks(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(taken, written);
        let error = weights.finish("llama").unwrap_err().to_string();
        assert!(
            error.contains("1 tensors") && error.contains("first a"),
            "{error}"
        );
    }

    #[test]
    fn a_cut_off_file_names_the_tensor_and_both_sizes() {
        let dir = sharded();
        let path = dir.path().join("two.safetensors");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 8]).unwrap();
        let error = open_error(dir.path());
        for part in [
            "two.safetensors",
            "tensor b",
            &whole.len().to_string(),
            "download",
        ] {
            assert!(error.contains(part), "{error}");
        }
        for length in [0, 4, 20] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = open_error(dir.path());
            assert!(error.contains("two.safetensors is not a valid"), "{error}");
        }
        let mut garbage = whole.clone();
        garbage[..8].fill(0xff);
        std::fs::write(&path, garbage).unwrap();
        assert!(open_error(dir.path()).contains("not a valid"));
    }

    #[test]
    fn a_wrong_shape_or_type_names_tensor_and_file() {
        let dir = sharded();
        let mut ignore = |_| {};
        let mut take = |name: &str, shape: &[i32]| {
            let mut weights = Weights::open(dir.path(), None, &mut ignore).unwrap();
            weights.take(name, shape).unwrap_err().to_string()
        };
        let error = take("a", &[2, 4]);
        for part in ["tensor a", "one.safetensors", "[4, 2]", "[2, 4]"] {
            assert!(error.contains(part), "{error}");
        }
        let error = take("c", &[1]);
        assert!(error.contains("tensor c is missing"), "{error}");
        let mut weights = Weights::open(dir.path(), None, &mut ignore).unwrap();
        let error = weights.take_packed("a", &[4, 2]).unwrap_err().to_string();
        assert!(
            error.contains("F32") && error.contains("packed integers"),
            "{error}"
        );
    }

    #[test]
    fn conversion_is_counted_before_and_done_while_loading() {
        let dir = tempfile::tempdir().unwrap();
        let tensors = [to_bf16(floats("a", &[4, 2])), to_bf16(floats("b", &[3]))];
        write_tensors(&dir.path().join("model.safetensors"), &tensors);
        let mut seen = Vec::new();
        let mut report = |progress: LoadProgress| seen.push(progress);
        let mut weights = Weights::open(dir.path(), Some(Dtype::Float32), &mut report).unwrap();
        // A matrix is used as it is.
        assert_eq!(weights.memory_bytes(), 2 * 8 + 4 * 3);
        weights.start();
        let matrix = weights.take_as_is("a", &[4, 2]).unwrap();
        assert_eq!(matrix.dtype().unwrap(), Dtype::Bfloat16);
        let vector = weights.take("b", &[3]).unwrap();
        assert_eq!(vector.dtype().unwrap(), Dtype::Float32);
        weights.finish("llama").unwrap();
        let bytes: Vec<_> = seen.iter().map(|p| (p.bytes, p.total)).collect();
        // What lies in the file comes last.
        assert_eq!(bytes, [(0, 28), (12, 28), (28, 28)]);
    }

    #[test]
    fn large_tensors_tell_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let rows = 3 * pages::PIECE / 4096;
        let tensors = [floats("a", &[rows, 512])];
        write_tensors(&dir.path().join("model.safetensors"), &tensors);
        // Read when they are taken, or at last.
        for compute in [None, Some(Dtype::Float32)] {
            let mut seen = Vec::new();
            let mut report = |progress: LoadProgress| seen.push(progress.bytes);
            let mut weights = Weights::open(dir.path(), compute, &mut report).unwrap();
            weights.start();
            weights.take("a", &[rows as i32, 512]).unwrap();
            weights.finish("llama").unwrap();
            // Which of its two pieces is there first is up to the threads.
            let whole = rows as u64 * 2048;
            assert!(
                matches!(seen[..], [0, first, last] if 0 < first && first < last && last == whole),
                "{seen:?} of {whole}"
            );
        }
    }

    /// The header's length decides where the tensors begin; nothing makes it even.
    #[test]
    fn tensors_at_odd_addresses_are_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut file = Vec::new();
        let padded = header.len() | 1;
        file.extend((padded as u64).to_le_bytes());
        file.extend(header);
        file.resize(8 + padded, b' ');
        file.extend([1.5f32, -2.5].map(f32::to_le_bytes).concat());
        std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
        let mut ignore = |_| {};
        let mut weights = Weights::open(dir.path(), None, &mut ignore).unwrap();
        assert_eq!(
            weights.take("a", &[2]).unwrap().to_vec_f32().unwrap(),
            [1.5, -2.5]
        );
    }
}
