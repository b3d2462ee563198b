//! MiMo (Xiaomi, 2025): Qwen2's shape beside layers that predict further tokens, which are left out. The
//! reference is mlx-lm's `models/mimo.py`.

use serde::de::IgnoredAny;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, Decoder};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// MiMo.
pub struct Mimo;

impl Variant for Mimo {
    type Own = IgnoredAny;
    type Layer = Block;

    fn complete(_: &IgnoredAny, common: &mut Common) {
        common.context.get_or_insert(32768);
    }

    fn sanitize(
        _: &IgnoredAny,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        weights.discard(|name| name.starts_with("model.mtp_layers."));
        common.sanitize(weights)
    }

    fn build(
        _: &IgnoredAny,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = AttentionConfig {
            qkv_bias: true,
            ..common.attention()?
        };
        let block = common.block()?;
        common.build(builder, |builder, _, path| {
            block.pre_norm(builder, path, &attention)
        })
    }
}
