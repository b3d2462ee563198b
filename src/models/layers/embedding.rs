//! Token embeddings, also as output head.

use crate::mlx::{Array, Dtype, Matrix, MlxError, Packed};

/// A table `[vocab, hidden]` of one vector a token.
pub struct Embedding {
    table: Matrix,
    dtype: Dtype,
}

impl Embedding {
    /// A dense table, `[vocab, hidden]`, that gives vectors of type `dtype`.
    #[track_caller]
    pub fn dense(weight: &Array, dtype: Dtype) -> Result<Self, MlxError> {
        let table = Matrix::dense(weight)?;
        Ok(Self { table, dtype })
    }

    /// A quantized table.
    #[track_caller]
    pub fn quantized(packed: &Packed, dtype: Dtype) -> Result<Self, MlxError> {
        let table = Matrix::quantized(packed)?;
        Ok(Self { table, dtype })
    }

    /// Token ids `[tokens]`, each below the vocabulary's size, to `[tokens, hidden]`.
    #[track_caller]
    pub fn forward(&self, tokens: &Array) -> Result<Array, MlxError> {
        self.table.rows(tokens, self.dtype)
    }

    /// Scores every token: `[tokens, hidden]` to logits `[tokens, vocab]`.
    #[track_caller]
    pub fn as_linear(&self, x: &Array) -> Result<Array, MlxError> {
        self.table.product(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::Packing;

    #[test]
    fn rows_are_looked_up_and_scored() {
        let table = Array::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]).unwrap();
        let embedding = Embedding::dense(&table, Dtype::Float32).unwrap();
        let ids = Array::from_u32(&[2, 0], &[2]).unwrap();
        let rows = embedding.forward(&ids).unwrap();
        assert_eq!(rows.to_vec_f32().unwrap(), [5.0, 6.0, 1.0, 2.0]);
        let logits = embedding.as_linear(&rows).unwrap();
        assert_eq!(logits.shape(), [2, 3]);
        assert_eq!(
            logits.to_vec_f32().unwrap(),
            [17.0, 39.0, 61.0, 5.0, 11.0, 17.0]
        );
    }

    #[test]
    fn quantized_rows_are_dequantized() {
        let embedding = Packed {
            words: Array::from_u32(&[0x0302_0100; 16], &[2, 8]).unwrap(),
            scales: Array::from_f32(&[1.0, 2.0], &[2, 1]).unwrap(),
            biases: Some(Array::from_f32(&[0.0, -1.0], &[2, 1]).unwrap()),
            packing: Packing::affine(8, 32),
        };
        let embedding = Embedding::quantized(&embedding, Dtype::Float32).unwrap();
        let ids = Array::from_u32(&[1], &[1]).unwrap();
        let row = embedding.forward(&ids).unwrap().to_vec_f32().unwrap();
        assert_eq!(row[..4], [-1.0, 1.0, 3.0, 5.0]);
    }
}
