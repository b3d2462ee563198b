//! Phi-1, Phi-1.5 and Phi-2 (Microsoft, 2023): attention and feed-forward layer side by side, biases
//! everywhere, a part of each head turned by position. The reference is mlx-lm's `models/phi.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{
    Attention, AttentionConfig, Decoder, DecoderConfig, Mlp, ParallelBlock, RopeConfig,
    only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct PhiConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    partial_rotary_factor: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl PhiConfig {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: None,
            eps: self.layer_norm_eps.unwrap_or(1e-5),
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings.unwrap_or(2048),
            tied: Some(false),
            rope: RopeConfig {
                theta: self.rope_theta,
                partial: Some(self.partial_rotary_factor.unwrap_or(0.4)),
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// Phi.
pub struct Phi;

impl Architecture for Phi {
    type Config = PhiConfig;
    type Model = Decoder<ParallelBlock>;

    fn sanitize(config: &PhiConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation(
            "hidden_act",
            config.hidden_act.as_deref(),
            Activation::GeluTanh,
        )?;
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
        weights.rename(|name| {
            if let Some(rest) = name.strip_prefix("model.final_layernorm.") {
                return Some(format!("model.norm.{rest}"));
            }
            let (layer, rest) = name.split_once(".self_attn.dense.")?;
            Some(format!("{layer}.self_attn.o_proj.{rest}"))
        });
        Ok(())
    }

    fn build(
        config: &PhiConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<ParallelBlock>, LoadError> {
        let dense = config.dense();
        let block = dense.block(Activation::GeluTanh)?;
        let (hidden, inner, eps) = (block.hidden, block.inner, block.eps);
        let attention = AttentionConfig {
            qkv_bias: true,
            out_bias: true,
            ..dense.attention()?
        };
        let decoder = DecoderConfig {
            head_bias: true,
            ..dense.decoder()
        };
        let layer = |builder: &mut Builder<'_, '_>, _, path: &str| {
            let norm = format!("{path}.input_layernorm");
            let own = format!("{path}.self_attn");
            Ok(ParallelBlock {
                norm: builder.layer_norm(&norm, hidden, eps, true)?,
                attention: Attention::build(builder, &own, hidden, &attention)?,
                mlp: Mlp {
                    gate: None,
                    up: builder.linear(&format!("{path}.mlp.fc1"), hidden, inner, true)?,
                    down: builder.linear(&format!("{path}.mlp.fc2"), inner, hidden, true)?,
                    activation: block.activation,
                },
            })
        };
        Decoder::build(builder, &decoder, layer, |builder, path| {
            Ok(builder.layer_norm(path, hidden, eps, true)?.into())
        })
    }
}
