//! ERNIE 4.5 (Baidu, 2025), dense: Llama whose features turn in neighbouring pairs, with biases where
//! `config.json` says so. The reference is mlx-lm's `models/ernie4_5.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, BlockConfig, Decoder};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ernie45Config {
    use_bias: bool,
}

/// ERNIE 4.5.
pub struct Ernie45;

impl Variant for Ernie45 {
    type Own = Ernie45Config;
    type Layer = Block;

    fn complete(_: &Ernie45Config, common: &mut Common) {
        common.rope_traditional = Some(true);
    }

    fn build(
        own: &Ernie45Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = common.attention()?.with_biases(own.use_bias);
        let block = BlockConfig {
            mlp_bias: own.use_bias,
            ..common.block()?
        };
        common.build(builder, |builder, _, path| {
            block.pre_norm(builder, path, &attention)
        })
    }
}
