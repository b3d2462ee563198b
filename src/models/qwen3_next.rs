//! Qwen3-Next (Qwen team, 2025): gated delta networks, gated attention in every fourth layer, and
//! experts. What Qwen3.5 shares with it is here too. The reference is mlx-lm's `models/qwen3_next.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Routing, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    Around, Attention, AttentionConfig, AttentionShape, Block, Decoder, DecoderConfig, DeltaConfig,
    DeltaInputs, GatedDelta, Mixer, Mixture, MixtureConfig, Mlp, NormConfig, NormOver, RopeConfig,
    Shared, Sparse, attends, choices, only_activation, plain_routing,
};
use super::registry::Architecture;
use super::stacking::{USUAL, rename, split_rows, stack_experts};
use super::weights::Weights;

/// A model of these layers.
pub type QwenHybrid = Decoder<Block<Sparse, Box<dyn Mixer>>>;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct QwenHybridConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: Option<u64>,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    linear_num_value_heads: u64,
    linear_num_key_heads: u64,
    linear_key_head_dim: u64,
    linear_value_head_dim: u64,
    linear_conv_kernel_dim: Option<u64>,
    full_attention_interval: Option<usize>,
    layer_types: Option<Vec<String>>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    attn_output_gate: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    num_experts: Option<u64>,
    num_experts_per_tok: Option<u64>,
    moe_intermediate_size: Option<u64>,
    shared_expert_intermediate_size: Option<u64>,
    norm_topk_prob: Option<bool>,
    decoder_sparse_step: Option<usize>,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
}

/// What distinguishes the models of these layers.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// How the projections of the linear layers lie.
    pub inputs: DeltaInputs,
    /// `rope_theta` where the configuration does not say.
    pub theta: f64,
    /// `partial_rotary_factor`, likewise.
    pub partial: f64,
    /// `norm_topk_prob`, likewise.
    pub normalize: bool,
}

