//! Qwen3's mixtures of experts (Qwen3 Technical Report, 2025), and Qwen2's, which have an expert for
//! every token too. The references are mlx-lm's `models/qwen3_moe.py` and `models/qwen2_moe.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Routing, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, Mixture,
    MixtureConfig, Mlp, NormOver, RopeConfig, Shared, Sparse, choices, only_activation,
    plain_routing,
};
use super::registry::Architecture;
use super::stacking::{stack_experts, turn_columns};
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct QwenMoeConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
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
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    qkv_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
}

impl QwenMoeConfig {
    fn check(&self) -> Result<(), LoadError> {
        only_activation("hidden_act", self.hidden_act.as_deref(), Activation::Silu)?;
        match (self.use_sliding_window, self.sliding_window) {
            (Some(true), Some(window)) => Err(LoadError::config(
                "use_sliding_window",
                format!("a window of {window} positions is not supported in this architecture"),
            )),
            _ => Ok(()),
        }
    }

    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(32_768)
    }

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

    fn attention(&self) -> Result<AttentionConfig, LoadError> {
        let shape = AttentionShape::new(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )?;
        let rope = RopeConfig {
            theta: self.rope_theta,
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        };
        Ok(AttentionConfig::plain(shape, rope))
    }

    fn mixture(&self) -> Result<MixtureConfig, LoadError> {
        let (experts, choices) = self.experts()?;
        Ok(MixtureConfig::plain(
            dimension("hidden_size", self.hidden_size)?,
            dimension("moe_intermediate_size", self.moe_intermediate_size)?,
            experts,
            Routing {
                normalize: self.norm_topk_prob,
                ..plain_routing(Scoring::Softmax, choices)
            },
        ))
    }

    fn sanitize(&self, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        self.check()?;
        weights.discard_tied_head(self.tie_word_embeddings);
        let (experts, _) = self.experts()?;
        let names = ["gate_proj", "up_proj", "down_proj"].map(|name| (name, name));
        for layer in 0..self.num_hidden_layers {
            let mlp = format!("model.layers.{layer}.mlp");
            stack_experts(weights, &mlp, experts, &names)?;
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

    fn build(
        &self,
        builder: &mut Builder<'_, '_>,
        attention: &AttentionConfig,
        shared: Option<i32>,
    ) -> Result<Decoder<Block<Sparse>>, LoadError> {
        let mixture = self.mixture()?;
        let (hidden, eps) = (mixture.hidden, self.rms_norm_eps);
        let block = BlockConfig {
            hidden,
            inner: dimension("intermediate_size", self.intermediate_size)?,
            eps,
            activation: Activation::Silu,
            mlp_bias: false,
        };
        let decoder = DecoderConfig {
            hidden_size: self.hidden_size,
            vocab_size: self.vocab_size,
            layers: self.num_hidden_layers,
            context_length: self.context_length(),
            tied: self.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        let gated = |builder: &mut Builder<'_, '_>, path: &str, inner| {
            Mlp::gated(builder, path, hidden, inner, Activation::Silu, false)
        };
        Decoder::build(
            builder,
            &decoder,
            |builder, index, path| {
                let mlp = format!("{path}.mlp");
                let mlp = if self.is_sparse(index) {
                    let (router, experts) = (format!("{mlp}.gate"), format!("{mlp}.switch_mlp"));
                    let mut mixture = Mixture::build(builder, &router, &experts, &mixture)?;
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
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}

/// Qwen3's.
pub struct Qwen3Moe;

impl Architecture for Qwen3Moe {
    type Config = QwenMoeConfig;
    type Model = Decoder<Block<Sparse>>;

    fn sanitize(config: &QwenMoeConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        config.sanitize(weights)
    }

    fn build(
        config: &QwenMoeConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let bias = config.attention_bias.unwrap_or(false);
        let attention = AttentionConfig {
            qkv_bias: bias,
            out_bias: bias,
            norms: Some((NormOver::Heads, config.rms_norm_eps)),
            ..config.attention()?
        };
        config.build(builder, &attention, None)
    }
}

/// Qwen2's.
pub struct Qwen2Moe;

impl Architecture for Qwen2Moe {
    type Config = QwenMoeConfig;
    type Model = Decoder<Block<Sparse>>;

    fn sanitize(config: &QwenMoeConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        config.sanitize(weights)
    }

    fn build(
        config: &QwenMoeConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let attention = AttentionConfig {
            qkv_bias: config.qkv_bias.unwrap_or(true),
            ..config.attention()?
        };
        let inner = config
            .shared_expert_intermediate_size
            .ok_or_else(|| LoadError::config("shared_expert_intermediate_size", "is missing"))?;
        let inner = dimension("shared_expert_intermediate_size", inner)?;
        config.build(builder, &attention, Some(inner))
    }
}
