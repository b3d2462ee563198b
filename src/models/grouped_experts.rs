//! The experts of DeepSeek (DeepSeek-AI, 2024) and of those that took them over: in groups, beside some
//! that every token goes through. Those of V3 are chosen by their sigmoids and a correction, those of V2
//! by a softmax.

use crate::mlx::{Activation, Routing, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{Mixture, MixtureConfig, Mlp, Shared, Sparse, choices, plain_routing};
use super::stacking::{USUAL, stack_experts};
use super::weights::Weights;

/// What V2 calls a choice of groups first.
const GROUP_LIMITED: &str = "group_limited_greedy";

/// The fields of `config.json` that are about them.
#[derive(Debug, Clone, Copy)]
pub struct GroupedExperts<'c> {
    /// Features of a token.
    pub hidden_size: u64,
    /// Features within the layers without experts.
    pub intermediate_size: u64,
    /// Features within an expert.
    pub moe_intermediate_size: u64,
    /// Experts to be chosen from; none where there are only dense layers.
    pub n_routed_experts: Option<u64>,
    /// Experts that every token goes through.
    pub n_shared_experts: Option<u64>,
    /// Experts that a token chooses.
    pub num_experts_per_tok: u64,
    /// Groups of experts.
    pub n_group: Option<u64>,
    /// Groups that are kept.
    pub topk_group: Option<u64>,
    /// Whether the weights are made to sum up to one.
    pub norm_topk_prob: bool,
    /// What the weights are multiplied by.
    pub routed_scaling_factor: f32,
    /// Layers at the beginning that have no experts.
    pub first_k_dense_replace: usize,
    /// Of the others, every how many-th has.
    pub moe_layer_freq: usize,
    /// How the architecture scores them.
    pub scoring: Scoring,
    /// How scores become weights, in the words of the file.
    pub scoring_func: Option<&'c str>,
    /// How experts are chosen.
    pub topk_method: Option<&'c str>,
}

impl GroupedExperts<'_> {
    /// Stacks the experts, and discards the layers behind the last: those that predict further tokens.
    pub fn sanitize(&self, weights: &mut Weights<'_>, layers: usize) -> Result<(), LoadError> {
        self.check()?;
        weights.discard(|name| {
            let rest = name.strip_prefix("model.layers.");
            let index = rest.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            index.is_some_and(|index| index >= layers)
        });
        let Some(experts) = self.n_routed_experts else {
            return Ok(());
        };
        let experts = dimension("n_routed_experts", experts)?;
        for layer in 0..layers {
            let mlp = format!("model.layers.{layer}.mlp");
            stack_experts(weights, &mlp, experts, &USUAL)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), LoadError> {
        let (scores, methods): (_, &[&str]) = match self.scoring {
            Scoring::Sigmoid => ("sigmoid", &["noaux_tc"]),
            _ => ("softmax", &["greedy", GROUP_LIMITED]),
        };
        for (key, value, supported) in [
            ("scoring_func", self.scoring_func, &[scores][..]),
            ("topk_method", self.topk_method, methods),
        ] {
            if let Some(other) = value.filter(|value| !supported.contains(value)) {
                let supported = supported.join("\" and \"");
                let message = format!("\"{other}\" is not supported; supported is \"{supported}\"");
                return Err(LoadError::config(key, message));
            }
        }
        if self.scoring != Scoring::Sigmoid && self.norm_topk_prob {
            let message = "true is not supported in this architecture";
            return Err(LoadError::config("norm_topk_prob", message));
        }
        Ok(())
    }

    fn routing(&self, experts: i32, choices: i32) -> Result<Routing, LoadError> {
        let grouped = self.scoring == Scoring::Sigmoid || self.topk_method == Some(GROUP_LIMITED);
        let number = |stated: Option<u64>| stated.filter(|_| grouped).unwrap_or(1);
        let groups = dimension("n_group", number(self.n_group))?;
        let kept_groups = dimension("topk_group", number(self.topk_group))?;
        if experts % groups != 0 || kept_groups > groups || (groups > 1 && experts / groups < 2) {
            return Err(LoadError::config(
                "n_group",
                format!("{kept_groups} of {groups} groups of {experts} experts cannot be kept"),
            ));
        }
        Ok(Routing {
            // As in mlx-lm, a single expert keeps its weight.
            normalize: choices > 1 && self.norm_topk_prob,
            scale: self.routed_scaling_factor,
            groups,
            kept_groups,
            ..plain_routing(self.scoring, choices)
        })
    }

    /// The feed-forward layer at `path` of layer `index`.
    pub fn layer(
        &self,
        builder: &mut Builder<'_, '_>,
        index: usize,
        path: &str,
    ) -> Result<Sparse, LoadError> {
        let hidden = dimension("hidden_size", self.hidden_size)?;
        let mlp = |builder: &mut Builder<'_, '_>, path: &str, inner| {
            Mlp::gated(builder, path, hidden, inner, Activation::Silu, false)
        };
        let sparse =
            index >= self.first_k_dense_replace && index.is_multiple_of(self.moe_layer_freq.max(1));
        let Some(experts) = self.n_routed_experts.filter(|_| sparse) else {
            let inner = dimension("intermediate_size", self.intermediate_size)?;
            return Ok(Sparse::Dense(mlp(builder, path, inner)?));
        };
        let (experts, choices) = choices(
            ("n_routed_experts", experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )?;
        let inner = dimension("moe_intermediate_size", self.moe_intermediate_size)?;
        let config = MixtureConfig::plain(hidden, inner, experts, self.routing(experts, choices)?);
        let mut mixture = Mixture::build(builder, path, ["gate", "switch_mlp"], &config)?;
        if self.scoring == Scoring::Sigmoid {
            let correction = format!("{path}.gate.e_score_correction_bias");
            mixture.take_correction(builder, &correction, experts)?;
        }
        if let Some(count) = self.n_shared_experts.filter(|&count| count > 0) {
            let inner = dimension("n_shared_experts", count.saturating_mul(inner as u64))?;
            mixture.shared = Some(Shared {
                mlp: mlp(builder, &format!("{path}.shared_experts"), inner)?,
                gate: None,
            });
        }
        Ok(Sparse::Mixture(Box::new(mixture)))
    }
}
