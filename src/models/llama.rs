//! Llama (Touvron et al., 2023), and what has its shape: Mistral without a sliding window, and many
//! more. The reference is mlx-lm's `models/llama.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Array, MlxError};

use super::batch::Batch;
use super::builder::{Builder, Dimensions};
use super::config::dimension;
use super::error::LoadError;
use super::kv_cache::KvCache;
use super::layers::{
    Attention, AttentionShape, Embedding, Linear, RmsNorm, Rope, RopeConfig, SwiGlu,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::{LayerState, Model, ModelInfo, Row, SequenceState};

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct LlamaConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_traditional: Option<bool>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
}

impl LlamaConfig {
    fn heads(&self) -> Result<AttentionShape, LoadError> {
        let heads = dimension("num_attention_heads", self.num_attention_heads)?;
        let kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        let kv_heads = dimension("num_key_value_heads", kv_heads)?;
        if heads % kv_heads != 0 {
            return Err(LoadError::config(
                "num_key_value_heads",
                format!("{heads} attention heads cannot share {kv_heads} key heads evenly"),
            ));
        }
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None => self.hidden_size / self.num_attention_heads,
        };
        let head_dim = dimension("head_dim", head_dim)?;
        // All heads together are a dimension as well.
        dimension("head_dim", heads as u64 * head_dim as u64)?;
        Ok(AttentionShape {
            heads,
            kv_heads,
            head_dim,
        })
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: self.rope_theta,
            traditional: self.rope_traditional.unwrap_or(false),
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
        }
    }

    /// transformers' own default.
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(2048)
    }

    fn check(&self) -> Result<(), LoadError> {
        if let Some(act) = &self.hidden_act
            && !matches!(act.as_str(), "silu" | "swish")
        {
            let message = format!("\"{act}\" is not supported; supported is \"silu\"");
            return Err(LoadError::config("hidden_act", message));
        }
        let window = self
            .sliding_window
            .filter(|_| self.use_sliding_window != Some(false));
        if let Some(window) = window.filter(|&window| window < self.context_length()) {
            let message = format!("a window of {window} positions is not supported yet");
            return Err(LoadError::config("sliding_window", message));
        }
        let mut types = self.layer_types.iter().flatten();
        if let Some(other) = types.find(|kind| *kind != "full_attention") {
            let message = format!("\"{other}\" is not supported; supported is \"full_attention\"");
            return Err(LoadError::config("layer_types", message));
        }
        Ok(())
    }
}

/// The model.
pub struct Llama {
    info: ModelInfo,
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `None` where the embeddings are tied.
    lm_head: Option<Linear>,
}

struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: SwiGlu,
}

impl Architecture for Llama {
    type Config = LlamaConfig;

    fn sanitize(config: &LlamaConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        config.check()?;
        // Frequencies that old versions of transformers saved; they are computed here.
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
        if config.tie_word_embeddings == Some(true) {
            weights.discard(|name| name.starts_with("lm_head."));
        }
        Ok(())
    }

    fn build(config: &LlamaConfig, builder: &mut Builder<'_, '_>) -> Result<Self, LoadError> {
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let vocab = dimension("vocab_size", config.vocab_size)?;
        let heads = config.heads()?;
        let embed_tokens = builder.embedding("model.embed_tokens", vocab, hidden)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::build(config, hidden, heads, index, builder))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = builder.rms_norm("model.norm", hidden, config.rms_norm_eps)?;
        // Where `config.json` does not say, a checkpoint that has a head of its own means it.
        let own_head = match config.tie_word_embeddings {
            Some(tied) => !tied,
            None => builder.contains("lm_head.weight"),
        };
        let lm_head = match own_head {
            true => Some(builder.linear("lm_head", hidden, vocab, false)?),
            false => None,
        };
        let state = 2 * i64::from(heads.kv_heads) * i64::from(heads.head_dim);
        let info = builder.info(Dimensions {
            vocab_size: vocab as usize,
            context_length: config.context_length(),
            state_per_token: layers.len() as u64 * state as u64,
        });
        Ok(Self {
            info,
            embed_tokens,
            layers,
            norm,
            lm_head,
        })
    }
}

