//! Command R7B and Command A (Cohere, 2024): attention and feed-forward layer side by side; three layers
//! of four see a window, and only these encode positions. The reference is mlx-lm's `models/cohere2.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    Attention, AttentionConfig, AttentionShape, Decoder, DecoderConfig, Mlp, ParallelBlock,
    RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows::{self, Windows};

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Cohere2Config {
    hidden_size: u64,
    head_dim: Option<u64>,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    layer_norm_bias: Option<bool>,
    attention_bias: Option<bool>,
    logit_scale: Option<f32>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
}

impl Cohere2Config {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(8192)
    }

    fn slides(&self, index: usize) -> bool {
        match &self.layer_types {
            Some(types) => types
                .get(index)
                .is_some_and(|kind| kind == "sliding_attention"),
            None => !(index + 1).is_multiple_of(self.sliding_window_pattern.unwrap_or(4)),
        }
    }

    fn windows(&self) -> Result<Windows, LoadError> {
        let (layers, context) = (self.num_hidden_layers, self.context_length());
        let window = self.sliding_window.unwrap_or(4096);
        match &self.layer_types {
            Some(types) => windows::by_types(types, layers, Some(window), context),
            None => windows::by_index(layers, window, context, |index| self.slides(index)),
        }
    }
}

/// Cohere 2.
pub struct Cohere2;

impl Architecture for Cohere2 {
    type Config = Cohere2Config;
    type Model = Decoder<ParallelBlock>;

    fn sanitize(config: &Cohere2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(Some(true));
        Ok(())
    }

    fn build(
        config: &Cohere2Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<ParallelBlock>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            Some(config.num_key_value_heads),
            config.head_dim,
        )?;
        let rope = RopeConfig {
            theta: config.rope_theta.or(Some(50_000.0)),
            traditional: true,
            parameters: config.rope_parameters.clone(),
            ..RopeConfig::default()
        };
        let bias = config.attention_bias.unwrap_or(false);
        let windows = config.windows()?;
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let inner = dimension("intermediate_size", config.intermediate_size)?;
        let eps = config.layer_norm_eps.unwrap_or(1e-5);
        let norm_bias = config.layer_norm_bias.unwrap_or(false);
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers: config.num_hidden_layers,
            context_length: config.context_length(),
            tied: Some(true),
            logit_scale: Some(config.logit_scale.unwrap_or(0.0625)),
            ..DecoderConfig::default()
        };
        let layer = |builder: &mut Builder<'_, '_>, index, path: &str| {
            let attention = AttentionConfig {
                qkv_bias: bias,
                out_bias: bias,
                rope: Some(rope.clone()).filter(|_| config.slides(index)),
                ..AttentionConfig::plain(shape, rope.clone())
            };
            let norm = format!("{path}.input_layernorm");
            Ok(ParallelBlock {
                norm: builder.layer_norm(&norm, hidden, eps, norm_bias)?,
                attention: Attention::build(
                    builder,
                    &format!("{path}.self_attn"),
                    hidden,
                    &attention.with_window(windows.of(index)),
                )?,
                mlp: Mlp::gated(
                    builder,
                    &format!("{path}.mlp"),
                    hidden,
                    inner,
                    Activation::Silu,
                    false,
                )?,
            })
        };
        Decoder::build(builder, &decoder, layer, |builder, path| {
            Ok(builder.layer_norm(path, hidden, eps, norm_bias)?.into())
        })
    }
}
