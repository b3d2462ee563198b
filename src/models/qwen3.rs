//! Qwen3 (Yang et al., 2025): Llama with norms on each head's query and key. The reference is mlx-lm's
//! `models/qwen3.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, NormOver,
    RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Qwen3Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    head_dim: u64,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: usize,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// Qwen3.
pub struct Qwen3;

impl Architecture for Qwen3 {
    type Config = Qwen3Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Qwen3Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Qwen3Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            Some(config.num_key_value_heads),
            Some(config.head_dim),
        )?;
        let context = config.max_position_embeddings;
        let rope = RopeConfig {
            theta: config.rope_theta,
            scaling: config.rope_scaling.clone(),
            parameters: config.rope_parameters.clone(),
            context: Some(context),
            ..RopeConfig::default()
        };
        let bias = config.attention_bias.unwrap_or(false);
        let attention = AttentionConfig {
            qkv_bias: bias,
            out_bias: bias,
            norms: Some((NormOver::Heads, config.rms_norm_eps)),
            ..AttentionConfig::plain(shape, rope)
        };
        let windows = windows::qwen(
            config.num_hidden_layers,
            config.layer_types.as_deref(),
            config
                .sliding_window
                .filter(|_| config.use_sliding_window == Some(true)),
            config.max_window_layers,
            context,
        )?;
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let eps = config.rms_norm_eps;
        let block = BlockConfig {
            hidden,
            inner: dimension("intermediate_size", config.intermediate_size)?,
            eps,
            activation: Activation::Silu,
            mlp_bias: false,
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
            |builder, index, path| {
                block.pre_norm(builder, path, &attention.with_window(windows.of(index)))
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
