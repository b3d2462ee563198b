//! Operations on arrays. All are lazy: shapes and types are checked now, values are computed by
//! an `eval`. An error names the place that asked.

use super::array::{Array, list};
use super::bridge::{RowOp, ffi};
use super::dtype::Dtype;
use super::error::MlxError;
use super::packing::Packed;

/// Functions of single numbers that go between two products. The order is that of operands.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Activation {
    /// `x sigmoid(x)`
    Silu,
    /// `x Φ(x)` (Hendrycks & Gimpel, 2016)
    Gelu,
    /// The same by its approximation with tanh.
    GeluTanh,
    /// `max(x, 0)²`
    ReluSquared,
    /// `1 / (1 + e^-x)`
    Sigmoid,
}

/// Behind the last [`Activation`]: the one that has a parameter.
const SOFT_CAP: u8 = 5;

impl Array {
    /// The function of every number.
    #[track_caller]
    pub fn activate(&self, activation: Activation) -> Result<Self, MlxError> {
        Self::wrap(ffi::activate(self.raw(), activation as u8, 0.0))
    }

    /// The function of every number, times that of `up` (the same shape).
    #[track_caller]
    pub fn activate_times(&self, activation: Activation, up: &Array) -> Result<Self, MlxError> {
        Self::wrap(ffi::activate_times(self.raw(), up.raw(), activation as u8))
    }

    /// `limit · tanh(x / limit)` of every number.
    #[track_caller]
    pub fn soft_cap(&self, limit: f32) -> Result<Self, MlxError> {
        Self::wrap(ffi::activate(self.raw(), SOFT_CAP, limit))
    }

    /// Every number times `factor`.
    #[track_caller]
    pub fn scale(&self, factor: f32) -> Result<Self, MlxError> {
        Self::wrap(ffi::scale(self.raw(), factor))
    }

    /// The same values in another element type; the same array where it has it already.
    #[track_caller]
    pub fn astype(&self, dtype: Dtype) -> Result<Self, MlxError> {
        Self::wrap(ffi::astype(self.raw(), dtype.index()))
    }

    /// The same values under another shape of the same size; one dimension may be -1.
    #[track_caller]
    pub fn reshape(&self, shape: &[i32]) -> Result<Self, MlxError> {
        Self::wrap(ffi::reshape(self.raw(), shape))
    }

    /// The dimensions in another order: dimension `i` of the result is `axes[i]` of this one.
    #[track_caller]
    pub fn transpose(&self, axes: &[i32]) -> Result<Self, MlxError> {
        Self::wrap(ffi::transpose(self.raw(), axes))
    }

    /// The box from `start` (inclusive) to `stop` (exclusive), one of each a dimension.
    #[track_caller]
    pub fn slice(&self, start: &[i32], stop: &[i32]) -> Result<Self, MlxError> {
        Self::wrap(ffi::slice(self.raw(), start, stop))
    }

    /// This array with the box from `start` to `stop` replaced. Nothing is copied where this
    /// handle was the last one.
    #[track_caller]
    pub fn slice_update(
        &self,
        update: &Array,
        start: &[i32],
        stop: &[i32],
    ) -> Result<Self, MlxError> {
        Self::wrap(ffi::slice_update(self.raw(), update.raw(), start, stop))
    }

    /// The arrays behind one another along `axis`, in memory of their own.
    #[track_caller]
    pub fn concatenate(arrays: &[&Array], axis: i32) -> Result<Self, MlxError> {
        Self::concatenate_with_room(arrays, axis, 0)
    }

    /// The arrays behind one another along `axis`, and `room` entries of zeros after them.
    #[track_caller]
    pub fn concatenate_with_room(
        arrays: &[&Array],
        axis: i32,
        room: i32,
    ) -> Result<Self, MlxError> {
        Self::wrap(ffi::concatenate(&list(arrays), axis, room))
    }

    /// The entries of `axis` that `indices` names; the indices' shape takes the axis' place.
    #[track_caller]
    pub fn take(&self, indices: &Array, axis: i32) -> Result<Self, MlxError> {
        Self::wrap(ffi::take(self.raw(), indices.raw(), axis))
    }

    /// The sum, with broadcasting.
    #[track_caller]
    pub fn add(&self, other: &Array) -> Result<Self, MlxError> {
        Self::wrap(ffi::add(self.raw(), other.raw()))
    }

