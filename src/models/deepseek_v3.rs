//! DeepSeek-V3 (DeepSeek-AI, 2024), also Kimi K2 and GLM-4.7-Flash. The reference is mlx-lm's `models/deepseek_v3.py`.

use serde::Deserialize;

use crate::mlx::Scoring;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::grouped_experts::GroupedExperts;
use super::latents::split_heads;
use super::layers::{Decoder, LatentAttention, LatentBlock, LatentShape, Sparse};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct DeepseekConfig {
    moe_intermediate_size: u64,
    q_lora_rank: Option<u64>,
    kv_lora_rank: u64,
    qk_nope_head_dim: u64,
    qk_rope_head_dim: u64,
    v_head_dim: u64,
    n_routed_experts: Option<u64>,
    n_shared_experts: Option<u64>,
    num_experts_per_tok: u64,
    n_group: Option<u64>,
    topk_group: Option<u64>,
    norm_topk_prob: Option<bool>,
    routed_scaling_factor: Option<f32>,
    #[serde(default)]
    first_k_dense_replace: usize,
    moe_layer_freq: Option<usize>,
    scoring_func: Option<String>,
    topk_method: Option<String>,
    #[serde(default)]
    attention_bias: bool,
}

impl DeepseekConfig {
    fn heads(&self, common: &Common) -> Result<LatentShape, LoadError> {
        let shape = LatentShape {
            heads: dimension("num_attention_heads", common.num_attention_heads)?,
            plain: dimension("qk_nope_head_dim", self.qk_nope_head_dim)?,
            turned: dimension("qk_rope_head_dim", self.qk_rope_head_dim)?,
            value: dimension("v_head_dim", self.v_head_dim)?,
            rank: dimension("kv_lora_rank", self.kv_lora_rank)?,
            query_rank: match self.q_lora_rank {
                Some(rank) => Some(dimension("q_lora_rank", rank)?),
                None => None,
            },
        };
        // All heads together are a dimension as well.
        let widest = self.kv_lora_rank.max(self.v_head_dim);
        let widest = widest.max(self.qk_nope_head_dim + self.qk_rope_head_dim);
        dimension("num_attention_heads", common.num_attention_heads * widest)?;
        Ok(shape)
    }

    /// What scores are multiplied by: where positions are stretched, it makes up for what that does to
    /// the softmax (YaRN).
    fn scale(&self, common: &Common) -> f32 {
        let features = (self.qk_nope_head_dim + self.qk_rope_head_dim) as f64;
        let section = common.rope_scaling.as_ref();
        let section = section.or(common.rope_parameters.as_ref());
        let number = |key: &str| section.and_then(|section| section.get(key)?.as_f64());
        let stretch = match (number("mscale_all_dim"), number("factor")) {
            (Some(all), Some(factor)) if all != 0.0 && factor > 1.0 => {
                0.1 * all * factor.ln() + 1.0
            }
            _ => 1.0,
        };
        (features.powf(-0.5) * stretch * stretch) as f32
    }

    fn experts(&self, common: &Common, scoring: Scoring) -> GroupedExperts<'_> {
        GroupedExperts {
            hidden_size: common.hidden_size,
            intermediate_size: common.intermediate_size,
            moe_intermediate_size: self.moe_intermediate_size,
            n_routed_experts: self.n_routed_experts,
            n_shared_experts: self.n_shared_experts,
            num_experts_per_tok: self.num_experts_per_tok,
            n_group: self.n_group,
            topk_group: self.topk_group,
            // mlx-lm's defaults.
            norm_topk_prob: self.norm_topk_prob.unwrap_or(scoring == Scoring::Sigmoid),
            routed_scaling_factor: self.routed_scaling_factor.unwrap_or(1.0),
            first_k_dense_replace: self.first_k_dense_replace,
            moe_layer_freq: self.moe_layer_freq.unwrap_or(1),
            scoring,
            scoring_func: self.scoring_func.as_deref(),
            topk_method: self.topk_method.as_deref(),
        }
    }

    /// What becomes of the tensors before anything is built.
    pub(super) fn sanitize(
        &self,
        common: &Common,
        weights: &mut Weights<'_>,
        scoring: Scoring,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        let layers = common.num_hidden_layers;
        self.experts(common, scoring).sanitize(weights, layers)?;
        let shape = self.heads(common)?;
        for layer in 0..layers {
            split_heads(weights, &format!("model.layers.{layer}.self_attn"), shape)?;
        }
        Ok(())
    }

    /// The model, whose experts are chosen by `scoring`.
    pub(super) fn build(
        &self,
        common: &Common,
        builder: &mut Builder<'_, '_>,
        scoring: Scoring,
    ) -> Result<Decoder<DeepseekLayer>, LoadError> {
        let (shape, rope, norm) = (self.heads(common)?, common.rope()?, common.norm()?);
        let hidden = dimension("hidden_size", common.hidden_size)?;
        let (bias, scale) = (self.attention_bias, self.scale(common));
        let experts = self.experts(common, scoring);
        common.build(builder, |builder, index, path| {
            let attention = format!("{path}.self_attn");
            let attention =
                LatentAttention::build(builder, &attention, hidden, shape, bias, &rope, scale)?;
            let mlp = experts.layer(builder, index, &format!("{path}.mlp"))?;
            let mut norm =
                |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, norm.eps);
            Ok(LatentBlock {
                attention,
                mlp,
                attention_norm: norm("input_layernorm")?,
                mlp_norm: norm("post_attention_layernorm")?,
            })
        })
    }
}

/// Latent attention, and experts in most layers.
pub type DeepseekLayer = LatentBlock<Sparse>;

/// What mlx-lm takes where the file does not say.
pub fn complete(common: &mut Common) {
    common.context.get_or_insert(4096);
    common.rope_traditional = Some(true);
}

/// DeepSeek-V3.
pub struct DeepseekV3;

impl Variant for DeepseekV3 {
    type Own = DeepseekConfig;
    type Layer = DeepseekLayer;

    fn complete(_: &DeepseekConfig, common: &mut Common) {
        complete(common);
    }

    fn sanitize(
        own: &DeepseekConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        own.sanitize(common, weights, Scoring::Sigmoid)
    }

    fn build(
        own: &DeepseekConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<DeepseekLayer>, LoadError> {
        own.build(common, builder, Scoring::Sigmoid)
    }
}