impl Layer {
    fn build(
        config: &LlamaConfig,
        hidden: i32,
        shape: AttentionShape,
        index: usize,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self, LoadError> {
        let path = format!("model.layers.{index}");
        let inner = dimension("intermediate_size", config.intermediate_size)?;
        let queries = shape.heads * shape.head_dim;
        let keys = shape.kv_heads * shape.head_dim;
        let eps = config.rms_norm_eps;
        let mut attention = |name: &str, inputs, outputs| {
            let path = format!("{path}.self_attn.{name}");
            builder.linear(
                &path,
                inputs,
                outputs,
                config.attention_bias.unwrap_or(false),
            )
        };
        let self_attn = Attention {
            q_proj: attention("q_proj", hidden, queries)?,
            k_proj: attention("k_proj", hidden, keys)?,
            v_proj: attention("v_proj", hidden, keys)?,
            o_proj: attention("o_proj", queries, hidden)?,
            rope: Rope::new(shape.head_dim, &config.rope())?,
            shape,
        };
        let mut mlp = |name: &str, inputs, outputs| {
            builder.linear(
                &format!("{path}.mlp.{name}"),
                inputs,
                outputs,
                config.mlp_bias.unwrap_or(false),
            )
        };
        let mlp = SwiGlu {
            gate: mlp("gate_proj", hidden, inner)?,
            up: mlp("up_proj", hidden, inner)?,
            down: mlp("down_proj", inner, hidden)?,
        };
        let mut norm = |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            self_attn,
            mlp,
        })
    }

    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        index: usize,
    ) -> Result<Array, MlxError> {
        let attended = self
            .self_attn
            .forward(&self.input_layernorm.forward(x)?, batch, index)?;
        let x = x.add(&attended)?;
        let normed = self.post_attention_layernorm.forward(&x)?;
        self.mlp.forward_add(&normed, &x)
    }
}

impl Model for Llama {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn new_state(&self) -> SequenceState {
        let kv = |_| LayerState::Kv(KvCache::new());
        SequenceState::new((0..self.layers.len()).map(kv).collect())
    }

    fn forward(&self, tokens: &Array, rows: &mut [Row<'_>]) -> Result<Option<Array>, MlxError> {
        let mut batch = Batch::new(tokens, rows)?;
        let mut x = self.embed_tokens.forward(tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &mut batch, index)?;
        }
        batch.finish(&x, |x| {
            let x = self.norm.forward(x)?;
            match &self.lm_head {
                Some(head) => head.forward(&x),
                None => self.embed_tokens.as_linear(&x),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{
        floats, folder, llama_config, llama_tensors, load_cpu, load_error, load_with, to_bf16,
    };
    use super::*;
    use crate::models::{Logits, StateSize, token_ids};

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
            ("sliding_window", json!(64)),
            (
                "layer_types",
                json!(["full_attention", "sliding_attention"]),
            ),
            ("num_key_value_heads", json!(3)),
            ("hidden_size", json!(0)),
            ("head_dim", json!(0)),
            ("head_dim", json!(1 << 28)),
            ("rope_scaling", json!({"type": "yarn", "factor": 4.0})),
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

    #[test]
    fn a_window_that_cuts_nothing_off_is_fine() {
        for (key, value) in [
            ("sliding_window", json!(null)),
            ("sliding_window", json!(128)),
            ("model_type", json!("mistral")),
            ("layer_types", json!(["full_attention", "full_attention"])),
        ] {
            let mut config = llama_config();
            config[key] = value;
            assert!(
                load_cpu(folder(&config, &llama_tensors()).path()).is_ok(),
                "{key}"
            );
        }
        let mut config = llama_config();
        config["sliding_window"] = json!(64);
        config["use_sliding_window"] = json!(false);
        assert!(load_cpu(folder(&config, &llama_tensors()).path()).is_ok());
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
