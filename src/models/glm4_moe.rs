//! GLM-4.5 (Zhipu AI, 2025). The reference is mlx-lm's `models/glm4_moe.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::grouped_experts::GroupedExperts;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, NormOver,
    RopeConfig, Sparse, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Glm4MoeConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
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
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    use_qk_norm: bool,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl Glm4MoeConfig {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(131_072)
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: self.rope_theta,
            partial: self.partial_rotary_factor,
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        }
    }

    fn experts(&self) -> GroupedExperts<'_> {
        GroupedExperts {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
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

impl Architecture for Glm4Moe {
    type Config = Glm4MoeConfig;
    type Model = Decoder<Block<Sparse>>;

    fn sanitize(config: &Glm4MoeConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        config.experts().sanitize(weights, config.num_hidden_layers)
    }

    fn build(
        config: &Glm4MoeConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let eps = config.rms_norm_eps;
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            norms: config.use_qk_norm.then_some((NormOver::Heads, eps)),
            ..AttentionConfig::plain(shape, config.rope())
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let block = BlockConfig {
            hidden,
            inner: dimension("intermediate_size", config.intermediate_size)?,
            eps,
            activation: Activation::Silu,
            mlp_bias: false,
        };
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers: config.num_hidden_layers,
            context_length: config.context_length(),
            tied: config.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        let experts = config.experts();
        Decoder::build(
            builder,
            &decoder,
            |builder, index, path| {
                let mlp = experts.layer(builder, index, &format!("{path}.mlp"))?;
                block.pre_norm_around(builder, path, &attention, mlp)
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
