//! Qwen2 and Qwen2.5 (Yang et al., 2024): Llama with biases on queries, keys and values. The reference is
//! mlx-lm's `models/qwen2.py`.

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
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Qwen2Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    rope_traditional: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// Qwen2.
pub struct Qwen2;

impl Architecture for Qwen2 {
    type Config = Qwen2Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Qwen2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Qwen2Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            Some(config.num_key_value_heads),
            None,
        )?;
        let context = config.max_position_embeddings.unwrap_or(32768);
        let rope = RopeConfig {
            theta: config.rope_theta.or(Some(1e6)),
            traditional: config.rope_traditional.unwrap_or(false),
            scaling: config.rope_scaling.clone(),
            parameters: config.rope_parameters.clone(),
            context: Some(context),
            ..RopeConfig::default()
        };
        let attention = AttentionConfig {
            qkv_bias: true,
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
