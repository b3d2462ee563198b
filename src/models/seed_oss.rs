//! Seed-OSS (ByteDance, 2025): Llama with biases where `config.json` says so. The reference is mlx-lm's
//! `models/seed_oss.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, BlockConfig, Decoder};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SeedOssConfig {
    attention_bias: bool,
    attention_out_bias: bool,
    mlp_bias: bool,
}

/// Seed-OSS.
pub struct SeedOss;

impl Variant for SeedOss {
    type Own = SeedOssConfig;
    type Layer = Block;

    fn complete(_: &SeedOssConfig, common: &mut Common) {
        common.context.get_or_insert(524_288);
    }

    fn build(
        own: &SeedOssConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = AttentionConfig {
            qkv_bias: own.attention_bias,
            out_bias: own.attention_out_bias,
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
