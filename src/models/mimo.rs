//! MiMo (Xiaomi, 2025): Qwen2's shape beside layers that predict further tokens, which are left out. The
//! reference is mlx-lm's `models/mimo.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, Decoder, RopeConfig, only_activation};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct MimoConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    rope_traditional: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl MimoConfig {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: None,
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings.unwrap_or(32768),
            tied: self.tie_word_embeddings,
            rope: RopeConfig {
                theta: self.rope_theta,
                traditional: self.rope_traditional.unwrap_or(false),
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// MiMo.
pub struct Mimo;

impl Architecture for Mimo {
    type Config = MimoConfig;
    type Model = Decoder<Block>;

    fn sanitize(config: &MimoConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard(|name| {
            name.starts_with("model.mtp_layers.") || name.ends_with("rotary_emb.inv_freq")
        });
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &MimoConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let dense = config.dense();
        let attention = AttentionConfig {
            qkv_bias: true,
            ..dense.attention()?
        };
        dense.build(builder, &attention, &dense.block(Activation::Silu)?)
    }
}
