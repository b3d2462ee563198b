//! Tests of what `config.json` looks like in checkpoints that people have: written by transformers old and
//! new, by mlx-lm, by hand.

use serde_json::{Value, json};

use super::testing::{Tensor, floats, folder, llama_config, llama_tensors, load_cpu, load_error};
use super::{Logits, Row, token_ids};

/// `base` with the fields of `changes`; null takes one away.
fn with(mut base: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        base[key] = value.clone();
        if value.is_null() {
            base.as_object_mut().unwrap().remove(key);
        }
    }
    base
}

/// The logits behind a few tokens.
fn logits(config: &Value, tensors: &[Tensor]) -> Vec<f32> {
    let model = load_cpu(folder(config, tensors).path()).unwrap();
    let mut state = model.new_state();
    let row = Row {
        len: 5,
        state: &mut state,
        logits: Logits::Last,
    };
    let tokens = token_ids(&[3, 1, 4, 1, 5], model.info().vocab_size).unwrap();
    let logits = model.forward(&tokens, &mut [row]).unwrap();
    logits.unwrap().to_vec_f32().unwrap()
}

#[test]
fn what_says_nothing_changes_nothing() {
    let plain = llama_config();
    let expected = logits(&plain, &llama_tensors());
    let mut nulls = plain.clone();
    for key in [
        "attention_bias",
        "attention_dropout",
        "bos_token_id",
        "head_dim",
        "hidden_act",
        "layer_types",
        "mlp_bias",
        "quantization",
        "quantization_config",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "rope_traditional",
        "sliding_window",
        "text_config",
        "use_sliding_window",
    ] {
        nulls[key] = Value::Null;
    }
    let common = json!({"architectures": ["LlamaForCausalLM"], "eos_token_id": [1, 2, 3], "dtype": "bfloat16",
        "torch_dtype": "bfloat16", "use_cache": true, "pretraining_tp": 1, "transformers_version": "5.1.0",
        "initializer_range": 0.02, "rope_interleaved": false, "partial_rotary_factor": 1.0});
    for config in [
        nulls,
        with(plain.clone(), &common),
        // Tied as the checkpoint has no head.
        with(plain.clone(), &json!({"tie_word_embeddings": null})),
        with(plain.clone(), &json!({"head_dim": 4})),
        with(plain.clone(), &json!({"rope_theta": 10000})),
        with(plain.clone(), &json!({"rope_scaling": {}})),
        with(
            plain,
            &json!({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
        ),
    ] {
        assert_eq!(logits(&config, &llama_tensors()), expected, "{config}");
    }
}

#[test]
fn as_many_key_heads_as_others_where_nothing_is_said() {
    let mut tensors = llama_tensors();
    for (name, _, shape, bytes) in &mut tensors {
        if name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight") {
            (_, _, *shape, *bytes) = floats(name, &[16, 16]);
        }
    }
    let stated = with(llama_config(), &json!({"num_key_value_heads": 4}));
    let expected = logits(&stated, &tensors);
    let silent = with(llama_config(), &json!({"num_key_value_heads": null}));
    assert_eq!(logits(&silent, &tensors), expected);
    let mut null = silent;
    null["num_key_value_heads"] = Value::Null;
    assert_eq!(logits(&null, &tensors), expected);
}

#[test]
fn a_stretching_of_positions_is_read_in_all_its_forms() {
    let forms = [
        json!({"rope_scaling": {"type": "linear", "factor": 4.0}}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 4}}),
        json!({"rope_scaling": {"type": null, "rope_type": "linear", "factor": 4}}),
        json!({"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4, "low_freq_factor": null}}),
        json!({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
        json!({"rope_scaling": {"type": "linear", "factor": 4.0},
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0, "mrope_section": [1, 1],
            "original_max_position_embeddings": 32, "finetuned": true}}),
    ];
    let plain = logits(&llama_config(), &llama_tensors());
    let [first, ..] = &forms;
    let expected = logits(&with(llama_config(), first), &llama_tensors());
    assert_ne!(expected, plain);
    for form in &forms {
        let config = with(llama_config(), form);
        assert_eq!(logits(&config, &llama_tensors()), expected, "{form}");
    }
}

#[test]
fn an_amplitude_that_is_stated_is_taken() {
    let yarn = |more: Value| {
        let plain =
            json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16});
        let config = with(llama_config(), &json!({"rope_scaling": with(plain, &more)}));
        logits(&config, &llama_tensors())
    };
    let computed = yarn(json!({}));
    // As OLMo 3 states it.
    let stated = yarn(json!({"attention_factor": 0.1 * 8.0_f64.ln() + 1.0}));
    assert_eq!(stated, computed);
    assert_ne!(yarn(json!({"attention_factor": 1.0})), computed);
}

