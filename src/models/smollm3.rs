//! SmolLM3 (Hugging Face, 2025): Llama whose every fourth layer does not encode positions. The reference
//! is mlx-lm's `models/smollm3.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, BlockConfig, Decoder};
use super::variant::{Common, Variant};
use super::windows;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SmolLm3Config {
    attention_bias: bool,
    mlp_bias: bool,
    no_rope_layer_interval: Option<usize>,
    no_rope_layers: Option<Vec<u8>>,
    sliding_window: Option<u64>,
    use_sliding_window: bool,
    layer_types: Option<Vec<String>>,
}

impl SmolLm3Config {
    /// Which layers encode positions.
    fn roped(&self, layers: usize) -> Result<Vec<bool>, LoadError> {
        match &self.no_rope_layers {
            Some(flags) if flags.len() != layers => Err(LoadError::config(
                "no_rope_layers",
                format!("{} layers are named, there are {layers}", flags.len()),
            )),
            Some(flags) => Ok(flags.iter().map(|&flag| flag != 0).collect()),
            None => {
                let every = self.no_rope_layer_interval.unwrap_or(4).max(1);
                Ok((1..=layers)
                    .map(|nth: usize| !nth.is_multiple_of(every))
                    .collect())
            }
        }
    }
}

/// SmolLM3.
pub struct SmolLm3;

impl Variant for SmolLm3 {
    type Own = SmolLm3Config;
    type Layer = Block;

    fn complete(_: &SmolLm3Config, common: &mut Common) {
        common.context.get_or_insert(32768);
    }

    fn build(
        own: &SmolLm3Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = common.attention()?.with_biases(own.attention_bias);
        let roped = own.roped(common.num_hidden_layers)?;
        let window = own.sliding_window.filter(|_| own.use_sliding_window);
        let windows = windows::qwen(common, own.layer_types.as_deref(), window, None)?;
        let block = BlockConfig {
            mlp_bias: own.mlp_bias,
            ..common.block()?
        };
        common.build(builder, |builder, index, path| {
            let rope = attention.rope.clone();
            let attention = AttentionConfig {
                rope: rope.filter(|_| roped.get(index) == Some(&true)),
                ..attention.with_window(windows.of(index))
            };
            block.pre_norm(builder, path, &attention)
        })
    }
}
