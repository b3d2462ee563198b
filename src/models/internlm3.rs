//! InternLM3 (Shanghai AI Laboratory, 2025): Llama with biases where `config.json` says so. The reference
//! is mlx-lm's `models/internlm3.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, BlockConfig, Decoder};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct InternLm3Config {
    bias: bool,
    qkv_bias: bool,
}

/// InternLM3.
pub struct InternLm3;

impl Variant for InternLm3 {
    type Own = InternLm3Config;
    type Layer = Block;

    fn complete(_: &InternLm3Config, common: &mut Common) {
        common.context.get_or_insert(32768);
    }

    fn build(
        own: &InternLm3Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = common.attention()?.with_biases(own.qkv_bias);
        let block = BlockConfig {
            mlp_bias: own.bias,
            ..common.block()?
        };
        common.build(builder, |builder, _, path| {
            block.pre_norm(builder, path, &attention)
        })
    }
}
