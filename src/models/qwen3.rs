//! Qwen3 (Yang et al., 2025): Llama with norms on each head's query and key. The reference is mlx-lm's
//! `models/qwen3.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, Decoder, NormOver};
use super::variant::{Common, Variant};
use super::windows;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Qwen3Config {
    attention_bias: bool,
    sliding_window: Option<u64>,
    use_sliding_window: bool,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// Qwen3.
pub struct Qwen3;

impl Variant for Qwen3 {
    type Own = Qwen3Config;
    type Layer = Block;

    fn build(
        own: &Qwen3Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let block = common.block()?;
        let attention = AttentionConfig {
            norms: Some((NormOver::Heads, block.norm.eps)),
            ..common.attention()?.with_biases(own.attention_bias)
        };
        let (types, first) = (own.layer_types.as_deref(), own.max_window_layers);
        let window = own.sliding_window.filter(|_| own.use_sliding_window);
        let windows = windows::qwen(common, types, window, first)?;
        common.build(builder, |builder, index, path| {
            block.pre_norm(builder, path, &attention.with_window(windows.of(index)))
        })
    }
}
