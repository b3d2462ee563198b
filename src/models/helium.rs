//! Helium 1 (Kyutai, 2025): Llama whose features turn in neighbouring pairs. The reference is mlx-lm's
//! `models/helium.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, BlockConfig, Decoder, RopeConfig, only_activation};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct HeliumConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: usize,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Map<String, Value>>,
}

impl HeliumConfig {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings,
            tied: self.tie_word_embeddings,
            rope: RopeConfig {
                theta: self.rope_theta,
                traditional: true,
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// Helium.
pub struct Helium;

impl Architecture for Helium {
    type Config = HeliumConfig;
    type Model = Decoder<Block>;

    fn sanitize(config: &HeliumConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &HeliumConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let dense = config.dense();
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            ..dense.attention()?
        };
        let block = BlockConfig {
            mlp_bias: config.mlp_bias,
            ..dense.block(Activation::Silu)?
        };
        dense.build(builder, &attention, &block)
    }
}
