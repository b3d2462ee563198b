//! OLMo 2 (OLMo et al., 2024): norms behind attention and feed-forward layer instead of before them, and
//! on all queries and all keys of a token. The reference is mlx-lm's `models/olmo2.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, BlockConfig, Decoder, NormOver};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Olmo2Config {
    attention_bias: bool,
    mlp_bias: bool,
}

/// OLMo 2.
pub struct Olmo2;

impl Variant for Olmo2 {
    type Own = Olmo2Config;
    type Layer = Block;

    fn complete(_: &Olmo2Config, common: &mut Common) {
        common.context.get_or_insert(2048);
    }

    fn build(
        own: &Olmo2Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let block = BlockConfig {
            mlp_bias: own.mlp_bias,
            ..common.block()?
        };
        let attention = AttentionConfig {
            norms: Some((NormOver::Projection, block.norm.eps)),
            ..common.attention()?.with_biases(own.attention_bias)
        };
        common.build(builder, |builder, _, path| {
            block.post_norm(builder, path, &attention)
        })
    }
}
