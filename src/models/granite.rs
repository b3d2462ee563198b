//! Granite 3 (IBM, 2024): Llama with multipliers on embeddings, scores, branches and logits. The reference
//! is mlx-lm's `models/granite.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;
use crate::mlx::fast::Scores;

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
pub struct GraniteConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    logits_scaling: f32,
    attention_multiplier: f32,
    embedding_multiplier: f32,
    residual_multiplier: f32,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: usize,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

/// Granite.
pub struct Granite;

impl Architecture for Granite {
    type Config = GraniteConfig;
    type Model = Decoder<Block>;

    fn sanitize(config: &GraniteConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &GraniteConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            Some(config.num_key_value_heads),
            None,
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
            scores: Scores {
                scale: config.attention_multiplier,
                ..Scores::plain(shape.head_dim)
            },
            ..AttentionConfig::plain(shape, rope)
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let eps = config.rms_norm_eps;
        let block = BlockConfig {
            hidden,
            inner: dimension("intermediate_size", config.intermediate_size)?,
            eps,
            activation: Activation::Silu,
            mlp_bias: config.mlp_bias.unwrap_or(false),
        };
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers: config.num_hidden_layers,
            context_length: context,
            tied: config.tie_word_embeddings,
            embedding_scale: Some(config.embedding_multiplier),
            logit_scale: Some(1.0 / config.logits_scaling),
            ..DecoderConfig::default()
        };
        Decoder::build(
            builder,
            &decoder,
            |builder, _, path| {
                Ok(Block {
                    branch_scale: Some(config.residual_multiplier),
                    ..block.pre_norm(builder, path, &attention)?
                })
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
