//! What loading takes of the memory beside the mapped file. MLX counts for the whole process, so this test has one of
//! its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use mlxcel::mlx::{Device, Memory};
use mlxcel::models::{LoadOptions, load};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const HIDDEN: usize = 256;
const VOCAB: usize = 64;

#[test]
fn halves_of_a_fused_matrix_stay_in_the_file() {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for (name, shape) in [
        ("self_attn.qkv_proj", vec![3 * HIDDEN, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
        ("mlp.gate_up_proj", vec![4 * HIDDEN, HIDDEN]),
        ("mlp.down_proj", vec![HIDDEN, 2 * HIDDEN]),
        ("input_layernorm", vec![HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
    ] {
        shapes.push((format!("model.layers.0.{name}.weight"), shape));
    }
    let numbers = vec![1; 2 * 4 * HIDDEN * HIDDEN];
    let views = shapes.iter().map(|(name, shape)| {
        let bytes = 2 * shape.iter().product::<usize>();
        let view = TensorView::new(Dtype::BF16, shape.clone(), &numbers[..bytes]);
        (name.as_str(), view.unwrap())
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
    let config = serde_json::json!({
        "model_type": "phi3", "hidden_size": HIDDEN, "num_hidden_layers": 1,
        "intermediate_size": 2 * HIDDEN, "num_attention_heads": 4, "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB, "max_position_embeddings": 128, "tie_word_embeddings": true
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();

    let options = LoadOptions {
        device: Device::Cpu,
        available_memory: None,
        adapter: None,
    };
    let model = load(dir.path(), &options, &mut |_| {}).unwrap();
    let (peak, weights) = (Memory::now().peak, model.info().weight_bytes);
    assert!(
        peak < weights / 10,
        "{peak} bytes beside {weights} of weights"
    );
}
