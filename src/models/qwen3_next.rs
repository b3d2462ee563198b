//! Qwen3-Next (Qwen team, 2025): gated delta networks, and gated attention in every fourth layer.
//! What Qwen3.5 shares with it is here too. The reference is mlx-lm's `models/qwen3_next.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    Around, Attention, AttentionConfig, AttentionShape, Block, Decoder, DecoderConfig, DeltaConfig,
    DeltaInputs, GatedDelta, Mixer, Mlp, NormOver, RopeConfig, only_activation,
};
use super::weights::Weights;

/// A model of these layers.
pub type QwenHybrid = Decoder<Block<Mlp, Box<dyn Mixer>>>;

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
        if types.len() != layers {
            let message = format!("{} types for {layers} layers", types.len());
            return Err(LoadError::config("layer_types", message));
        }
        let attends = |kind: &String| match kind.as_str() {
            "full_attention" => Ok(true),
            "linear_attention" => Ok(false),
            other => Err(LoadError::config(
                "layer_types",
                format!("\"{other}\" is neither \"full_attention\" nor \"linear_attention\""),
            )),
        };
        types.iter().map(attends).collect()
    }

    fn attention(&self, rope: RopeConfig) -> Result<AttentionConfig, LoadError> {
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
            ..AttentionConfig::plain(shape, rope)
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

    /// The rope of these fields; `theta` and `partial` where they are absent.
    pub fn rope(&self, theta: f64, partial: f64) -> RopeConfig {
        RopeConfig {
            theta: Some(self.rope_theta.unwrap_or(theta)),
            partial: Some(self.partial_rotary_factor.unwrap_or(partial)),
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
        Ok(())
    }

    /// The model, with its projections laid out as `inputs` says.
    pub fn build(
        &self,
        builder: &mut Builder<'_, '_>,
        inputs: DeltaInputs,
        rope: RopeConfig,
    ) -> Result<QwenHybrid, LoadError> {
        let hidden = dimension("hidden_size", self.hidden_size)?;
        let missing = || LoadError::config("intermediate_size", "is missing");
        let inner = self.intermediate_size.ok_or_else(missing)?;
        let inner = dimension("intermediate_size", inner)?;
        let (delta, attention) = (self.delta(hidden), self.attention(rope)?);
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
            |builder, index, path| {
                let mixer: Box<dyn Mixer> = if attends.get(index) == Some(&true) {
                    let path = format!("{path}.self_attn");
                    Box::new(Attention::build(builder, &path, hidden, &attention)?)
                } else {
                    let path = format!("{path}.linear_attn");
                    Box::new(GatedDelta::build(builder, &path, inputs, &delta)?)
                };
                let mut norm =
                    |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, eps);
                let attention_norms = Around::before(norm("input_layernorm")?);
                let mlp_norms = Around::before(norm("post_attention_layernorm")?);
                let mlp = format!("{path}.mlp");
                Ok(Block {
                    attention_norms,
                    attention: mixer,
                    mlp_norms,
                    mlp: Mlp::gated(builder, &mlp, hidden, inner, Activation::Silu, false)?,
                    branch_scale: None,
                })
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
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
