//! Linear layers, dense and quantized.

use crate::mlx::{Array, Matrix, MlxError, Packed};

/// `x Wᵀ + b`.
pub struct Linear(Matrix);

impl Linear {
    /// A dense layer: `weight` is `[out, in]`, `bias` `[out]`.
    #[track_caller]
    pub fn dense(weight: &Array, bias: Option<&Array>) -> Result<Self, MlxError> {
        Self::new(Matrix::dense(weight)?, bias)
    }

    /// A quantized layer; `bias` is `[out]`.
    #[track_caller]
    pub fn quantized(packed: &Packed, bias: Option<&Array>) -> Result<Self, MlxError> {
        Self::new(Matrix::quantized(packed)?, bias)
    }

    #[track_caller]
    fn new(matrix: Matrix, bias: Option<&Array>) -> Result<Self, MlxError> {
        Ok(Self(match bias {
            Some(bias) => matrix.with_bias(bias)?,
            None => matrix,
        }))
    }

    /// `[tokens, in]` to `[tokens, out]`.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        self.0.product(x)
    }

    /// The same, with `residual` `[tokens, out]` added.
    #[track_caller]
    pub fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        self.0.product_add(x, residual)
    }

    pub(super) fn matrix(&self) -> &Matrix {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::Packing;

    /// Two rows of 32 values in 4 bits: value `i` of a row is `i mod 16`, before scale and bias.
    fn packed() -> Packed {
        let word = |start: u32| (0..8).map(|i| (start + i) << (4 * i)).sum::<u32>();
        let row = [word(0), word(8), word(0), word(8)];
        Packed {
            words: Array::from_u32(&[row, row].concat(), &[2, 4]).unwrap(),
            scales: Array::from_f32(&[1.0, 0.5], &[2, 1]).unwrap(),
            biases: Some(Array::from_f32(&[0.0, -1.0], &[2, 1]).unwrap()),
            packing: Packing::affine(4, 32),
        }
    }

    #[test]
    fn dense_multiplies_by_the_transpose_and_adds_the_bias() {
        let weight = Array::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]).unwrap();
        let x = Array::from_f32(&[1.0, 10.0], &[1, 2]).unwrap();
        let linear = Linear::dense(&weight, None).unwrap();
        assert_eq!(
            linear.forward(&x).unwrap().to_vec_f32().unwrap(),
            [21.0, 43.0, 65.0]
        );
        let bias = Array::from_f32(&[0.5, 1.5, -65.0], &[3]).unwrap();
        let linear = Linear::dense(&weight, Some(&bias)).unwrap();
        assert_eq!(
            linear.forward(&x).unwrap().to_vec_f32().unwrap(),
            [21.5, 44.5, 0.0]
        );
    }

    #[test]
    fn quantized_multiplies_by_the_dequantized_matrix() {
        let bias = Array::from_f32(&[1.0, 2.0], &[2]).unwrap();
        let linear = Linear::quantized(&packed(), Some(&bias)).unwrap();
        let x = Array::from_f32(&[1.0; 32], &[1, 32]).unwrap();
        // The integers of a row sum up to 2 · (0 + … + 15) = 240.
        assert_eq!(
            linear.forward(&x).unwrap().to_vec_f32().unwrap(),
            [241.0, 120.0 - 32.0 + 2.0]
        );
    }
}
