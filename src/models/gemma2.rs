//! Gemma 2 (Gemma Team, 2024): norms on both sides of both halves, and soft caps on scores and logits.
//! The reference is mlx-lm's `models/gemma2.py`; the windows are transformers', mlx-lm has none.

use serde::Deserialize;

use crate::mlx::Activation;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, Decoder, DecoderConfig, NormKind, only_activation};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct Gemma2Config {
    hidden_activation: Option<String>,
    #[serde(default = "usual_attention_cap")]
    attn_logit_softcapping: Option<f32>,
    #[serde(default = "usual_cap")]
    final_logit_softcapping: Option<f32>,
    query_pre_attn_scalar: Option<f32>,
    sliding_window: Option<u64>,
    layer_types: Option<Vec<String>>,
}

// Where the file does not say; `null` means none.

fn usual_attention_cap() -> Option<f32> {
    Some(50.0)
}

fn usual_cap() -> Option<f32> {
    Some(30.0)
}

/// Gemma 2.
pub struct Gemma2;

impl Variant for Gemma2 {
    type Own = Gemma2Config;
    type Layer = Block;

    fn complete(_: &Gemma2Config, common: &mut Common) {
        common.context.get_or_insert(8192);
        common.tied = Some(true);
        common.activation = Activation::GeluTanh;
        common.norm = NormKind::OffsetRms;
    }

    fn sanitize(
        own: &Gemma2Config,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        let named = own.hidden_activation.as_deref();
        let named = named.or(common.hidden_act.as_deref());
        only_activation("hidden_activation", named, common.activation)?;
        weights.discard_tied_head(common.tied);
        Ok(())
    }

    fn build(
        own: &Gemma2Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let scale = own.query_pre_attn_scalar.unwrap_or(144.0).powf(-0.5);
        let mut attention = common.attention()?.with_scale(scale);
        attention.scores.soft_cap = own.attn_logit_softcapping;
        // Every other layer has one, the first included.
        let types = own.layer_types.as_deref();
        let windows = common.windows(types, own.sliding_window, |index| index % 2 == 0)?;
        let block = common.block()?;
        let decoder = DecoderConfig {
            embedding_scale: Some((block.hidden as f32).sqrt()),
            logit_cap: own.final_logit_softcapping,
            ..common.decoder()?
        };
        Decoder::build(builder, &decoder, block.norm, |builder, index, path| {
            let attention = attention.with_window(windows.of(index));
            block.both_norms(builder, path, &attention)
        })
    }
}
