//! Gemma (Gemma Team, 2024): norms that multiply by one more than their weights. The reference is mlx-lm's
//! `models/gemma.py`; the activation is transformers', which takes GELU by tanh also where an older
//! `config.json` says `"gelu"`.

use serde::Deserialize;

use crate::mlx::Activation;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, Decoder, DecoderConfig, NormKind, activation, only_activation};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GemmaConfig {
    hidden_activation: Option<String>,
}

/// Gemma.
pub struct Gemma;

impl Variant for Gemma {
    type Own = GemmaConfig;
    type Layer = Block;

    fn complete(_: &GemmaConfig, common: &mut Common) {
        common.context.get_or_insert(8192);
        common.tied = Some(true);
        common.activation = Activation::GeluTanh;
        common.norm = NormKind::OffsetRms;
    }

    fn sanitize(
        own: &GemmaConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        let named = own.hidden_activation.as_deref();
        let named = named.or(common.hidden_act.as_deref());
        match named {
            Some(name) if activation("hidden_act", name)? == Activation::Gelu => {}
            other => only_activation("hidden_activation", other, common.activation)?,
        }
        weights.discard_tied_head(common.tied);
        Ok(())
    }

    fn build(
        _: &GemmaConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let (attention, block) = (common.attention()?, common.block()?);
        let decoder = DecoderConfig {
            embedding_scale: Some((block.hidden as f32).sqrt()),
            ..common.decoder()?
        };
        Decoder::build(builder, &decoder, block.norm, |builder, _, path| {
            block.pre_norm(builder, path, &attention)
        })
    }
}
