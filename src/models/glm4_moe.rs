//! GLM-4.5 (Zhipu AI, 2025). The reference is mlx-lm's `models/glm4_moe.py`.

use serde::Deserialize;

use crate::mlx::Scoring;

use super::builder::Builder;
use super::error::LoadError;
use super::grouped_experts::GroupedExperts;
use super::layers::{AttentionConfig, Block, Decoder, NormOver, Sparse};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct Glm4MoeConfig {
    moe_intermediate_size: u64,
    n_routed_experts: Option<u64>,
    n_shared_experts: Option<u64>,
    num_experts_per_tok: u64,
    n_group: Option<u64>,
    topk_group: Option<u64>,
    norm_topk_prob: bool,
    routed_scaling_factor: f32,
    first_k_dense_replace: usize,
    scoring_func: Option<String>,
    topk_method: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    use_qk_norm: bool,
    partial_rotary_factor: Option<f64>,
}

impl Glm4MoeConfig {
    fn experts(&self, common: &Common) -> GroupedExperts<'_> {
        GroupedExperts {
            hidden_size: common.hidden_size,
            intermediate_size: common.intermediate_size,
            moe_intermediate_size: self.moe_intermediate_size,
            n_routed_experts: self.n_routed_experts,
            n_shared_experts: self.n_shared_experts,
            num_experts_per_tok: self.num_experts_per_tok,
            n_group: self.n_group,
            topk_group: self.topk_group,
            norm_topk_prob: self.norm_topk_prob,
            routed_scaling_factor: self.routed_scaling_factor,
            first_k_dense_replace: self.first_k_dense_replace,
            moe_layer_freq: 1,
            scoring: Scoring::Sigmoid,
            scoring_func: self.scoring_func.as_deref(),
            topk_method: self.topk_method.as_deref(),
        }
    }
}

/// GLM-4.5.
pub struct Glm4Moe;

impl Variant for Glm4Moe {
    type Own = Glm4MoeConfig;
    type Layer = Block<Sparse>;

    fn complete(own: &Glm4MoeConfig, common: &mut Common) {
        common.context.get_or_insert(131_072);
        common.rope_partial = own.partial_rotary_factor;
    }

    fn sanitize(
        own: &Glm4MoeConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        own.experts(common)
            .sanitize(weights, common.num_hidden_layers)
    }

    fn build(
        own: &Glm4MoeConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block<Sparse>>, LoadError> {
        let block = common.block()?;
        let attention = AttentionConfig {
            qkv_bias: own.attention_bias,
            norms: own.use_qk_norm.then_some((NormOver::Heads, block.norm.eps)),
            ..common.attention()?
        };
        let experts = own.experts(common);
        common.build(builder, |builder, index, path| {
            let mlp = experts.layer(builder, index, &format!("{path}.mlp"))?;
            block.pre_norm_around(builder, path, &attention, mlp)
        })
    }
}
