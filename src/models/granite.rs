//! Granite 3 (IBM, 2024): Llama with multipliers on embeddings, scores, branches and logits. The reference
//! is mlx-lm's `models/granite.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;
use crate::mlx::fast::Scores;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, Block, BlockConfig, Decoder, DecoderConfig, RopeConfig, only_activation,
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

impl GraniteConfig {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: Some(self.num_key_value_heads),
            head_dim: None,
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings,
            tied: self.tie_word_embeddings,
            rope: RopeConfig {
                theta: self.rope_theta,
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
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
        let dense = config.dense();
        let bias = config.attention_bias.unwrap_or(false);
        let plain = dense.attention()?;
        let attention = AttentionConfig {
            qkv_bias: bias,
            out_bias: bias,
            scores: Scores {
                scale: config.attention_multiplier,
                ..plain.scores
            },
            ..plain
        };
        let block = BlockConfig {
            mlp_bias: config.mlp_bias.unwrap_or(false),
            ..dense.block(Activation::Silu)?
        };
        let decoder = DecoderConfig {
            embedding_scale: Some(config.embedding_multiplier),
            logit_scale: Some(1.0 / config.logits_scaling),
            ..dense.decoder()
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
            |builder, path| Ok(builder.rms_norm(path, block.hidden, block.eps)?.into()),
        )
    }
}
