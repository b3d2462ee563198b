//! MiniMax-M2 (MiniMax, 2025): experts in every layer, norms over all heads together, a part of each head
//! turned by position. The reference is mlx-lm's `models/minimax.py`.

use serde::Deserialize;

use crate::mlx::{Routing, Scoring};

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, Block, Decoder, Mixture, MixtureConfig, NormOver, choices, plain_routing,
};
use super::stacking::{NUMBERED, stack_experts};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct MiniMaxM2Config {
    num_local_experts: u64,
    num_experts_per_tok: u64,
    scoring_func: Option<String>,
    use_qk_norm: Option<bool>,
    rotary_dim: u64,
}

impl MiniMaxM2Config {
    fn experts(&self) -> Result<(i32, i32), LoadError> {
        choices(
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
    }
}

/// MiniMax-M2.
pub struct MiniMaxM2;

impl Variant for MiniMaxM2 {
    type Own = MiniMaxM2Config;
    type Layer = Block<Mixture>;

    fn complete(own: &MiniMaxM2Config, common: &mut Common) {
        let shared = common.hidden_size / common.num_attention_heads.max(1);
        let head_dim = common.head_dim.unwrap_or(shared);
        // Cut off to a number of features, which must not be one less by rounding.
        common.rope_partial = Some((own.rotary_dim as f64 + 0.5) / head_dim as f64);
    }

    fn sanitize(
        own: &MiniMaxM2Config,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        if let Some(other) = own.scoring_func.as_ref().filter(|it| *it != "sigmoid") {
            let message = format!("\"{other}\" is not supported; supported is \"sigmoid\"");
            return Err(LoadError::config("scoring_func", message));
        }
        let (experts, _) = own.experts()?;
        for layer in 0..common.num_hidden_layers {
            let moe = format!("model.layers.{layer}.block_sparse_moe");
            stack_experts(weights, &moe, experts, &NUMBERED)?;
        }
        Ok(())
    }

    fn build(
        own: &MiniMaxM2Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block<Mixture>>, LoadError> {
        let block = common.block()?;
        let normed = own.use_qk_norm.unwrap_or(true);
        let attention = AttentionConfig {
            norms: normed.then_some((NormOver::Projection, block.norm.eps)),
            ..common.attention()?
        };
        let (experts, choices) = own.experts()?;
        let routing = Routing {
            normalize: true,
            ..plain_routing(Scoring::Sigmoid, choices)
        };
        let mixture = MixtureConfig::plain(block.hidden, block.inner, experts, routing);
        common.build(builder, |builder, _, path| {
            let path_of_moe = format!("{path}.block_sparse_moe");
            let names = ["gate", "switch_mlp"];
            let mut moe = Mixture::build(builder, &path_of_moe, names, &mixture)?;
            let correction = format!("{path_of_moe}.e_score_correction_bias");
            moe.take_correction(builder, &correction, experts)?;
            block.pre_norm_around(builder, path, &attention, moe)
        })
    }
}
