//! Experts that a checkpoint keeps one by one, as transformers does.

use crate::mlx::Array;

use super::error::LoadError;
use super::weights::Weights;

/// What a layer consists of, dense or quantized.
const SUFFIXES: [&str; 4] = ["weight", "scales", "biases", "bias"];

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

fn stack(
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
