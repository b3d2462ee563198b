//! Experts in the layouts of transformers, made into mlx-lm's.

use crate::mlx::{Array, Dtype, MlxError};

use super::error::LoadError;
use super::weights::{Part, Weights};

/// What a layer consists of, dense or quantized.
const SUFFIXES: [&str; 4] = ["weight", "scales", "biases", "bias"];

/// The usual names of an expert's products, and mlx-lm's.
pub const USUAL: [(&str, &str); 3] = [
    ("gate_proj", "gate_proj"),
    ("up_proj", "up_proj"),
    ("down_proj", "down_proj"),
];

/// Those that Mixtral gave them, and mlx-lm's.
pub const NUMBERED: [(&str, &str); 3] =
    [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")];

/// Has `{block}.experts.{e}.{from}.*` stacked to `{block}.switch_mlp.{to}.*`, mlx-lm's name and
/// layout, for each pair of `names`. Does nothing where there are no such tensors.
pub fn stack_experts(
    weights: &mut Weights<'_>,
    block: &str,
    experts: i32,
    names: &[(&str, &str)],
) -> Result<(), LoadError> {
    for (from, to) in names {
        for suffix in SUFFIXES {
            let name = |expert: i32| format!("{block}.experts.{expert}.{from}.{suffix}");
            if weights.contains(&name(0)) {
                stack(
                    weights,
                    format!("{block}.switch_mlp.{to}.{suffix}"),
                    experts,
                    name,
                )?;
            }
        }
    }
    Ok(())
}

/// Has `count` tensors of one shape stacked to `target`, the first of them called `name(0)`.
pub fn stack(
    weights: &mut Weights<'_>,
    target: String,
    count: i32,
    name: impl Fn(i32) -> String,
) -> Result<(), LoadError> {
    let parts = (0..count)
        .map(|expert| weights.part(&name(expert)))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(first) = parts.first() else {
        return Ok(());
    };
    let shape = [&[parts.len()], first.shape()].concat();
    let dtype = first.dtype();
    let stacked: Vec<i32> = shape.iter().map(|&dim| dim as i32).collect();
    weights.make(target, dtype, shape, parts, move |parts| {
        Array::concatenate(&parts.iter().collect::<Vec<_>>(), 0)?.reshape(&stacked)
    });
    Ok(())
}

/// Has a tensor known under another name.
pub fn rename(weights: &mut Weights<'_>, from: &str, to: String) -> Result<(), LoadError> {
    let part = weights.part(from)?;
    let (dtype, shape) = (part.dtype(), part.shape().to_vec());
    weights.make(to, dtype, shape, vec![part], first);
    Ok(())
}

/// Divides `name`, `[experts, 2 · rows, columns]`, into the upper and the lower half of each matrix.
pub fn split_rows(
    weights: &mut Weights<'_>,
    name: &str,
    halves: [String; 2],
) -> Result<(), LoadError> {
    let part = weights.part(name)?;
    let [experts, rows, columns] = *part.shape() else {
        return Err(misshapen(name, part.shape()));
    };
    for (place, half) in halves.into_iter().enumerate() {
        let shape = vec![experts, rows / 2, columns];
        let from = (place * (rows / 2)) as i32;
        let stop = [experts as i32, from + (rows / 2) as i32, columns as i32];
        weights.make(
            half,
            part.dtype(),
            shape,
            vec![part.clone()],
            move |parts| first(parts)?.slice(&[0, from, 0], &stop),
        );
    }
    Ok(())
}

/// Divides `name`, `[experts, rows, parts · columns]`, into matrices that are turned to `[columns, rows]`, one
/// for each of `targets`.
pub fn turn_columns(
    weights: &mut Weights<'_>,
    name: &str,
    targets: &[String],
) -> Result<(), LoadError> {
    let part = weights.part(name)?;
    let [experts, rows, columns] = *part.shape() else {
        return Err(misshapen(name, part.shape()));
    };
    let width = columns / targets.len().max(1);
    for (place, target) in targets.iter().enumerate() {
        let from = (place * width) as i32;
        let stop = [experts as i32, rows as i32, from + width as i32];
        weights.make(
            target.clone(),
            part.dtype(),
            vec![experts, width, rows],
            vec![part.clone()],
            move |parts| {
                let columns = first(parts)?.slice(&[0, 0, from], &stop)?;
                columns.transpose(&[0, 2, 1])
            },
        );
    }
    Ok(())
}

/// Divides `name`, `[experts, 2 · rows, ..]`, into the even and the odd rows of each matrix.
pub fn split_interleaved(
    weights: &mut Weights<'_>,
    name: &str,
    halves: [String; 2],
) -> Result<(), LoadError> {
    let part = weights.part(name)?;
    for (place, half) in halves.into_iter().enumerate() {
        let (dtype, mut shape) = unpacked(&part);
        let Some(rows) = shape.get_mut(1) else {
            return Err(misshapen(name, part.shape()));
        };
        *rows /= 2;
        let target: Vec<i32> = shape.iter().map(|&dim| dim as i32).collect();
        weights.make(half, dtype, shape, vec![part.clone()], move |parts| {
            words(&first(parts)?.every_other(1, place as i32)?, &target)
        });
    }
    Ok(())
}

/// Has the blocks of MXFP4 numbers, `[experts, rows, blocks, 16]` bytes, known as words under another
/// name; anything else as it is.
pub fn as_words(weights: &mut Weights<'_>, from: &str, to: String) -> Result<(), LoadError> {
    let part = weights.part(from)?;
    let (dtype, shape) = unpacked(&part);
    let target: Vec<i32> = shape.iter().map(|&dim| dim as i32).collect();
    weights.make(to, dtype, shape, vec![part], move |parts| {
        words(&first(parts)?, &target)
    });
    Ok(())
}

/// What [`words`] makes of a part.
fn unpacked(part: &Part) -> (safetensors::Dtype, Vec<usize>) {
    match *part.shape() {
        [experts, rows, blocks, bytes] if part.dtype() == safetensors::Dtype::U8 => (
            safetensors::Dtype::U32,
            vec![experts, rows, blocks * bytes / 4],
        ),
        ref shape => (part.dtype(), shape.to_vec()),
    }
}

/// Four dimensions of bytes as three of words; anything else as it is.
fn words(array: &Array, target: &[i32]) -> Result<Array, MlxError> {
    if array.shape().len() == 4 {
        return array.contiguous()?.view(Dtype::Uint32)?.reshape(target);
    }
    Ok(array.clone())
}

pub(super) fn first(parts: &[Array]) -> Result<Array, MlxError> {
    let first = parts.first().cloned();
    first.ok_or_else(|| MlxError::new("a tensor of nothing"))
}

pub(super) fn misshapen(name: &str, shape: &[usize]) -> LoadError {
    LoadError::config(name, format!("experts cannot have the shape {shape:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tensor, floats, to_bf16, write_tensors};
    use super::*;
    use crate::mlx::Dtype;

    fn expert(index: usize) -> [Tensor; 2] {
        [
            to_bf16(floats(&format!("mlp.experts.{index}.w1.weight"), &[4, 6])),
            floats(&format!("mlp.experts.{index}.w1.bias"), &[4]),
        ]
    }

    #[test]
    fn experts_that_lie_apart_become_one_tensor_each_of_the_same_size() {
        let dir = tempfile::tempdir().unwrap();
        let tensors: Vec<Tensor> = (0..3).flat_map(expert).collect();
        write_tensors(&dir.path().join("model.safetensors"), &tensors);
        let mut told = Vec::new();
        let mut tell = |progress: super::super::LoadProgress| told.push(progress.bytes);
        let mut weights = Weights::open(dir.path(), Some(Dtype::Float32), &mut tell).unwrap();
        stack_experts(
            &mut weights,
            "mlp",
            3,
            &[("w1", "gate_proj"), ("w2", "down_proj")],
        )
        .unwrap();
        assert_eq!(weights.memory_bytes(), 3 * (4 * 6 * 2 + 4 * 4));
        weights.start();
        assert_eq!(
            weights.shape("mlp.switch_mlp.gate_proj.bias"),
            Some(&[3, 4][..])
        );
        let stacked = weights
            .take_as_is("mlp.switch_mlp.gate_proj.weight", &[3, 4, 6])
            .unwrap();
        assert_eq!(stacked.dtype().unwrap(), Dtype::Bfloat16);
        weights
            .take("mlp.switch_mlp.gate_proj.bias", &[3, 4])
            .unwrap();
        weights.finish("mixtral").unwrap();
        assert_eq!(told.last(), Some(&(3 * (4 * 6 * 2 + 4 * 4))));
        let written: Vec<f32> = (0..3)
            .flat_map(|index| {
                let [(_, _, _, halves), _] = expert(index);
                halves
                    .chunks(2)
                    .map(|half| f32::from_le_bytes([0, 0, half[0], half[1]]))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(stacked.to_vec_f32().unwrap(), written);
    }

    #[test]
    fn an_expert_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let tensors: Vec<Tensor> = [0, 2].into_iter().flat_map(expert).collect();
        write_tensors(&dir.path().join("model.safetensors"), &tensors);
        let mut ignore = |_| {};
        let mut weights = Weights::open(dir.path(), None, &mut ignore).unwrap();
        let error = stack_experts(&mut weights, "mlp", 3, &[("w1", "gate_proj")]).unwrap_err();
        assert!(
            error.to_string().contains("mlp.experts.1.w1.weight"),
            "{error}"
        );
    }
}