impl QwenHybridConfig {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(131_072)
    }

    /// Whether each layer has attention.
    fn attends(&self) -> Result<Vec<bool>, LoadError> {
        let layers = self.num_hidden_layers;
        let Some(types) = &self.layer_types else {
            let interval = self.full_attention_interval.unwrap_or(4).max(1);
            return Ok((0..layers)
                .map(|i| (i + 1).is_multiple_of(interval))
                .collect());
        };
        attends(types, layers, "linear_attention")
    }

    fn attention(&self, kind: Kind) -> Result<AttentionConfig, LoadError> {
        let shape = AttentionShape::new(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )?;
        let bias = self.attention_bias.unwrap_or(false);
        Ok(AttentionConfig {
            qkv_bias: bias,
            out_bias: bias,
            norms: Some((NormOver::Heads, self.rms_norm_eps)),
            gated: true,
            ..AttentionConfig::plain(shape, self.rope(kind))
        })
    }

    fn delta(&self, hidden: i32) -> DeltaConfig {
        DeltaConfig {
            hidden,
            key_heads: self.linear_num_key_heads,
            value_heads: self.linear_num_value_heads,
            key_dim: self.linear_key_head_dim,
            value_dim: self.linear_value_head_dim,
            taps: self.linear_conv_kernel_dim.unwrap_or(4),
            eps: self.rms_norm_eps,
        }
    }

    fn rope(&self, kind: Kind) -> RopeConfig {
        RopeConfig {
            theta: Some(self.rope_theta.unwrap_or(kind.theta)),
            partial: Some(self.partial_rotary_factor.unwrap_or(kind.partial)),
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        }
    }

    /// Checks the fields, and brings transformers' layout into mlx-lm's.
    pub fn sanitize(&self, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", self.hidden_act.as_deref(), Activation::Silu)?;
        if self.attn_output_gate == Some(false) {
            let message = "attention without a gate is not supported in this architecture";
            return Err(LoadError::config("attn_output_gate", message));
        }
        // The heads that predict several tokens.
        weights.discard(|name| name.starts_with("mtp.") || name.contains(".mtp."));
        weights.discard_tied_head(self.tie_word_embeddings);
        offset_norms(weights);
        for index in (0..self.num_hidden_layers).filter(|&index| self.is_sparse(index)) {
            self.stack(weights, &format!("model.layers.{index}.mlp"))?;
        }
        Ok(())
    }

    /// Puts the experts of a layer into one tensor each of a kind.
    fn stack(&self, weights: &mut Weights<'_>, mlp: &str) -> Result<(), LoadError> {
        let (experts, _) = self.experts()?;
        stack_experts(weights, mlp, experts, &USUAL)?;
        // Qwen3.5 has them together already, gate and rest in one.
        let both = format!("{mlp}.experts.gate_up_proj");
        if weights.contains(&both) {
            let stacked = |name: &str| format!("{mlp}.switch_mlp.{name}.weight");
            split_rows(weights, &both, ["gate_proj", "up_proj"].map(stacked))?;
            rename(
                weights,
                &format!("{mlp}.experts.down_proj"),
                stacked("down_proj"),
            )?;
        }
        Ok(())
    }

    /// Whether the layer at `index` has experts.
    fn is_sparse(&self, index: usize) -> bool {
        let step = self.decoder_sparse_step.unwrap_or(1).max(1);
        self.num_experts.is_some_and(|experts| experts > 0)
            && !self.mlp_only_layers.contains(&index)
            && (index + 1).is_multiple_of(step)
    }

    fn experts(&self) -> Result<(i32, i32), LoadError> {
        choices(
            ("num_experts", self.num_experts.unwrap_or(0)),
            ("num_experts_per_tok", self.num_experts_per_tok.unwrap_or(0)),
        )
    }

    /// The feed-forward layer at `path`.
    fn feed_forward(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        index: usize,
        kind: Kind,
    ) -> Result<Sparse, LoadError> {
        let hidden = dimension("hidden_size", self.hidden_size)?;
        let gated = |builder: &mut Builder<'_, '_>, path: &str, key: &str, inner: Option<u64>| {
            let inner = inner.ok_or_else(|| LoadError::config(key, "is missing"))?;
            let inner = dimension(key, inner)?;
            Mlp::gated(builder, path, hidden, inner, Activation::Silu, false)
        };
        if !self.is_sparse(index) {
            let mlp = gated(builder, path, "intermediate_size", self.intermediate_size)?;
            return Ok(Sparse::Dense(mlp));
        }
        let (experts, choices) = self.experts()?;
        let routing = Routing {
            normalize: self.norm_topk_prob.unwrap_or(kind.normalize),
            ..plain_routing(Scoring::Softmax, choices)
        };
        let inner = self.moe_intermediate_size.unwrap_or(0);
        let inner = dimension("moe_intermediate_size", inner)?;
        let mut mixture = Mixture::build(
            builder,
            path,
            ["gate", "switch_mlp"],
            &MixtureConfig::plain(hidden, inner, experts, routing),
        )?;
        let shared = format!("{path}.shared_expert");
        let key = "shared_expert_intermediate_size";
        mixture.shared = Some(Shared {
            mlp: gated(builder, &shared, key, self.shared_expert_intermediate_size)?,
            gate: Some(builder.linear(&format!("{shared}_gate"), hidden, 1, false)?),
        });
        Ok(Sparse::Mixture(Box::new(mixture)))
    }

    /// The model.
    pub fn build(
        &self,
        builder: &mut Builder<'_, '_>,
        kind: Kind,
    ) -> Result<QwenHybrid, LoadError> {
        let hidden = dimension("hidden_size", self.hidden_size)?;
        let (delta, attention) = (self.delta(hidden), self.attention(kind)?);
        let (attends, eps) = (self.attends()?, self.rms_norm_eps);
        Decoder::build(
            builder,
            &DecoderConfig {
                hidden_size: self.hidden_size,
                vocab_size: self.vocab_size,
                layers: self.num_hidden_layers,
                context_length: self.context_length(),
                tied: self.tie_word_embeddings,
                ..DecoderConfig::default()
            },
            NormConfig::rms(eps),
            |builder, index, path| {
                let mixer: Box<dyn Mixer> = if attends.get(index) == Some(&true) {
                    let path = format!("{path}.self_attn");
                    Box::new(Attention::build(builder, &path, hidden, &attention)?)
                } else {
                    let path = format!("{path}.linear_attn");
                    Box::new(GatedDelta::build(builder, &path, kind.inputs, &delta)?)
                };
                let mut norm =
                    |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, eps);
                let attention_norms = Around::before(norm("input_layernorm")?);
                let mlp_norms = Around::before(norm("post_attention_layernorm")?);
                Ok(Block {
                    attention_norms,
                    attention: mixer,
                    mlp_norms,
                    mlp: self.feed_forward(builder, &format!("{path}.mlp"), index, kind)?,
                    branch_scale: None,
                })
            },
        )
    }
}

/// transformers has most norms of these models as an offset from one. Its convolutions, with their taps
/// at the end, tell such a checkpoint.
fn offset_norms(weights: &mut Weights<'_>) {
    let convolution = weights.names().find(|name| name.ends_with("conv1d.weight"));
    let taps_last = convolution
        .and_then(|name| weights.shape(name))
        .is_some_and(|shape| shape.last() != Some(&1));
    if taps_last {
        weights.add_one(|name| {
            let norms = [
                ".input_layernorm.weight",
                ".post_attention_layernorm.weight",
                "model.norm.weight",
                ".q_norm.weight",
                ".k_norm.weight",
            ];
            norms.iter().any(|norm| name.ends_with(norm))
        });
    }
}

/// Qwen3-Next.
pub struct Qwen3Next;

impl Architecture for Qwen3Next {
    type Config = QwenHybridConfig;
    type Model = QwenHybrid;

    fn sanitize(config: &QwenHybridConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        config.sanitize(weights)
    }

    fn build(
        config: &QwenHybridConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<QwenHybrid, LoadError> {
        let kind = Kind {
            inputs: DeltaInputs::ByKeyHeads,
            theta: 10_000.0,
            partial: 0.25,
            normalize: false,
        };
        config.build(builder, kind)
    }
}
