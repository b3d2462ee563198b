//! Linear layers, dense and quantized, and low-rank updates of them.

use crate::mlx::{Array, Dtype, Matrix, MlxError, Packed};
use crate::models::adapter::LowRank;

/// Rows of a matrix that are unpacked at once to learn their norms.
const UNPACKED: i32 = 1024;

/// `x Wᵀ + b`.
pub struct Linear {
    matrix: Matrix,
    update: Option<Update>,
}

/// `up(down(x))` is added to the product, then each output multiplied by its factor, then the bias
/// added.
struct Update {
    down: Matrix,
    up: Matrix,
    factors: Option<Array>,
    bias: Option<Array>,
}

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
        let matrix = match bias {
            Some(bias) => matrix.with_bias(bias)?,
            None => matrix,
        };
        Ok(Self {
            matrix,
            update: None,
        })
    }

    /// The layer with an update; `matrix` is without the bias, and `dtype` that of activations.
    #[track_caller]
    pub fn updated(
        matrix: Matrix,
        bias: Option<&Array>,
        low_rank: &LowRank,
        dtype: Dtype,
    ) -> Result<Self, MlxError> {
        let transposed = |array: &Array| array.transpose(&[1, 0])?.contiguous();
        let (down, up) = (transposed(&low_rank.a)?, transposed(&low_rank.b)?);
        let factors = match &low_rank.magnitude {
            Some(magnitude) => Some(factors(&matrix, &low_rank.a, &up, magnitude)?.astype(dtype)?),
            None => None,
        };
        // Without factors the bias can be the update's own.
        let up = Matrix::dense(&up.astype(dtype)?)?;
        let (up, bias) = match (bias, &factors) {
            (Some(bias), None) => (up.with_bias(bias)?, None),
            (bias, _) => (up, bias.cloned()),
        };
        Ok(Self {
            matrix,
            update: Some(Update {
                down: Matrix::dense(&down.astype(dtype)?)?,
                up,
                factors,
                bias,
            }),
        })
    }

    /// `[tokens, in]` to `[tokens, out]`.
    #[track_caller]
    pub fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        let product = self.matrix.product(x)?;
        let Some(update) = &self.update else {
            return Ok(product);
        };
        let mut out = update.up.product_add(&update.down.product(x)?, &product)?;
        if let Some(factors) = &update.factors {
            out = out.multiply(factors)?;
        }
        match &update.bias {
            Some(bias) => out.add(bias),
            None => Ok(out),
        }
    }

    /// The same, with `residual` `[tokens, out]` added.
    #[track_caller]
    pub fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        match &self.update {
            None => self.matrix.product_add(x, residual),
            Some(_) => self.forward(x)?.add(residual),
        }
    }

    /// The matrix, where the layer is nothing but that.
    pub(super) fn matrix(&self) -> Option<&Matrix> {
        self.update.is_none().then_some(&self.matrix)
    }
}

/// What brings each row of the updated matrix to the norm that `magnitude` (`[out]`) has for it. `a` is
/// `[in, rank]`, `up` `[out, rank]`.
#[track_caller]
fn factors(matrix: &Matrix, a: &Array, up: &Array, magnitude: &Array) -> Result<Array, MlxError> {
    let (outputs, rank) = (up.dim(0), up.dim(1));
    let inputs = a.dim(0).max(1) as usize;
    let down = a.transpose(&[1, 0])?;
    let mut factors = magnitude.to_vec_f32()?;
    for start in (0..outputs).step_by(UNPACKED as usize) {
        let stop = outputs.min(start + UNPACKED);
        let indices: Vec<i32> = (start..stop).collect();
        let indices = Array::from_i32(&indices, &[stop - start])?;
        let update = up.slice(&[start, 0], &[stop, rank])?.matmul(&down)?;
        let rows = matrix.rows(&indices, Dtype::Float32)?.add(&update)?;
        let rows = rows.to_vec_f32()?;
        for (factor, row) in factors[start as usize..]
            .iter_mut()
            .zip(rows.chunks(inputs))
        {
            let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            *factor = (f64::from(*factor) / squares.sqrt()) as f32;
        }
    }
    Array::from_f32(&factors, &[outputs])
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
