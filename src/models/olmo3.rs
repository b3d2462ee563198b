//! OLMo 3 (Ai2, 2025): OLMo 2 with a sliding window in three layers of four. The reference is mlx-lm's
//! `models/olmo3.py`.

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
pub struct Olmo3Config {
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
    attention_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: u64,
    layer_types: Option<Vec<String>>,
}

/// OLMo 3.
pub struct Olmo3;

impl Architecture for Olmo3 {
    type Config = Olmo3Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Olmo3Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Olmo3Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let context = config.max_position_embeddings;
        let rope = RopeConfig {
            theta: config.rope_theta,
            scaling: config.rope_scaling.clone(),
            parameters: config.rope_parameters.clone(),
            context: Some(context),
            ..RopeConfig::default()
        };
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias.unwrap_or(false),
            out_bias: config.attention_bias.unwrap_or(false),
            norms: Some((NormOver::Projection, config.rms_norm_eps)),
            ..AttentionConfig::plain(shape, rope)
        };
        let slides = |index: usize| match &config.layer_types {
            Some(types) => types
                .get(index)
                .is_some_and(|kind| kind != "full_attention"),
            None => !(index + 1).is_multiple_of(4),
        };
        let layers = config.num_hidden_layers;
        let windows = match &config.layer_types {
            Some(types) => windows::by_types(types, layers, Some(config.sliding_window), context)?,
            None => windows::by_index(layers, config.sliding_window, context, slides)?,
        };
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
                let mut attention = attention.with_window(windows.of(index));
                // Only what sees everything needs stretched positions.
                attention.rope = attention.rope.map(|rope| match slides(index) {
                    true => rope.of_kind("sliding_attention").unscaled(),
                    false => rope.of_kind("full_attention"),
                });
                block.post_norm(builder, path, &attention)
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
