//! Small checkpoints for the tests of this layer.

use std::path::Path;

use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mlx::Device;

use super::{LoadError, LoadOptions, LoadProgress, Model, load};

/// A tensor to be written: name, type, shape, bytes.
pub type Tensor = (String, safetensors::Dtype, Vec<usize>, Vec<u8>);

/// A float32 tensor of small numbers that depend on its name.
pub fn floats(name: &str, shape: &[usize]) -> Tensor {
    let mut seed = name
        .bytes()
        .fold(7u32, |a, b| a.wrapping_mul(31).wrapping_add(b.into()));
    let bytes = (0..shape.iter().product())
        .flat_map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((f64::from(seed >> 8) / f64::from(1 << 24) - 0.5) as f32).to_le_bytes()
        })
        .collect();
    (
        name.to_owned(),
        safetensors::Dtype::F32,
        shape.to_vec(),
        bytes,
    )
}

/// The same tensor in bfloat16.
pub fn to_bf16((name, _, shape, bytes): Tensor) -> Tensor {
    // The upper half of a little-endian float32.
    let halves = bytes
        .chunks(4)
        .flat_map(|four| [four[2], four[3]])
        .collect();
    (name, safetensors::Dtype::BF16, shape, halves)
}

/// Writes a safetensors file.
pub fn write_tensors(path: &Path, tensors: &[Tensor]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// The configuration of [`llama_tensors`].
pub fn llama_config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "vocab_size": 40, "max_position_embeddings": 128, "tie_word_embeddings": true
    })
}

/// The tensors of a tiny Llama with tied embeddings.
pub fn llama_tensors() -> Vec<Tensor> {
    let mut tensors = vec![
        floats("model.embed_tokens.weight", &[40, 16]),
        floats("model.norm.weight", &[16]),
    ];
    for layer in 0..2 {
        for (name, shape) in [
            ("self_attn.q_proj", &[16, 16][..]),
            ("self_attn.k_proj", &[8, 16]),
            ("self_attn.v_proj", &[8, 16]),
            ("self_attn.o_proj", &[16, 16]),
            ("mlp.gate_proj", &[24, 16]),
            ("mlp.up_proj", &[24, 16]),
            ("mlp.down_proj", &[16, 24]),
            ("input_layernorm", &[16]),
            ("post_attention_layernorm", &[16]),
        ] {
            tensors.push(floats(
                &format!("model.layers.{layer}.{name}.weight"),
                shape,
            ));
        }
    }
    tensors
}

/// A model folder.
pub fn folder(config: &Value, tensors: &[Tensor]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    write_tensors(&dir.path().join("model.safetensors"), tensors);
    dir
}

/// Loads a folder on the CPU without a check of its memory.
pub fn load_cpu(dir: &Path) -> Result<Box<dyn Model>, LoadError> {
    load_with(dir, None, &mut |_| {})
}

/// Loads a folder on the CPU.
pub fn load_with(
    dir: &Path,
    available_memory: Option<u64>,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Box<dyn Model>, LoadError> {
    let options = LoadOptions {
        device: Device::Cpu,
        available_memory,
        adapter: None,
    };
    load(dir, &options, progress)
}

/// The text of the error that loading ends in.
pub fn load_error(config: &Value, tensors: &[Tensor]) -> String {
    match load_cpu(folder(config, tensors).path()) {
        Ok(_) => panic!("the model was loaded"),
        Err(error) => error.to_string(),
    }
}