    /// The elementwise product, with broadcasting.
    #[track_caller]
    pub fn multiply(&self, other: &Array) -> Result<Self, MlxError> {
        Self::wrap(ffi::multiply(self.raw(), other.raw()))
    }

    /// A number for each row of `[rows, n]` (float32), computed by `op` from all of them: `[rows]`,
    /// uint32. It runs once, on the CPU's stream and its thread, when the result is evaluated; where
    /// it panics the numbers are 0.
    #[track_caller]
    pub fn per_row(
        &self,
        op: impl FnMut(&[f32], &mut [u32]) + Send + 'static,
    ) -> Result<Self, MlxError> {
        if self.shape().len() != 2 {
            let shape = self.shape();
            return Err(MlxError::new(format!("rows of shape {shape:?}")));
        }
        Self::wrap(ffi::per_row(self.raw(), Box::new(RowOp(Box::new(op)))))
    }

    /// `1 / (1 + exp(-x))` of every element.
    #[track_caller]
    pub fn sigmoid(&self) -> Result<Self, MlxError> {
        Self::wrap(ffi::sigmoid(self.raw()))
    }

    /// `[.., m, k]` times `[.., k, n]` gives `[.., m, n]`.
    #[track_caller]
    pub fn matmul(&self, other: &Array) -> Result<Self, MlxError> {
        Self::wrap(ffi::matmul(self.raw(), other.raw()))
    }

    /// `self · Wᵀ` for a quantized `W`, by MLX's own operation: `[m, in]` gives `[m, out]`.
    #[track_caller]
    pub fn quantized_matmul(&self, w: &Packed) -> Result<Self, MlxError> {
        let biases: Vec<&Array> = w.biases.iter().collect();
        Self::wrap(ffi::quantized_matmul(
            self.raw(),
            w.words.raw(),
            w.scales.raw(),
            &list(&biases),
            w.packing.group_size,
            w.packing.bits,
            w.packing.mode as u8,
        ))
    }

    /// The same values seen under a larger shape: dimensions of length 1 are repeated.
    #[track_caller]
    pub fn broadcast_to(&self, shape: &[i32]) -> Result<Self, MlxError> {
        Self::wrap(ffi::broadcast_to(self.raw(), shape))
    }

    /// The same values without gaps, in row-major order.
    #[track_caller]
    pub fn contiguous(&self) -> Result<Self, MlxError> {
        Self::wrap(ffi::contiguous(self.raw()))
    }

    /// The same bytes as another type; the last dimension changes with the size of the elements.
    #[track_caller]
    pub fn view(&self, dtype: Dtype) -> Result<Self, MlxError> {
        Self::wrap(ffi::view(self.raw(), dtype.index()))
    }

    /// Entries `first`, `first + 2`, … of dimension `axis`.
    #[track_caller]
    pub fn every_other(&self, axis: i32, first: i32) -> Result<Self, MlxError> {
        Self::wrap(ffi::every_other(self.raw(), axis, first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_handed_over_whole_and_in_order() {
        let columns = Array::from_f32(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], &[3, 2]).unwrap();
        let rows = columns.transpose(&[1, 0]).unwrap();
        let given = rows.per_row(|values, out| {
            assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            out.copy_from_slice(&[7, 8]);
        });
        assert_eq!(given.unwrap().to_vec_f32().unwrap(), [7.0, 8.0]);
        assert!(rows.reshape(&[6]).unwrap().per_row(|_, _| {}).is_err());
    }

    #[test]
    fn what_a_row_gives_can_be_computed_with_before_it_is_known() {
        let table = Array::from_f32(&[10.0, 11.0, 12.0], &[3]).unwrap();
        let row = Array::from_f32(&[0.0, 1.0], &[1, 2]).unwrap();
        let place = row.per_row(|values, out| out[0] = values[1] as u32 + 1);
        let found = table.take(&place.unwrap(), 0).unwrap();
        assert_eq!(found.to_vec_f32().unwrap(), [12.0]);
    }

    #[test]
    fn a_panic_among_the_rows_ends_nothing_but_them() {
        let row = Array::from_f32(&[0.0], &[1, 1]).unwrap();
        let broken = row.per_row(|_, _| panic!("forced")).unwrap();
        assert_eq!(broken.to_vec_f32().unwrap(), [0.0]);
        let fine = row.per_row(|_, out| out[0] = 3).unwrap();
        assert_eq!(fine.to_vec_f32().unwrap(), [3.0], "the stream goes on");
    }
}
