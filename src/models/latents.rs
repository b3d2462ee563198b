//! The matrix that makes keys and values of latents, as transformers and older versions of mlx-lm have it,
//! made into mlx-lm's two.

use crate::mlx::{Array, Dtype, Matrix, MlxError, Mode, Packed, Packing};

use super::error::LoadError;
use super::layers::LatentShape;
use super::quantization;
use super::stacking::{first, misshapen};
use super::weights::Weights;

/// Divides `{attention}.kv_b_proj.weight`, `[heads · (plain + value), rank]`, into mlx-lm's `embed_q`,
/// `[heads, rank, plain]`, and `unembed_out`, `[heads, value, rank]`; a packed one is unpacked, as the
/// groups of one do not lie within the other. Does nothing where there is none.
pub fn split_heads(
    weights: &mut Weights<'_>,
    attention: &str,
    shape: LatentShape,
) -> Result<(), LoadError> {
    let name = format!("{attention}.kv_b_proj");
    let matrix = format!("{name}.weight");
    if !weights.contains(&matrix) {
        return Ok(());
    }
    let LatentShape {
        heads,
        plain,
        value,
        rank,
        ..
    } = shape;
    let rows = heads * (plain + value);
    let part = weights.part(&matrix)?;
    let compute = weights.compute();
    let (dtype, parts, packing) = match weights.contains(&format!("{name}.scales")) {
        false if part.shape() == [rows as usize, rank as usize] => (part.dtype(), vec![part], None),
        false => return Err(misshapen(&matrix, part.shape())),
        true => {
            let scales = weights.part(&format!("{name}.scales"))?;
            let (&[words_rows, words], &[_, groups]) = (part.shape(), scales.shape()) else {
                return Err(misshapen(&matrix, part.shape()));
            };
            let inputs = rank as usize;
            let (bits, group) = (words * 32 / inputs, inputs / groups.max(1));
            let (bits, group) = (bits as i32, group as i32);
            // Only affine quantization keeps its scales in the type of the weights.
            let packing = match scales.dtype() {
                safetensors::Dtype::U8 => quantization::of_floats(bits, group),
                _ => None,
            };
            let packing = match packing {
                Some(packing) => packing,
                None => quantization::check(Packing::affine(bits, group), &name)?,
            };
            if words_rows != rows as usize {
                return Err(misshapen(&matrix, part.shape()));
            }
            let dtype = match (compute, packing.mode) {
                (Some(_), _) => safetensors::Dtype::F32,
                (None, Mode::Affine) => scales.dtype(),
                // As MLX unpacks them.
                (None, _) => safetensors::Dtype::BF16,
            };
            let mut parts = vec![part, scales];
            if packing.mode == Mode::Affine {
                parts.push(weights.part(&format!("{name}.biases"))?);
            }
            (dtype, parts, Some(packing))
        }
    };
    let of_heads = move |parts: &[Array], from: i32, to: i32| {
        let all = match packing {
            Some(packing) => unpack(parts, packing, rows, compute)?,
            None => first(parts)?,
        };
        let all = all.reshape(&[heads, plain + value, rank])?;
        all.slice(&[0, from, 0], &[heads, to, rank])
    };
    let dims = |dims: [i32; 3]| dims.map(|dim| dim as usize).to_vec();
    weights.make(
        format!("{attention}.embed_q.weight"),
        dtype,
        dims([heads, rank, plain]),
        parts.clone(),
        move |parts| of_heads(parts, 0, plain)?.transpose(&[0, 2, 1]),
    );
    weights.make(
        format!("{attention}.unembed_out.weight"),
        dtype,
        dims([heads, value, rank]),
        parts,
        move |parts| of_heads(parts, plain, plain + value),
    );
    Ok(())
}

/// The numbers of a packed matrix of so many rows, given its words, scales and biases.
fn unpack(
    parts: &[Array],
    packing: Packing,
    rows: i32,
    compute: Option<Dtype>,
) -> Result<Array, MlxError> {
    let (words, scales, biases) = match parts {
        [words, scales] => (words, scales, None),
        [words, scales, biases] => (words, scales, Some(biases)),
        _ => {
            return Err(MlxError::new(
                "a packed matrix of other tensors than its own",
            ));
        }
    };
    let dtype = match (compute, packing.mode) {
        (Some(compute), _) => compute,
        (None, Mode::Affine) => scales.dtype()?,
        (None, _) => Dtype::Bfloat16,
    };
    let matrix = Matrix::quantized(&Packed {
        words: words.clone(),
        scales: scales.clone(),
        biases: biases.cloned(),
        packing,
    })?;
    let all: Vec<u32> = (0..rows as u32).collect();
    matrix.rows(&Array::from_u32(&all, &[rows])?, dtype)
}
