//! Qwen3's mixtures of experts (Qwen3 Technical Report, 2025), and Qwen2's, which have an expert for
//! every token too. The references are mlx-lm's `models/qwen3_moe.py` and `models/qwen2_moe.py`.

use serde::Deserialize;

use crate::mlx::{Routing, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, Block, Decoder, Mixture, MixtureConfig, Mlp, NormOver, Shared, Sparse,
    choices, plain_routing,
};
use super::stacking::{USUAL, stack_experts, turn_columns};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct QwenMoeConfig {
    num_experts: Option<u64>,
    /// What transformers calls them.
    num_local_experts: Option<u64>,
    num_experts_per_tok: u64,
    moe_intermediate_size: u64,
    shared_expert_intermediate_size: Option<u64>,
    #[serde(default)]
    norm_topk_prob: bool,
    decoder_sparse_step: Option<usize>,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
    #[serde(default)]
    attention_bias: bool,
    qkv_bias: Option<bool>,
    sliding_window: Option<u64>,
    #[serde(default)]
    use_sliding_window: bool,
}

impl QwenMoeConfig {
    fn experts(&self) -> Result<(i32, i32), LoadError> {
        let stated = self.num_experts.or(self.num_local_experts);
        choices(
            ("num_experts", stated.unwrap_or(0)),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
    }

    /// Whether the layer at `index` has experts.
    fn is_sparse(&self, index: usize) -> bool {
        let step = self.decoder_sparse_step.unwrap_or(1).max(1);
        !self.mlp_only_layers.contains(&index) && (index + 1).is_multiple_of(step)
    }

    fn mixture(&self, hidden: i32) -> Result<MixtureConfig, LoadError> {
        let (experts, choices) = self.experts()?;
        let inner = dimension("moe_intermediate_size", self.moe_intermediate_size)?;
        let routing = Routing {
            normalize: self.norm_topk_prob,
            ..plain_routing(Scoring::Softmax, choices)
        };
        Ok(MixtureConfig::plain(hidden, inner, experts, routing))
    }

    fn sanitize(&self, common: &Common, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        if let Some(window) = self.sliding_window.filter(|_| self.use_sliding_window) {
            let message =
                format!("a window of {window} positions is not supported in this architecture");
            return Err(LoadError::config("use_sliding_window", message));
        }
        let (experts, _) = self.experts()?;
        for layer in 0..common.num_hidden_layers {
            let mlp = format!("model.layers.{layer}.mlp");
            stack_experts(weights, &mlp, experts, &USUAL)?;
            // Qwen3-VL has them in one tensor, with a token's features first.
            let both = format!("{mlp}.experts.gate_up_proj");
            if weights.contains(&both) {
                let stacked = |name: &str| format!("{mlp}.switch_mlp.{name}.weight");
                turn_columns(weights, &both, &["gate_proj", "up_proj"].map(stacked))?;
                let down = format!("{mlp}.experts.down_proj");
                turn_columns(weights, &down, &[stacked("down_proj")])?;
            }
        }
        Ok(())
    }

    /// `shared` is the size of the expert for every token.
    fn build(
        &self,
        common: &Common,
        builder: &mut Builder<'_, '_>,
        attention: &AttentionConfig,
        shared: Option<i32>,
    ) -> Result<Decoder<Block<Sparse>>, LoadError> {
        let block = common.block()?;
        let hidden = block.hidden;
        let mixture = self.mixture(hidden)?;
        let gated = |builder: &mut Builder<'_, '_>, path: &str, inner| {
            Mlp::gated(builder, path, hidden, inner, block.activation, false)
        };
        common.build(builder, |builder, index, path| {
            let mlp = format!("{path}.mlp");
            let mlp = if self.is_sparse(index) {
                let mut mixture = Mixture::build(builder, &mlp, ["gate", "switch_mlp"], &mixture)?;
                if let Some(inner) = shared {
                    let gate = format!("{mlp}.shared_expert_gate");
                    mixture.shared = Some(Shared {
                        mlp: gated(builder, &format!("{mlp}.shared_expert"), inner)?,
                        gate: Some(builder.linear(&gate, hidden, 1, false)?),
                    });
                }
                Sparse::Mixture(Box::new(mixture))
            } else {
                Sparse::Dense(gated(builder, &mlp, block.inner)?)
            };
            block.pre_norm_around(builder, path, attention, mlp)
        })
    }
}

/// Qwen3's.
pub struct Qwen3Moe;

impl Variant for Qwen3Moe {
    type Own = QwenMoeConfig;
    type Layer = Block<Sparse>;

    fn complete(_: &QwenMoeConfig, common: &mut Common) {
        common.context.get_or_insert(32_768);
    }

    fn sanitize(
        own: &QwenMoeConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        own.sanitize(common, weights)
    }

    fn build(
        own: &QwenMoeConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block<Sparse>>, LoadError> {
        let attention = AttentionConfig {
            norms: Some((NormOver::Heads, common.norm()?.eps)),
            ..common.attention()?.with_biases(own.attention_bias)
        };
        own.build(common, builder, &attention, None)
    }
}

/// Qwen2's.
pub struct Qwen2Moe;

impl Variant for Qwen2Moe {
    type Own = QwenMoeConfig;
    type Layer = Block<Sparse>;

    fn complete(_: &QwenMoeConfig, common: &mut Common) {
        common.context.get_or_insert(32_768);
    }

    fn sanitize(
        own: &QwenMoeConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        own.sanitize(common, weights)
    }

    fn build(
        own: &QwenMoeConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block<Sparse>>, LoadError> {
        let attention = AttentionConfig {
            qkv_bias: own.qkv_bias.unwrap_or(true),
            ..common.attention()?
        };
        let inner = own
            .shared_expert_intermediate_size
            .ok_or_else(|| LoadError::config("shared_expert_intermediate_size", "is missing"))?;
        let inner = dimension("shared_expert_intermediate_size", inner)?;
        own.build(common, builder, &attention, Some(inner))
    }
}
