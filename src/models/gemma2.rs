//! Gemma 2 (Gemma Team, 2024): norms on both sides of both halves, and soft caps on scores and logits.
//! The reference is mlx-lm's `models/gemma2.py`; the windows are transformers', mlx-lm has none.

use serde::Deserialize;

use crate::mlx::Activation;
use crate::mlx::fast::Scores;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, RopeConfig,
    only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows::{self, Windows};

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Gemma2Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    head_dim: u64,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    rope_theta: Option<f64>,
    rope_traditional: Option<bool>,
    rope_parameters: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default = "usual_attention_cap")]
    attn_logit_softcapping: Option<f32>,
    #[serde(default = "usual_cap")]
    final_logit_softcapping: Option<f32>,
    query_pre_attn_scalar: Option<f32>,
    sliding_window: Option<u64>,
    layer_types: Option<Vec<String>>,
}

// Where the file does not say; `null` means none.

fn usual_attention_cap() -> Option<f32> {
    Some(50.0)
}

fn usual_cap() -> Option<f32> {
    Some(30.0)
}

impl Gemma2Config {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(8192)
    }

    /// Every other layer has one, the first included.
    fn windows(&self) -> Result<Windows, LoadError> {
        let (layers, context) = (self.num_hidden_layers, self.context_length());
        match (&self.layer_types, self.sliding_window) {
            (Some(types), window) => windows::by_types(types, layers, window, context),
            (None, Some(window)) => {
                windows::by_index(layers, window, context, |index| index % 2 == 0)
            }
            (None, None) => Ok(windows::none(layers)),
        }
    }
}

/// Gemma 2.
pub struct Gemma2;

impl Architecture for Gemma2 {
    type Config = Gemma2Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Gemma2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        let name = config
            .hidden_activation
            .as_ref()
            .or(config.hidden_act.as_ref());
        only_activation(
            "hidden_activation",
            name.map(String::as_str),
            Activation::GeluTanh,
        )?;
        weights.discard_tied_head(Some(true));
        Ok(())
    }

    fn build(
        config: &Gemma2Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            Some(config.num_key_value_heads),
            Some(config.head_dim),
        )?;
        let rope = RopeConfig {
            theta: config.rope_theta,
            traditional: config.rope_traditional.unwrap_or(false),
            parameters: config.rope_parameters.clone(),
            ..RopeConfig::default()
        };
        let attention = AttentionConfig {
            scores: Scores {
                scale: config.query_pre_attn_scalar.unwrap_or(144.0).powf(-0.5),
                soft_cap: config.attn_logit_softcapping,
                ..Scores::plain(shape.head_dim)
            },
            ..AttentionConfig::plain(shape, rope)
        };
        let windows = config.windows()?;
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let eps = config.rms_norm_eps;
        let block = BlockConfig {
            hidden,
            inner: dimension("intermediate_size", config.intermediate_size)?,
            eps,
            activation: Activation::GeluTanh,
            mlp_bias: false,
        };
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers: config.num_hidden_layers,
            context_length: config.context_length(),
            embedding_scale: Some((hidden as f32).sqrt()),
            tied: Some(true),
            logit_cap: config.final_logit_softcapping,
            ..DecoderConfig::default()
        };
        Decoder::build(
            builder,
            &decoder,
            |builder, index, path| {
                let attention = attention.with_window(windows.of(index));
                block.gemma(builder, path, &attention)
            },
            |builder, path| Ok(builder.offset_rms_norm(path, hidden, eps)?.into()),
        )
    }
}
