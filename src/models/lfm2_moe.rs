//! LFM2's mixtures of experts (Liquid AI, 2025). The reference is mlx-lm's `models/lfm2_moe.py`.

use crate::mlx::{Activation, Routing, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{Mixture, MixtureConfig, Mlp, Sparse, choices, plain_routing};
use super::lfm2::{Lfm2Config, Lfm2Model};
use super::registry::Architecture;
use super::stacking::{NUMBERED, stack_experts};
use super::weights::Weights;

impl Lfm2Config {
    fn experts(&self) -> Result<(i32, i32), LoadError> {
        let stated = |key: &'static str, value: Option<u64>| match value {
            Some(value) => Ok((key, value)),
            None => Err(LoadError::config(key, "is missing")),
        };
        choices(
            stated("num_experts", self.num_experts)?,
            stated("num_experts_per_tok", self.num_experts_per_tok)?,
        )
    }

    fn mixture(&self, hidden: i32) -> Result<MixtureConfig, LoadError> {
        let (experts, choices) = self.experts()?;
        let inner = self.moe_intermediate_size;
        let inner =
            inner.ok_or_else(|| LoadError::config("moe_intermediate_size", "is missing"))?;
        let inner = dimension("moe_intermediate_size", inner)?;
        let routing = Routing {
            normalize: self.norm_topk_prob.unwrap_or(false),
            scale: self.routed_scaling_factor.unwrap_or(1.0),
            ..plain_routing(Scoring::Sigmoid, choices)
        };
        Ok(MixtureConfig::plain(hidden, inner, experts, routing))
    }
}

/// LFM2 with experts.
pub struct Lfm2Moe;

impl Architecture for Lfm2Moe {
    type Config = Lfm2Config;
    type Model = Lfm2Model<Sparse>;

    fn sanitize(config: &Lfm2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        config.sanitize(weights)?;
        let (experts, _) = config.experts()?;
        for layer in 0..config.layers() {
            let block = format!("model.layers.{layer}.feed_forward");
            stack_experts(weights, &block, experts, &NUMBERED)?;
        }
        weights.rename(|name| {
            let (layer, rest) = name.split_once(".feed_forward.w")?;
            let (from, kind) = rest.split_once('.')?;
            let (_, to) = NUMBERED
                .iter()
                .find(|(known, _)| known.strip_prefix('w') == Some(from))?;
            Some(format!("{layer}.feed_forward.{to}.{kind}"))
        });
        Ok(())
    }

    fn build(config: &Lfm2Config, builder: &mut Builder<'_, '_>) -> Result<Self::Model, LoadError> {
        config.build(builder, |builder, index, path, [hidden, inner]| {
            if index < config.num_dense_layers.unwrap_or(0) {
                let mlp = Mlp::gated(builder, path, hidden, inner, Activation::Silu, false)?;
                return Ok(Sparse::Dense(mlp));
            }
            let shape = config.mixture(hidden)?;
            let mut mixture = Mixture::build(builder, path, ["gate", "switch_mlp"], &shape)?;
            if config.use_expert_bias.unwrap_or(false) {
                let bias = format!("{path}.expert_bias");
                mixture.take_correction(builder, &bias, shape.experts)?;
            }
            Ok(Sparse::Mixture(Box::new(mixture)))
        })
    }
}
