//! Helium 1 (Kyutai, 2025): Llama whose features turn in neighbouring pairs. The reference is mlx-lm's
//! `models/helium.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, BlockConfig, Decoder};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HeliumConfig {
    attention_bias: bool,
    mlp_bias: bool,
}

/// Helium.
pub struct Helium;

impl Variant for Helium {
    type Own = HeliumConfig;
    type Layer = Block;

    fn complete(_: &HeliumConfig, common: &mut Common) {
        common.rope_traditional = Some(true);
    }

    fn build(
        own: &HeliumConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = AttentionConfig {
            qkv_bias: own.attention_bias,
            ..common.attention()?
        };
        let block = BlockConfig {
            mlp_bias: own.mlp_bias,
            ..common.block()?
        };
        common.build(builder, |builder, _, path| {
            block.pre_norm(builder, path, &attention)
        })
    }
}
