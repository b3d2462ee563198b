//! DeepSeek-V3 (DeepSeek-AI, 2024), also Kimi K2 and GLM-4.7-Flash. The reference is mlx-lm's `models/deepseek_v3.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::grouped_experts::GroupedExperts;
use super::latents::split_heads;
use super::layers::{
    Decoder, DecoderConfig, LatentAttention, LatentBlock, LatentShape, RopeConfig, Sparse,
    only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct DeepseekConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    moe_intermediate_size: u64,
    num_attention_heads: u64,
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
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl DeepseekConfig {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(4096)
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: self.rope_theta,
            traditional: true,
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        }
    }

    fn heads(&self) -> Result<LatentShape, LoadError> {
        let shape = LatentShape {
            heads: dimension("num_attention_heads", self.num_attention_heads)?,
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
        dimension("num_attention_heads", self.num_attention_heads * widest)?;
        Ok(shape)
    }

    /// What scores are multiplied by: where positions are stretched, it makes up for what that does to
    /// the softmax (YaRN).
    fn scale(&self) -> f32 {
        let features = (self.qk_nope_head_dim + self.qk_rope_head_dim) as f64;
        let section = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref());
        let number = |key: &str| section.and_then(|section| section.get(key)?.as_f64());
        let stretch = match (number("mscale_all_dim"), number("factor")) {
            (Some(all), Some(factor)) if all != 0.0 && factor > 1.0 => {
                0.1 * all * factor.ln() + 1.0
            }
            _ => 1.0,
        };
        (features.powf(-0.5) * stretch * stretch) as f32
    }

    fn experts(&self, scoring: Scoring) -> GroupedExperts<'_> {
        GroupedExperts {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
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
        weights: &mut Weights<'_>,
        scoring: Scoring,
    ) -> Result<(), LoadError> {
        only_activation("hidden_act", self.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(self.tie_word_embeddings);
        self.experts(scoring)
            .sanitize(weights, self.num_hidden_layers)?;
        let shape = self.heads()?;
        for layer in 0..self.num_hidden_layers {
            split_heads(weights, &format!("model.layers.{layer}.self_attn"), shape)?;
        }
        Ok(())
    }

    /// The model, whose experts are chosen by `scoring`.
    pub(super) fn build(
        &self,
        builder: &mut Builder<'_, '_>,
        scoring: Scoring,
    ) -> Result<DeepseekModel, LoadError> {
        let (shape, rope) = (self.heads()?, self.rope());
        let hidden = dimension("hidden_size", self.hidden_size)?;
        let (eps, bias, scale) = (self.rms_norm_eps, self.attention_bias, self.scale());
        let decoder = DecoderConfig {
            hidden_size: self.hidden_size,
            vocab_size: self.vocab_size,
            layers: self.num_hidden_layers,
            context_length: self.context_length(),
            tied: self.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        let experts = self.experts(scoring);
        Decoder::build(
            builder,
            &decoder,
            |builder, index, path| {
                let attention = format!("{path}.self_attn");
                Ok(LatentBlock {
                    attention: LatentAttention::build(
                        builder, &attention, hidden, shape, bias, &rope, scale,
                    )?,
                    mlp: experts.layer(builder, index, &format!("{path}.mlp"))?,
                    attention_norm: builder.rms_norm(
                        &format!("{path}.input_layernorm"),
                        hidden,
                        eps,
                    )?,
                    mlp_norm: builder.rms_norm(
                        &format!("{path}.post_attention_layernorm"),
                        hidden,
                        eps,
                    )?,
                })
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}

/// Latent attention, and experts in most layers.
pub type DeepseekModel = Decoder<LatentBlock<Sparse>>;

/// DeepSeek-V3.
pub struct DeepseekV3;

impl Architecture for DeepseekV3 {
    type Config = DeepseekConfig;
    type Model = DeepseekModel;

    fn sanitize(config: &DeepseekConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        config.sanitize(weights, Scoring::Sigmoid)
    }

    fn build(
        config: &DeepseekConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<DeepseekModel, LoadError> {
        config.build(builder, Scoring::Sigmoid)
    }
}
