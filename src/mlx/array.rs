//! The handle of an MLX array.

use std::sync::Arc;

use cxx::UniquePtr;

use super::bridge::{Mapping, ffi};
use super::dtype::Dtype;
use super::error::{MlxError, OrMlxError};

/// An n-dimensional array of MLX, usually a node of a graph that was not computed yet.
///
/// Cloning shares it. It stays on the thread that made it: MLX's streams belong to a thread.
pub struct Array {
    inner: UniquePtr<ffi::Array>,
}

impl Clone for Array {
    fn clone(&self) -> Self {
        Self {
            inner: ffi::clone_array(self.raw()),
        }
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.dtype() {
            Ok(dtype) => write!(f, "Array({dtype}, {:?})", self.shape()),
            Err(_) => write!(f, "Array({:?})", self.shape()),
        }
    }
}

impl Array {
    pub(super) fn raw(&self) -> &ffi::Array {
        &self.inner
    }

    #[track_caller]
    pub(super) fn wrap(
        result: Result<UniquePtr<ffi::Array>, cxx::Exception>,
    ) -> Result<Self, MlxError> {
        Ok(Self {
            inner: result.or_mlx()?,
        })
    }

    /// A float32 array with the values of `data`, in row-major order of `shape`.
    #[track_caller]
    pub fn from_f32(data: &[f32], shape: &[i32]) -> Result<Self, MlxError> {
        Self::from_bytes(as_bytes(data), shape, Dtype::Float32)
    }

    /// A uint32 array with the values of `data`, for instance token ids.
    #[track_caller]
    pub fn from_u32(data: &[u32], shape: &[i32]) -> Result<Self, MlxError> {
        Self::from_bytes(as_bytes(data), shape, Dtype::Uint32)
    }

    /// An int32 array with the values of `data`, for instance positions.
    #[track_caller]
    pub fn from_i32(data: &[i32], shape: &[i32]) -> Result<Self, MlxError> {
        Self::from_bytes(as_bytes(data), shape, Dtype::Int32)
    }

