//! Llama (Touvron et al., 2023), and what has its shape: Mistral, and many more. The reference is
//! mlx-lm's `models/llama.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, BlockConfig, Decoder};
use super::variant::{Common, Variant};
use super::windows::Windows;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LlamaConfig {
    model_type: Option<String>,
    attention_bias: bool,
    mlp_bias: bool,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
}

impl LlamaConfig {
    /// The window of each layer. Where `layer_types` do not say which layers have one, all of Mistral's
    /// do, as in transformers (mlx-lm has none then).
    fn windows(&self, common: &Common) -> Result<Windows, LoadError> {
        let types = self.layer_types.as_deref();
        let stated = types.is_some() || self.model_type.as_deref() == Some("mistral");
        let used = stated && self.use_sliding_window != Some(false);
        common.windows(types, self.sliding_window.filter(|_| used), |_| true)
    }
}

/// Llama.
pub struct Llama;

impl Variant for Llama {
    type Own = LlamaConfig;
    type Layer = Block;

    fn complete(_: &LlamaConfig, common: &mut Common) {
        // transformers' own default.
        common.context.get_or_insert(2048);
    }

    fn build(
        own: &LlamaConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = common.attention()?.with_biases(own.attention_bias);
        let windows = own.windows(common)?;
        let block = BlockConfig {
            mlp_bias: own.mlp_bias,
            ..common.block()?
        };
        common.build(builder, |builder, index, path| {
            block.pre_norm(builder, path, &attention.with_window(windows.of(index)))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{
        floats, folder, llama_config, llama_tensors, load_cpu, load_error, load_with, to_bf16,
    };
    use crate::models::{LoadError, Logits, Model, Row, SequenceState, StateSize, token_ids};

    fn model() -> Box<dyn Model> {
        load_cpu(folder(&llama_config(), &llama_tensors()).path()).unwrap()
    }

    /// Appends `tokens` to `state`, and reads the logits.
    fn step(
        model: &dyn Model,
        state: &mut SequenceState,
        tokens: &[u32],
        logits: Logits,
    ) -> Option<Vec<f32>> {
        let row = Row {
            len: tokens.len(),
            state,
            logits,
        };
        let tokens = token_ids(tokens, model.info().vocab_size).unwrap();
        let logits = model.forward(&tokens, &mut [row]).unwrap();
        logits.map(|logits| logits.to_vec_f32().unwrap())
    }

    #[test]
    fn its_facts_are_told() {
        let model = model();
        let info = model.info();
        assert_eq!(info.architecture, "llama");
        assert_eq!((info.vocab_size, info.context_length), (40, 128));
        let parameters: usize = llama_tensors()
            .iter()
            .map(|(_, _, shape, _)| shape.iter().product::<usize>())
            .sum();
        assert_eq!(info.parameters, parameters as u64);
        assert_eq!(info.weight_bytes, 4 * parameters as u64);
        assert_eq!(info.state, StateSize::growing(2 * 2 * 2 * 4 * 4));
        assert_eq!(
            (info.dtype.as_str(), &info.quantization),
            ("float32", &None)
        );
    }

    /// Bits, not about equal: the prefix cache and preemption rely on it.
    #[test]
    fn a_prompt_in_any_chunks_gives_the_logits_of_the_whole() {
        let model = model();
        let prompt: Vec<u32> = (0..97).map(|i| i * 7 % 40).collect();
        let all = step(&*model, &mut model.new_state(), &prompt, Logits::All).unwrap();
        assert_eq!(all.len(), 97 * 40);
        for chunk in [1, 2, 5, 16, 33, 96] {
            let mut state = model.new_state();
            let chunks = prompt.chunks(chunk);
            let parts =
                chunks.flat_map(|chunk| step(&*model, &mut state, chunk, Logits::All).unwrap());
            assert_eq!(bits(parts), bits(all.iter().copied()), "chunks of {chunk}");
            assert_eq!(state.len, 97);
        }
        let last = step(&*model, &mut model.new_state(), &prompt, Logits::Last).unwrap();
        assert_eq!(bits(last), bits(all[96 * 40..].iter().copied()));
    }

    fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
        values.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn rows_of_a_ragged_batch_get_what_they_get_alone() {
        let model = model();
        let wishes = [
            (&[1, 2, 3][..], &[4, 5][..], Logits::All),
            (&[7], &[8], Logits::Last),
            (&[9, 10], &[11, 12, 13], Logits::None),
            (&[30, 31, 32, 33], &[34, 35, 36], Logits::Last),
        ];
        let past_of = |past: &[u32]| {
            let mut state = model.new_state();
            step(&*model, &mut state, past, Logits::None);
            state
        };
        let alone: Vec<f32> = wishes
            .iter()
            .filter_map(|(past, tokens, logits)| step(&*model, &mut past_of(past), tokens, *logits))
            .flatten()
            .collect();
        let mut states: Vec<_> = wishes.iter().map(|(past, ..)| past_of(past)).collect();
        let mut rows: Vec<_> = states
            .iter_mut()
            .zip(wishes)
            .map(|(state, (_, tokens, logits))| Row {
                len: tokens.len(),
                state,
                logits,
            })
            .collect();
        let tokens: Vec<u32> = wishes
            .iter()
            .flat_map(|(_, tokens, _)| *tokens)
            .copied()
            .collect();
        let tokens = token_ids(&tokens, 40).unwrap();
        let together = model.forward(&tokens, &mut rows).unwrap().unwrap();
        assert_eq!(together.shape(), [4, 40]);
        assert_eq!(bits(together.to_vec_f32().unwrap()), bits(alone));
        for (mut state, (past, tokens, _)) in states.into_iter().zip(wishes) {
            assert_eq!(state.len, past.len() + tokens.len());
            let whole = &[past, tokens, &[5]].concat();
            let expected = step(&*model, &mut model.new_state(), whole, Logits::Last);
            let next = step(&*model, &mut state, &[5], Logits::Last);
            assert_eq!(bits(next.unwrap()), bits(expected.unwrap()));
        }
    }

    #[test]
    fn tokens_that_cannot_be_are_errors() {
        let model = model();
        assert!(token_ids(&[1, 40], 40).is_err());
        for (len, tokens) in [(0, &[][..]), (1, &[1, 2])] {
            let row = Row {
                len,
                state: &mut model.new_state(),
                logits: Logits::Last,
            };
            let tokens = token_ids(tokens, 40).unwrap();
            assert!(model.forward(&tokens, &mut [row]).is_err());
        }
    }

    #[test]
    fn a_head_of_its_own_is_used_unless_tied() {
        let mut tensors = llama_tensors();
        tensors.push(floats("lm_head.weight", &[40, 16]));
        tensors.push(floats("model.layers.0.self_attn.rotary_emb.inv_freq", &[2]));
        let logits = |tie: Value| {
            let mut config = llama_config();
            config["tie_word_embeddings"] = tie;
            let model = load_cpu(folder(&config, &tensors).path()).unwrap();
            step(&*model, &mut model.new_state(), &[1, 2], Logits::Last).unwrap()
        };
        assert_eq!(logits(json!(null)), logits(json!(false)));
        assert_ne!(logits(json!(true)), logits(json!(false)));
    }

    #[test]
    fn biases_are_added_where_the_config_says_so() {
        let mut config = llama_config();
        config["mlp_bias"] = json!(true);
        let error = load_error(&config, &llama_tensors());
        assert!(
            error.contains("model.layers.0.mlp.gate_proj.bias is missing"),
            "{error}"
        );
        let mut tensors = llama_tensors();
        for layer in 0..2 {
            for (name, size) in [("gate_proj", 24), ("up_proj", 24), ("down_proj", 16)] {
                tensors.push(floats(
                    &format!("model.layers.{layer}.mlp.{name}.bias"),
                    &[size],
                ));
            }
        }
        let biased = load_cpu(folder(&config, &tensors).path()).unwrap();
        let of =
            |model: &dyn Model| step(model, &mut model.new_state(), &[1, 2], Logits::Last).unwrap();
        assert_ne!(of(&*biased), of(&*model()));
        // Without the switch, nobody takes them.
        let error = load_error(&llama_config(), &tensors);
        assert!(
            error.contains("6 tensors that llama has no place for"),
            "{error}"
        );
    }

    #[test]
    fn half_precision_is_computed_in_float32() {
        let tensors: Vec<_> = llama_tensors().into_iter().map(to_bf16).collect();
        let model = load_cpu(folder(&llama_config(), &tensors).path()).unwrap();
        let parameters = model.info().parameters;
        // Matrices stay as they are; the five norms of 16 features become float32.
        assert_eq!(model.info().weight_bytes, 2 * parameters + 2 * 5 * 16);
        assert_eq!(model.info().dtype, "float32");
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_before_loading() {
        let dir = folder(&llama_config(), &llama_tensors());
        let mut loaded = false;
        let mut progress = |_| loaded = true;
        let result = load_with(dir.path(), Some(1000), &mut progress);
        let needed = model().info().weight_bytes;
        assert!(matches!(
            result,
            Err(LoadError::TooLarge { needed: n, available: 1000 }) if n == needed
        ));
        assert!(!loaded);
        assert!(load_with(dir.path(), Some(needed), &mut |_| {}).is_ok());
    }

    #[test]
    fn what_would_change_the_arithmetic_is_refused_by_name() {
        for (key, value) in [
            ("hidden_act", json!("gelu")),
            ("layer_types", json!(["full_attention", "linear_attention"])),
            ("layer_types", json!(["full_attention"])),
            ("num_key_value_heads", json!(3)),
            ("hidden_size", json!(0)),
            ("head_dim", json!(0)),
            ("head_dim", json!(1 << 28)),
            ("rope_scaling", json!({"type": "spiral", "factor": 4.0})),
            ("final_logit_softcapping", json!(30.0)),
            ("rms_norm_eps", json!("small")),
            ("quantization", json!({"group_size": 64, "bits": 7})),
        ] {
            let mut config = llama_config();
            config[key] = value;
            let error = load_error(&config, &llama_tensors());
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    /// mlx-lm has no window without `layer_types`, transformers does.
    #[test]
    fn mistrals_window_is_that_of_every_layer() {
        let prompt: Vec<u32> = (0..40).map(|i| i * 7 % 40).collect();
        let logits = |changes: Value| {
            let mut config = llama_config();
            config
                .as_object_mut()
                .unwrap()
                .extend(changes.as_object().unwrap().clone());
            let model = load_cpu(folder(&config, &llama_tensors()).path()).unwrap();
            step(&*model, &mut model.new_state(), &prompt, Logits::Last).unwrap()
        };
        let types = json!(["sliding_attention", "sliding_attention"]);
        let windowed = logits(json!({"sliding_window": 8, "layer_types": types}));
        let whole = logits(json!({}));
        assert_ne!(windowed, whole);
        assert_eq!(
            logits(json!({"model_type": "mistral", "sliding_window": 8})),
            windowed
        );
        for unused in [
            json!({"sliding_window": 8}),
            json!({"model_type": "mistral", "sliding_window": null}),
            json!({"model_type": "mistral", "sliding_window": 128}),
            json!({"model_type": "mistral", "sliding_window": 8, "use_sliding_window": false}),
        ] {
            assert_eq!(logits(unused), whole);
        }
    }

    /// What it carries is bounded, and a prompt in chunks is that prompt.
    #[test]
    fn a_window_is_exact_under_chunking_and_bounds_the_state() {
        let mut config = llama_config();
        config["max_position_embeddings"] = json!(4096);
        config["sliding_window"] = json!(70);
        config["layer_types"] = json!(["sliding_attention", "full_attention"]);
        let model = load_cpu(folder(&config, &llama_tensors()).path()).unwrap();
        let prompt: Vec<u32> = (0..900).map(|i| i * 7 % 40).collect();
        let whole = step(&*model, &mut model.new_state(), &prompt, Logits::Last).unwrap();
        for chunk in [1, 57, 256, 300] {
            let mut state = model.new_state();
            let last = prompt.chunks(chunk).fold(None, |_, chunk| {
                step(&*model, &mut state, chunk, Logits::Last)
            });
            assert_eq!(
                bits(last.unwrap()),
                bits(whole.clone()),
                "chunks of {chunk}"
            );
        }
        let size = &model.info().state;
        assert_eq!(size.per_token, 2 * 2 * 4 * 4);
        assert_eq!(size.windows.len(), 1);
        assert_eq!(size.windows[0].positions, 512);
        assert_eq!(size.windows[0].per_token, 2 * 2 * 4 * 4);
    }

    #[test]
    fn a_shape_that_contradicts_the_config_names_both() {
        let mut config = llama_config();
        config["intermediate_size"] = json!(32);
        let error = load_error(&config, &llama_tensors());
        for part in [
            "gate_proj.weight",
            "model.safetensors",
            "[24, 16]",
            "[32, 16]",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
