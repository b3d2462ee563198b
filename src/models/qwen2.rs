//! Qwen2 and Qwen2.5 (Yang et al., 2024): Llama with biases on queries, keys and values. The reference is
//! mlx-lm's `models/qwen2.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, Decoder};
use super::variant::{Common, Variant};
use super::windows;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Qwen2Config {
    sliding_window: Option<u64>,
    use_sliding_window: bool,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// Qwen2.
pub struct Qwen2;

impl Variant for Qwen2 {
    type Own = Qwen2Config;
    type Layer = Block;

    fn complete(_: &Qwen2Config, common: &mut Common) {
        common.context.get_or_insert(32768);
        common.rope_theta.get_or_insert(1e6);
    }

    fn build(
        own: &Qwen2Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = AttentionConfig {
            qkv_bias: true,
            ..common.attention()?
        };
        let (types, first) = (own.layer_types.as_deref(), own.max_window_layers);
        let window = own.sliding_window.filter(|_| own.use_sliding_window);
        let windows = windows::qwen(common, types, window, first)?;
        let block = common.block()?;
        common.build(builder, |builder, index, path| {
            block.pre_norm(builder, path, &attention.with_window(windows.of(index)))
        })
    }
}
