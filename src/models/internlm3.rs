//! InternLM3 (Shanghai AI Laboratory, 2025): Llama with biases where `config.json` says so. The reference
//! is mlx-lm's `models/internlm3.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, RopeConfig,
    only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct InternLm3Config {
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
    bias: Option<bool>,
    qkv_bias: Option<bool>,
    rope_traditional: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

/// InternLM3.
pub struct InternLm3;

impl Architecture for InternLm3 {
    type Config = InternLm3Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &InternLm3Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard(|name| name.ends_with("rope.inv_freq"));
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &InternLm3Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let context = config.max_position_embeddings.unwrap_or(32768);
        let rope = RopeConfig {
            theta: config.rope_theta,
            traditional: config.rope_traditional.unwrap_or(false),
            scaling: config.rope_scaling.clone(),
            parameters: config.rope_parameters.clone(),
            context: Some(context),
            ..RopeConfig::default()
        };
        let attention = AttentionConfig {
            qkv_bias: config.qkv_bias.unwrap_or(false),
            out_bias: config.qkv_bias.unwrap_or(false),
            ..AttentionConfig::plain(shape, rope)
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let eps = config.rms_norm_eps;
        let block = BlockConfig {
            hidden,
            inner: dimension("intermediate_size", config.intermediate_size)?,
            eps,
            activation: Activation::Silu,
            mlp_bias: config.bias.unwrap_or(false),
        };
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers: config.num_hidden_layers,
            context_length: context,
            tied: config.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        Decoder::build(
            builder,
            &decoder,
            |builder, _, path| block.pre_norm(builder, path, &attention),
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
