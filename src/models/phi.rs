//! Phi-1, Phi-1.5 and Phi-2 (Microsoft, 2023): attention and feed-forward layer side by side, biases
//! everywhere, a part of each head turned by position. The reference is mlx-lm's `models/phi.py`.

use serde::Deserialize;

use crate::mlx::Activation;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Decoder, DecoderConfig, Mlp, NormKind, ParallelBlock};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PhiConfig {
    layer_norm_eps: Option<f32>,
    partial_rotary_factor: Option<f64>,
}

/// Phi.
pub struct Phi;

impl Variant for Phi {
    type Own = PhiConfig;
    type Layer = ParallelBlock;

    fn complete(own: &PhiConfig, common: &mut Common) {
        common.context.get_or_insert(2048);
        common.tied = Some(false);
        common.activation = Activation::GeluTanh;
        common.eps = own.layer_norm_eps.or(Some(1e-5));
        common.norm = NormKind::Layer { bias: true };
        common.rope_partial = own.partial_rotary_factor.or(Some(0.4));
    }

    fn sanitize(
        _: &PhiConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        weights.rename(|name| {
            if let Some(rest) = name.strip_prefix("model.final_layernorm.") {
                return Some(format!("model.norm.{rest}"));
            }
            let (layer, rest) = name.split_once(".self_attn.dense.")?;
            Some(format!("{layer}.self_attn.o_proj.{rest}"))
        });
        Ok(())
    }

    fn build(
        _: &PhiConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<ParallelBlock>, LoadError> {
        let block = common.block()?;
        let (hidden, inner) = (block.hidden, block.inner);
        let attention = common.attention()?.with_biases(true);
        let decoder = DecoderConfig {
            head_bias: true,
            ..common.decoder()?
        };
        Decoder::build(builder, &decoder, block.norm, |builder, _, path| {
            let mlp = Mlp {
                gate: None,
                up: builder.linear(&format!("{path}.mlp.fc1"), hidden, inner, true)?,
                down: builder.linear(&format!("{path}.mlp.fc2"), inner, hidden, true)?,
                activation: block.activation,
            };
            block.parallel_around(builder, path, &attention, mlp)
        })
    }
}
