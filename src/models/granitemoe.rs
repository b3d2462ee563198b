//! Granite's mixtures of experts (IBM, 2024). The reference is mlx-lm's `models/granitemoe.py`.

use serde::Deserialize;

use crate::mlx::Scoring;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{
    Block, Decoder, DecoderConfig, Mixture, MixtureConfig, choices, plain_routing,
};
use super::stacking::{rename, split_rows};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct GraniteMoeConfig {
    num_local_experts: u64,
    num_experts_per_tok: u64,
    #[serde(default)]
    attention_bias: bool,
    logits_scaling: f32,
    attention_multiplier: f32,
    embedding_multiplier: f32,
    residual_multiplier: f32,
}

/// Granite with experts.
pub struct GraniteMoe;

impl Variant for GraniteMoe {
    type Own = GraniteMoeConfig;
    type Layer = Block<Mixture>;

    fn complete(_: &GraniteMoeConfig, common: &mut Common) {
        common.context.get_or_insert(2048);
    }

    fn sanitize(
        _: &GraniteMoeConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        divide_experts(weights, common.num_hidden_layers)
    }

    fn build(
        own: &GraniteMoeConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block<Mixture>>, LoadError> {
        let attention = common
            .attention()?
            .with_biases(own.attention_bias)
            .with_scale(own.attention_multiplier);
        let block = common.block()?;
        let (experts, choices) = choices(
            ("num_local_experts", own.num_local_experts),
            ("num_experts_per_tok", own.num_experts_per_tok),
        )?;
        let routing = plain_routing(Scoring::SoftmaxOfChosen, choices);
        let mixture = MixtureConfig::plain(block.hidden, block.inner, experts, routing);
        let decoder = DecoderConfig {
            embedding_scale: Some(own.embedding_multiplier),
            logit_scale: Some(1.0 / own.logits_scaling),
            ..common.decoder()?
        };
        Decoder::build(builder, &decoder, block.norm, |builder, _, path| {
            let moe = format!("{path}.block_sparse_moe");
            let moe = Mixture::build(builder, &moe, ["router.layer", "switch_mlp"], &mixture)?;
            Ok(Block {
                branch_scale: Some(own.residual_multiplier),
                ..block.pre_norm_around(builder, path, &attention, moe)?
            })
        })
    }
}

/// Divides transformers' `input_linear`, which is an expert's first two products behind one another.
pub fn divide_experts(weights: &mut Weights<'_>, layers: usize) -> Result<(), LoadError> {
    for layer in 0..layers {
        let moe = format!("model.layers.{layer}.block_sparse_moe");
        let name = |name: &str| format!("{moe}.{name}.weight");
        if weights.contains(&name("input_linear")) {
            let halves = ["switch_mlp.gate_proj", "switch_mlp.up_proj"].map(name);
            split_rows(weights, &name("input_linear"), halves)?;
            let down = name("switch_mlp.down_proj");
            rename(weights, &name("output_linear"), down)?;
        }
    }
    Ok(())
}
