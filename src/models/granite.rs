//! Granite 3 (IBM, 2024): Llama with multipliers on embeddings, scores, branches and logits. The reference
//! is mlx-lm's `models/granite.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, BlockConfig, Decoder, DecoderConfig};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct GraniteConfig {
    logits_scaling: f32,
    attention_multiplier: f32,
    embedding_multiplier: f32,
    residual_multiplier: f32,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

/// Granite.
pub struct Granite;

impl Variant for Granite {
    type Own = GraniteConfig;
    type Layer = Block;

    fn build(
        own: &GraniteConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = common
            .attention()?
            .with_biases(own.attention_bias)
            .with_scale(own.attention_multiplier);
        let block = BlockConfig {
            mlp_bias: own.mlp_bias,
            ..common.block()?
        };
        let decoder = DecoderConfig {
            embedding_scale: Some(own.embedding_multiplier),
            logit_scale: Some(1.0 / own.logits_scaling),
            ..common.decoder()?
        };
        Decoder::build(builder, &decoder, block.norm, |builder, _, path| {
            Ok(Block {
                branch_scale: Some(own.residual_multiplier),
                ..block.pre_norm(builder, path, &attention)?
            })
        })
    }
}
