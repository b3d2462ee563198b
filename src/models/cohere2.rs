//! Command R7B and Command A (Cohere, 2024): attention and feed-forward layer side by side; three layers
//! of four see a window, and only these encode positions. The reference is mlx-lm's `models/cohere2.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Decoder, DecoderConfig, NormKind, ParallelBlock};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cohere2Config {
    layer_norm_eps: Option<f32>,
    layer_norm_bias: bool,
    attention_bias: bool,
    logit_scale: Option<f32>,
    sliding_window: Option<u64>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
}

impl Cohere2Config {
    fn slides(&self, index: usize) -> bool {
        match &self.layer_types {
            Some(types) => types
                .get(index)
                .is_some_and(|kind| kind == "sliding_attention"),
            None => !(index + 1).is_multiple_of(self.sliding_window_pattern.unwrap_or(4)),
        }
    }
}

/// Cohere 2.
pub struct Cohere2;

impl Variant for Cohere2 {
    type Own = Cohere2Config;
    type Layer = ParallelBlock;

    fn complete(own: &Cohere2Config, common: &mut Common) {
        common.context.get_or_insert(8192);
        common.tied = Some(true);
        common.eps = own.layer_norm_eps.or(Some(1e-5));
        common.norm = NormKind::Layer {
            bias: own.layer_norm_bias,
        };
        common.rope_theta.get_or_insert(50_000.0);
        common.rope_traditional = Some(true);
    }

    fn build(
        own: &Cohere2Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<ParallelBlock>, LoadError> {
        let block = common.block()?;
        let attention = common.attention()?.with_biases(own.attention_bias);
        let (types, window) = (own.layer_types.as_deref(), own.sliding_window);
        let windows = common.windows(types, window.or(Some(4096)), |index| own.slides(index))?;
        let decoder = DecoderConfig {
            logit_scale: Some(own.logit_scale.unwrap_or(0.0625)),
            ..common.decoder()?
        };
        Decoder::build(builder, &decoder, block.norm, |builder, index, path| {
            let rope = attention.rope.clone();
            let attention = AttentionConfig {
                rope: rope.filter(|_| own.slides(index)),
                ..attention.with_window(windows.of(index))
            };
            block.parallel(builder, path, &attention)
        })
    }
}