    /// An array with a copy of `bytes`, the elements in the machine's byte order.
    #[track_caller]
    pub fn from_bytes(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Result<Self, MlxError> {
        check_shape(shape)?;
        Self::wrap(ffi::from_bytes(bytes, shape, dtype.index()))
    }

    /// An array over the memory map itself: nothing is read before it is used. On a GPU that
    /// cannot use the pages it is a copy.
    ///
    /// `range` is in bytes of the map, and must begin at a multiple of the element's size.
    #[track_caller]
    pub fn from_mmap(
        map: &Arc<memmap2::Mmap>,
        range: std::ops::Range<usize>,
        shape: &[i32],
        dtype: Dtype,
    ) -> Result<Self, MlxError> {
        check_shape(shape)?;
        let Some(bytes) = map.get(range) else {
            return Err(MlxError::new("the range is outside of the memory map"));
        };
        if !bytes.as_ptr().addr().is_multiple_of(dtype.size()) {
            return Err(MlxError::new("the range is not aligned to the elements"));
        }
        let owner = Box::new(Mapping(Arc::clone(map)));
        // SAFETY: `owner` keeps the map, and with it `bytes`, alive until MLX drops the array.
        Self::wrap(unsafe { ffi::from_mapping(bytes, shape, dtype.index(), owner) })
    }

    /// An array of zeros.
    #[track_caller]
    pub fn zeros(shape: &[i32], dtype: Dtype) -> Result<Self, MlxError> {
        check_shape(shape)?;
        Self::wrap(ffi::zeros(shape, dtype.index()))
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[i32] {
        ffi::shape(self.raw())
    }

    /// The length of dimension `axis`; a negative one counts from the last. 0 where there is none.
    pub fn dim(&self, axis: isize) -> i32 {
        let shape = self.shape();
        let index = if axis < 0 {
            shape.len().checked_add_signed(axis)
        } else {
            usize::try_from(axis).ok()
        };
        index.and_then(|i| shape.get(i).copied()).unwrap_or(0)
    }

    /// The type of the elements.
    #[track_caller]
    pub fn dtype(&self) -> Result<Dtype, MlxError> {
        let index = ffi::dtype(self.raw()).or_mlx()?;
        Dtype::from_index(index).ok_or_else(|| MlxError::new("an unknown element type"))
    }

    /// The number of elements.
    pub fn size(&self) -> usize {
        self.shape()
            .iter()
            .map(|&d| usize::try_from(d).unwrap_or(0))
            .product()
    }

    /// The bytes of the elements.
    pub fn nbytes(&self) -> u64 {
        ffi::nbytes(self.raw()) as u64
    }

    /// Computes the arrays, and waits for them.
    #[track_caller]
    pub fn eval_all(arrays: &[&Array]) -> Result<(), MlxError> {
        ffi::eval(&list(arrays)).or_mlx()
    }

    /// Starts computing the arrays, and returns at once. What fails is reported by the `eval_all`
    /// or the read that waits for them.
    #[track_caller]
    pub fn async_eval_all(arrays: &[&Array]) -> Result<(), MlxError> {
        ffi::async_eval(&list(arrays)).or_mlx()
    }

    /// What is still to be computed for the arrays, in the DOT language as MLX writes it: for those
    /// who count operations.
    #[track_caller]
    pub fn graph(arrays: &[&Array]) -> Result<String, MlxError> {
        ffi::graph_dot(&list(arrays)).or_mlx()
    }

    /// The values in row-major order, converted to float32; computes the array if need be.
    #[track_caller]
    pub fn to_vec_f32(&self) -> Result<Vec<f32>, MlxError> {
        let mut values = vec![0.0; self.size()];
        ffi::copy_f32(self.raw(), &mut values).or_mlx()?;
        Ok(values)
    }
}

/// The arrays as one C++ value.
pub(super) fn list(arrays: &[&Array]) -> UniquePtr<ffi::ArrayList> {
    let mut list = ffi::new_list();
    for array in arrays {
        ffi::list_push(list.pin_mut(), array.raw());
    }
    list
}

#[track_caller]
fn check_shape(shape: &[i32]) -> Result<(), MlxError> {
    if shape.iter().any(|&dim| dim < 0) {
        return Err(MlxError::new(format!("a negative dimension in {shape:?}")));
    }
    Ok(())
}

/// Plain numbers as their bytes.
fn as_bytes<T: Number>(data: &[T]) -> &[u8] {
    // SAFETY: numbers have no padding, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) }
}

trait Number: Copy {}
impl Number for f32 {}
impl Number for u32 {}
impl Number for i32 {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn mapped(bytes: &[u8]) -> Arc<memmap2::Mmap> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        // SAFETY: nobody else has the file.
        Arc::new(unsafe { memmap2::Mmap::map(&file) }.unwrap())
    }

    #[test]
    fn values_go_in_and_come_out() {
        let array = Array::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
        assert_eq!(array.shape(), [2, 3]);
        assert_eq!((array.dim(0), array.dim(-1), array.dim(2)), (2, 3, 0));
        assert_eq!(array.nbytes(), 24);
        let transposed = array.transpose(&[1, 0]).unwrap();
        assert_eq!(
            transposed.to_vec_f32().unwrap(),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
    }

    #[test]
    fn every_type_keeps_its_size_and_name() {
        for dtype in Dtype::ALL {
            let array = Array::zeros(&[3], dtype).unwrap();
            assert_eq!(array.dtype().unwrap(), dtype);
            assert_eq!(array.nbytes(), 3 * dtype.size() as u64, "{dtype}");
        }
    }

    #[test]
    fn a_graph_has_what_is_still_to_be_computed() {
        let one = Array::from_f32(&[1.0], &[1]).unwrap();
        let sum = one.add(&one).unwrap();
        assert!(Array::graph(&[&sum]).unwrap().contains("Add"));
        Array::eval_all(&[&sum]).unwrap();
        assert!(!Array::graph(&[&sum]).unwrap().contains("Add"));
    }

    #[test]
    fn a_half_is_read_as_float32() {
        let bytes: Vec<u8> = [0.5f32, -2.0]
            .iter()
            .flat_map(|&x| half::bf16::from_f32(x).to_ne_bytes())
            .collect();
        let array = Array::from_bytes(&bytes, &[2], Dtype::Bfloat16).unwrap();
        assert_eq!(array.to_vec_f32().unwrap(), [0.5, -2.0]);
    }

    #[test]
    fn a_memory_map_is_used_in_place_and_outlives_its_handle() {
        let values: Vec<u8> = (0..8u32).flat_map(|i| (i as f32).to_ne_bytes()).collect();
        let map = mapped(&values);
        let array = Array::from_mmap(&map, 4..20, &[2, 2], Dtype::Float32).unwrap();
        assert_eq!(Arc::strong_count(&map), 2);
        drop(map);
        let sum = array.add(&array).unwrap();
        assert_eq!(sum.to_vec_f32().unwrap(), [2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn dropping_the_array_lets_go_of_the_map() {
        let map = mapped(&[0; 64]);
        let array = Array::from_mmap(&map, 0..64, &[16], Dtype::Float32).unwrap();
        let doubled = array.add(&array).unwrap();
        Array::eval_all(&[&doubled]).unwrap();
        drop((array, doubled));
        assert_eq!(Arc::strong_count(&map), 1);
    }

    #[test]
    fn a_bad_range_of_a_map_is_an_error() {
        let map = mapped(&[0; 64]);
        for (range, text) in [
            (0..65, "outside"),
            (1..5, "aligned"),
            (0..8, "takes 4 bytes"),
        ] {
            let error = Array::from_mmap(&map, range, &[1], Dtype::Float32).unwrap_err();
            assert!(error.message().contains(text), "{error}");
        }
    }

    #[test]
    fn a_wrong_shape_is_an_error_that_names_this_file() {
        let a = Array::from_f32(&[0.0; 6], &[2, 3]).unwrap();
        let error = a.matmul(&a).unwrap_err();
        assert!(error.message().contains("matmul"), "{error}");
        assert!(error.to_string().contains("array.rs"), "{error}");
        assert!(Array::from_f32(&[0.0; 6], &[-2, -3]).is_err());
        assert!(Array::from_f32(&[0.0; 6], &[7]).is_err());
    }

    /// A singular matrix is found by LAPACK on the stream's own thread, long after the operation
    /// was built.
    #[test]
    fn an_error_on_the_streams_thread_reaches_whoever_waits() {
        let singular = Array::zeros(&[2, 2], Dtype::Float32).unwrap();
        let inverse = Array::wrap(ffi::inverse(singular.raw())).unwrap();
        let error = Array::eval_all(&[&inverse]).unwrap_err();
        assert!(error.message().contains("Inverse"), "{error}");

        let inverse = Array::wrap(ffi::inverse(singular.raw())).unwrap();
        let sum = inverse.add(&singular).unwrap();
        let error = Array::async_eval_all(&[&sum])
            .and_then(|()| sum.to_vec_f32())
            .unwrap_err();
        assert!(error.message().contains("Inverse"), "{error}");

        let one = Array::from_f32(&[1.0], &[1]).unwrap();
        assert_eq!(
            one.add(&one).unwrap().to_vec_f32().unwrap(),
            [2.0],
            "the stream goes on"
        );
    }
}
