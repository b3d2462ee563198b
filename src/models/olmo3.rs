//! OLMo 3 (Ai2, 2025): OLMo 2 with a sliding window in three layers of four. The reference is mlx-lm's
//! `models/olmo3.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, Decoder, NormOver};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct Olmo3Config {
    #[serde(default)]
    attention_bias: bool,
    sliding_window: u64,
    layer_types: Option<Vec<String>>,
}

impl Olmo3Config {
    fn slides(&self, index: usize) -> bool {
        match &self.layer_types {
            Some(types) => types
                .get(index)
                .is_some_and(|kind| kind != "full_attention"),
            None => !(index + 1).is_multiple_of(4),
        }
    }
}

/// OLMo 3.
pub struct Olmo3;

impl Variant for Olmo3 {
    type Own = Olmo3Config;
    type Layer = Block;

    fn build(
        own: &Olmo3Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let block = common.block()?;
        let attention = AttentionConfig {
            norms: Some((NormOver::Projection, block.norm.eps)),
            ..common.attention()?.with_biases(own.attention_bias)
        };
        let (types, window) = (own.layer_types.as_deref(), Some(own.sliding_window));
        let windows = common.windows(types, window, |index| own.slides(index))?;
        common.build(builder, |builder, index, path| {
            let mut attention = attention.with_window(windows.of(index));
            // Only what sees everything needs stretched positions.
            attention.rope = attention.rope.map(|rope| match own.slides(index) {
                true => rope.of_kind("sliding_attention").unscaled(),
                false => rope.of_kind("full_attention"),
            });
            block.post_norm(builder, path, &attention)
        })
    }
}
