//! Command R and Aya (Cohere, 2024): attention and feed-forward layer side by side, maybe norms of each head's
//! own. The reference is mlx-lm's `models/cohere.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Decoder, DecoderConfig, NormKind, ParallelBlock};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CohereConfig {
    layer_norm_eps: Option<f32>,
    layer_norm_bias: bool,
    attention_bias: bool,
    use_qk_norm: bool,
    logit_scale: Option<f32>,
}

/// Cohere.
pub struct Cohere;

impl Variant for Cohere {
    type Own = CohereConfig;
    type Layer = ParallelBlock;

    fn complete(own: &CohereConfig, common: &mut Common) {
        common.context.get_or_insert(8192);
        common.tied = Some(true);
        common.eps = own.layer_norm_eps.or(Some(1e-5));
        common.norm = NormKind::Layer {
            bias: own.layer_norm_bias,
        };
        common.rope_theta.get_or_insert(8_000_000.0);
        common.rope_traditional = Some(true);
    }

    fn build(
        own: &CohereConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<ParallelBlock>, LoadError> {
        let block = common.block()?;
        let attention = common.attention()?.with_biases(own.attention_bias);
        let decoder = DecoderConfig {
            logit_scale: Some(own.logit_scale.unwrap_or(0.0625)),
            ..common.decoder()?
        };
        Decoder::build(builder, &decoder, block.norm, |builder, _, path| {
            let mut layer = block.parallel(builder, path, &attention)?;
            if own.use_qk_norm {
                let (path, eps) = (format!("{path}.self_attn"), block.norm.eps);
                layer
                    .attention
                    .take_head_norms(builder, &path, ["q_norm", "k_norm"], eps)?;
            }
            Ok(layer)
        })
    }
}
