//! OLMoE (Muennighoff et al., 2024). The reference is mlx-lm's `models/olmoe.py`.

use serde::Deserialize;

use crate::mlx::{Routing, Scoring};

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, Block, Decoder, Mixture, MixtureConfig, NormOver, choices, plain_routing,
};
use super::stacking::{USUAL, stack_experts};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct OlmoeConfig {
    num_experts: u64,
    num_experts_per_tok: u64,
    #[serde(default)]
    norm_topk_prob: bool,
    #[serde(default)]
    attention_bias: bool,
}

impl OlmoeConfig {
    fn experts(&self) -> Result<(i32, i32), LoadError> {
        choices(
            ("num_experts", self.num_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
    }
}

/// OLMoE.
pub struct Olmoe;

impl Variant for Olmoe {
    type Own = OlmoeConfig;
    type Layer = Block<Mixture>;

    fn complete(_: &OlmoeConfig, common: &mut Common) {
        common.context.get_or_insert(4096);
    }

    fn sanitize(
        own: &OlmoeConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        let (experts, _) = own.experts()?;
        for layer in 0..common.num_hidden_layers {
            let mlp = format!("model.layers.{layer}.mlp");
            stack_experts(weights, &mlp, experts, &USUAL)?;
        }
        Ok(())
    }

    fn build(
        own: &OlmoeConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block<Mixture>>, LoadError> {
        let block = common.block()?;
        let attention = AttentionConfig {
            norms: Some((NormOver::Projection, block.norm.eps)),
            ..common.attention()?.with_biases(own.attention_bias)
        };
        let (experts, choices) = own.experts()?;
        let routing = Routing {
            normalize: own.norm_topk_prob,
            ..plain_routing(Scoring::Softmax, choices)
        };
        let mixture = MixtureConfig::plain(block.hidden, block.inner, experts, routing);
        common.build(builder, |builder, _, path| {
            let mlp = format!("{path}.mlp");
            let moe = Mixture::build(builder, &mlp, ["gate", "switch_mlp"], &mixture)?;
            block.pre_norm_around(builder, path, &attention, moe)
        })
    }
}
