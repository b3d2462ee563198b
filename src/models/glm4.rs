//! GLM-4 0414 (Z.ai, 2025): norms on both sides of both halves, half of a head's features turned. The
//! reference is mlx-lm's `models/glm4.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    Around, Attention, AttentionConfig, AttentionShape, Block, Decoder, DecoderConfig, Mlp,
    RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Glm4Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    head_dim: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    partial_rotary_factor: Option<f64>,
    rope_theta: Option<f64>,
    rope_traditional: Option<bool>,
    rope_parameters: Option<Map<String, Value>>,
}

/// GLM-4.
pub struct Glm4;

impl Architecture for Glm4 {
    type Config = Glm4Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Glm4Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Glm4Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            Some(config.num_key_value_heads),
            config.head_dim,
        )?;
        let rope = RopeConfig {
            theta: config.rope_theta,
            traditional: config.rope_traditional.unwrap_or(true),
            partial: config.partial_rotary_factor.or(Some(0.5)),
            parameters: config.rope_parameters.clone(),
            ..RopeConfig::default()
        };
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias.unwrap_or(false),
            ..AttentionConfig::plain(shape, rope)
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let inner = dimension("intermediate_size", config.intermediate_size)?;
        let eps = config.rms_norm_eps;
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers: config.num_hidden_layers,
            context_length: config.max_position_embeddings.unwrap_or(32768),
            tied: config.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        let layer = |builder: &mut Builder<'_, '_>, _, path: &str| {
            let mut norm = |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, eps);
            Ok(Block {
                attention_norms: Around::both(
                    norm("input_layernorm")?,
                    norm("post_self_attn_layernorm")?,
                ),
                mlp_norms: Around::both(
                    norm("post_attention_layernorm")?,
                    norm("post_mlp_layernorm")?,
                ),
                attention: Attention::build(
                    builder,
                    &format!("{path}.self_attn"),
                    hidden,
                    &attention,
                )?,
                mlp: Mlp::fused(
                    builder,
                    &format!("{path}.mlp"),
                    hidden,
                    inner,
                    Activation::Silu,
                )?,
                branch_scale: None,
            })
        };
        Decoder::build(builder, &decoder, layer, |builder, path| {
            Ok(builder.rms_norm(path, hidden, eps)?.into())
        })
    }
}
