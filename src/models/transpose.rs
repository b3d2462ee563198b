//! Matrices in the order that the CPU backend multiplies fastest.

use half::{bf16, f16};

use crate::mlx::Dtype;

/// Rows and columns of a tile: its lines of source and target fit into the first-level cache.
const TILE: usize = 32;

/// The columns of a row-major `[rows, columns]` matrix behind one another, in float32.
///
/// MLX's CPU backend hands dense products to a reference BLAS, which adds up whole columns faster
/// than it takes dot products along rows: by a fifth for one token, by half for a prompt.
/// `None` where `dtype` is no floating-point type, or `bytes` is not a whole matrix.
pub fn by_columns(bytes: &[u8], dtype: Dtype, rows: usize, columns: usize) -> Option<Vec<f32>> {
    match dtype {
        Dtype::Float32 => tiles(bytes, rows, columns, f32::from_le_bytes),
        Dtype::Bfloat16 => tiles(bytes, rows, columns, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::Float16 => tiles(bytes, rows, columns, |b| f16::from_le_bytes(b).to_f32()),
        _ => None,
    }
}

fn tiles<const N: usize>(
    bytes: &[u8],
    rows: usize,
    columns: usize,
    value: impl Fn([u8; N]) -> f32,
) -> Option<Vec<f32>> {
    let (elements, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() || elements.len() != rows.checked_mul(columns)? {
        return None;
    }
    let mut target = vec![0.0; elements.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for column in left..columns.min(left + TILE) {
                for row in top..rows.min(top + TILE) {
                    target[column * rows + row] = value(elements[row * columns + column]);
                }
            }
        }
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_one_after_the_other_whatever_the_type() {
        // Larger than a tile, and no multiple of one.
        let (rows, columns) = (37, 70);
        let values: Vec<f32> = (0..rows * columns).map(|i| (i % 251) as f32).collect();
        let expected: Vec<f32> = (0..rows * columns)
            .map(|i| values[(i % rows) * columns + i / rows])
            .collect();
        let encode = |dtype| -> Vec<u8> {
            let one = |&x: &f32| match dtype {
                Dtype::Bfloat16 => bf16::from_f32(x).to_le_bytes().to_vec(),
                Dtype::Float16 => f16::from_f32(x).to_le_bytes().to_vec(),
                _ => x.to_le_bytes().to_vec(),
            };
            values.iter().flat_map(one).collect()
        };
        for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
            let found = by_columns(&encode(dtype), dtype, rows, columns).unwrap();
            assert!(found == expected, "{dtype}");
        }
    }

    #[test]
    fn what_is_no_matrix_of_numbers_is_none() {
        assert!(by_columns(&[0; 8], Dtype::Uint32, 1, 2).is_none());
        assert!(by_columns(&[0; 8], Dtype::Float32, 1, 3).is_none());
        assert!(by_columns(&[0; 7], Dtype::Bfloat16, 1, 3).is_none());
    }
}