#[test]
fn the_whole_says_whether_the_head_of_its_language_model_is_tied() {
    let head = floats("lm_head.weight", &[40, 16]);
    let alone = [llama_tensors(), vec![head.clone()]].concat();
    let untied = with(llama_config(), &json!({"tie_word_embeddings": false}));
    let expected = logits(&untied, &alone);
    assert_ne!(expected, logits(&llama_config(), &llama_tensors()));
    let inner = |(name, dtype, shape, bytes): Tensor| {
        let name = name
            .strip_prefix("model.")
            .map(|name| format!("model.language_model.{name}"));
        (
            name.unwrap_or("lm_head.weight".to_owned()),
            dtype,
            shape,
            bytes,
        )
    };
    let text = with(llama_config(), &json!({"tie_word_embeddings": null}));
    let whole = json!({"model_type": "llava", "tie_word_embeddings": false, "text_config": text,
        "vision_config": {"hidden_size": 3}});
    let tensors: Vec<Tensor> = alone.into_iter().map(inner).collect();
    assert_eq!(logits(&whole, &tensors), expected);
}

#[test]
fn one_section_of_quantization_is_as_good_as_both() {
    let packed = |name: &str, rows: usize, columns: usize| {
        let words = (
            format!("{name}.weight"),
            safetensors::Dtype::U32,
            vec![rows, columns / 8],
            vec![0x5A; rows * columns / 2],
        );
        [
            words,
            floats(&format!("{name}.scales"), &[rows, columns / 32]),
            floats(&format!("{name}.biases"), &[rows, columns / 32]),
        ]
    };
    // Wide enough for a group.
    let wide = json!({"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 4});
    let mut tensors = Vec::new();
    for (name, _, shape, _) in llama_tensors() {
        match shape.as_slice() {
            [_] => tensors.push(floats(&name, &[32])),
            [vocab @ 40, _] => tensors.push(floats(&name, &[*vocab, 32])),
            _ => tensors.extend(packed(name.strip_suffix(".weight").unwrap(), 32, 32)),
        }
    }
    let section = json!({"group_size": 32, "bits": 4, "model.embed_tokens": false});
    let config = with(llama_config(), &wide);
    let expected = logits(
        &with(config.clone(), &json!({"quantization": section})),
        &tensors,
    );
    for sections in [
        json!({"quantization": section, "quantization_config": section}),
        json!({"quantization_config": section}),
        json!({"quantization": with(section.clone(), &json!({"mode": "affine"}))}),
    ] {
        assert_eq!(
            logits(&with(config.clone(), &sections), &tensors),
            expected,
            "{sections}"
        );
    }
}

#[test]
fn what_cannot_be_is_named() {
    for (changes, words) in [
        (json!({"model_type": null}), "model_type: is missing"),
        (json!({"model_type": "t5"}), "supported are: cohere, "),
        (json!({"hidden_size": null}), "hidden_size"),
        (json!({"hidden_size": "16"}), "hidden_size: invalid type"),
        (json!({"vocab_size": null}), "vocab_size: is missing"),
        (json!({"rms_norm_eps": null}), "rms_norm_eps: is missing"),
        (
            json!({"model_type": "helium", "max_position_embeddings": null}),
            "max_position_embeddings: is missing",
        ),
        (json!({"hidden_size": -16}), "hidden_size"),
        (
            json!({"num_attention_heads": 0}),
            "num_attention_heads: 0 is not a possible size",
        ),
        (
            json!({"num_key_value_heads": 3}),
            "4 attention heads cannot share 3",
        ),
        (json!({"head_dim": 3}), "config.json asks for [12, 16]"),
        (json!({"rope_theta": "big"}), "rope_theta"),
        (json!({"rope_scaling": [1]}), "rope_scaling"),
        (json!({"rope_scaling": {"type": "spiral"}}), "spiral"),
        (
            json!({"rope_parameters": {"rope_type": "linear"}}),
            "factor",
        ),
        (
            json!({"layer_types": ["full_attention"]}),
            "1 types for 2 layers",
        ),
        (json!({"hidden_act": "mish"}), "mish"),
        (json!({"tie_word_embeddings": "yes"}), "tie_word_embeddings"),
        (json!({"quantization": 4}), "quantization"),
        (
            json!({"quantization": {"bits": 7, "group_size": 64}}),
            "quantization",
        ),
        (
            json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}),
            "fp8",
        ),
        (
            json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
            "gptq",
        ),
        (
            json!({"quantization_config": {"quant_method": "awq", "bits": 4}}),
            "awq",
        ),
        (
            json!({"quantization_config": {"quant_method": "compressed-tensors"}}),
            "compressed-tensors",
        ),
    ] {
        let error = load_error(&with(llama_config(), &changes), &llama_tensors());
        assert!(error.contains(words), "{changes}: {error}");
    }
}
