//! Mixtral (Jiang et al., 2024). The reference is mlx-lm's `models/mixtral.py`.

use serde::Deserialize;

use crate::mlx::Scoring;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, Decoder, Mixture, MixtureConfig, choices, plain_routing};
use super::stacking::{NUMBERED, stack_experts};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct MixtralConfig {
    num_local_experts: u64,
    num_experts_per_tok: u64,
    sliding_window: Option<u64>,
}

impl MixtralConfig {
    /// The numbers of experts, and of those that a token goes through.
    fn experts(&self) -> Result<(i32, i32), LoadError> {
        choices(
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
    }
}

/// Mixtral.
pub struct Mixtral;

impl Variant for Mixtral {
    type Own = MixtralConfig;
    type Layer = Block<Mixture>;

    fn complete(_: &MixtralConfig, common: &mut Common) {
        common.context.get_or_insert(32_768);
        common.rope_theta.get_or_insert(1e6);
    }

    fn sanitize(
        own: &MixtralConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        let (experts, _) = own.experts()?;
        for layer in 0..common.num_hidden_layers {
            let moe = format!("model.layers.{layer}.block_sparse_moe");
            stack_experts(weights, &moe, experts, &NUMBERED)?;
        }
        Ok(())
    }

    fn build(
        own: &MixtralConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block<Mixture>>, LoadError> {
        let (attention, block) = (common.attention()?, common.block()?);
        let windows = common.windows(None, own.sliding_window, |_| true)?;
        let (experts, choices) = own.experts()?;
        let routing = plain_routing(Scoring::SoftmaxOfChosen, choices);
        let mixture = MixtureConfig::plain(block.hidden, block.inner, experts, routing);
        common.build(builder, |builder, index, path| {
            let moe = format!("{path}.block_sparse_moe");
            let moe = Mixture::build(builder, &moe, ["gate", "switch_mlp"], &mixture)?;
            let attention = attention.with_window(windows.of(index));
            block.pre_norm_around(builder, path, &attention, moe)
        })
    }
}
