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
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_traditional: bool,
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
        Ok(AttentionShape {
            heads,
            kv_heads,
            head_dim: dimension("head_dim", head_dim)?,
        })
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: self.rope_theta,
            traditional: self.rope_traditional,
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
            builder.linear(&path, inputs, outputs, config.attention_bias)
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
                config.mlp_bias,
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
        x.add(
            &self
                .mlp
                .forward(&self.post_attention_layernorm.forward(&x)?)?,
        )
    }
}

impl Model for Llama {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn new_state(&self) -> SequenceState {
        SequenceState {
            layers: self
                .layers
                .iter()
                .map(|_| LayerState::Kv(KvCache::new()))
                .collect(),
            len: 0,
        }
    }

    fn forward(&self, rows: &mut [Row<'_>]) -> Result<Vec<Option<Array>>, MlxError> {
        let (mut batch, tokens) = Batch::new(rows, self.info.vocab_size)?;
        let mut x = self.embed_tokens.forward(&tokens)?;
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
