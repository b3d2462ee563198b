//! Matrices of a checkpoint: what activations are multiplied with.

use cxx::UniquePtr;

use super::array::{Array, list};
use super::bridge::ffi;
use super::dtype::Dtype;
use super::error::{MlxError, OrMlxError};
use super::fast::or_null;
use super::ops::Activation;
use super::packing::Packed;

/// A matrix `[out, in]` as the checkpoint has it, to be multiplied as its transpose, with or without a
/// bias `[out]`.
///
/// float32 activations on the CPU go through our kernels, which read the matrix where and as it is;
/// anything else goes through MLX's own operations.
pub struct Matrix(pub(super) UniquePtr<ffi::Weight>);

impl Matrix {
    /// Of float32, bfloat16 or float16 `values`, `[out, in]`.
    #[track_caller]
    pub fn dense(values: &Array) -> Result<Self, MlxError> {
        check_matrix(values)?;
        Ok(Self(ffi::dense_weight(values.raw()).or_mlx()?))
    }

    /// A quantized one.
    #[track_caller]
    pub fn quantized(packed: &Packed) -> Result<Self, MlxError> {
        check_matrix(&packed.words)?;
        Ok(Self(packed.weight()?))
    }

    /// The same matrix with a bias, `[out]`, in the type of the activations.
    #[track_caller]
    pub fn with_bias(mut self, bias: &Array) -> Result<Self, MlxError> {
        ffi::set_offset(self.0.pin_mut(), bias.raw()).or_mlx()?;
        Ok(self)
    }

    /// `x Wᵀ + b`: `[tokens, in]` to `[tokens, out]`.
    #[track_caller]
    pub fn product(&self, x: &Array) -> Result<Array, MlxError> {
        Array::wrap(ffi::linear(x.raw(), &self.0))
    }

    /// `x Wᵀ + b + residual`, the residual being `[tokens, out]`.
    #[track_caller]
    pub fn product_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        Array::wrap(ffi::linear_add(x.raw(), &self.0, residual.raw()))
    }

    /// The rows that `indices` (`[tokens]`, below `out`) names, as `dtype`: `[tokens, in]`.
    #[track_caller]
    pub fn rows(&self, indices: &Array, dtype: Dtype) -> Result<Array, MlxError> {
        Array::wrap(ffi::weight_rows(&self.0, indices.raw(), dtype.index()))
    }
}

/// `activation(x Gᵀ) · x Uᵀ` (Shazeer, GLU Variants Improve Transformer, 2020): `[tokens, in]` to
/// `[tokens, out]`.
#[track_caller]
pub fn gated_product(
    x: &Array,
    gate: &Matrix,
    up: &Matrix,
    activation: Activation,
) -> Result<Array, MlxError> {
    Array::wrap(ffi::gated_linear(x.raw(), &gate.0, &up.0, activation as u8))
}

/// `(activation(x Gᵀ) · x Uᵀ) Dᵀ`, plus `residual` if there is one: `[tokens, in]` to the same.
#[track_caller]
pub fn gated_mlp(
    x: &Array,
    [gate, up, down]: [&Matrix; 3],
    activation: Activation,
    residual: Option<&Array>,
) -> Result<Array, MlxError> {
    Array::wrap(ffi::gated_mlp(
        x.raw(),
        &gate.0,
        &up.0,
        &down.0,
        activation as u8,
        &or_null(residual),
    ))
}

impl Packed {
    #[track_caller]
    pub(super) fn weight(&self) -> Result<UniquePtr<ffi::Weight>, MlxError> {
        let biases: Vec<&Array> = self.biases.iter().collect();
        ffi::quantized_weight(
            self.words.raw(),
            self.scales.raw(),
            &list(&biases),
            self.packing.group_size,
            self.packing.bits,
            self.packing.mode as u8,
        )
        .or_mlx()
    }
}

#[track_caller]
fn check_matrix(values: &Array) -> Result<(), MlxError> {
    match values.shape() {
        [_, _] => Ok(()),
        shape => Err(MlxError::new(format!("a matrix of shape {shape:?}"))),
    }
}
