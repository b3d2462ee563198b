//! Gemma (Gemma Team, 2024): norms that multiply by one more than their weights. The reference is mlx-lm's
//! `models/gemma.py`; the activation is transformers', which takes GELU by tanh also where an older
//! `config.json` says `"gelu"`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{
    Around, Block, Decoder, DecoderConfig, RopeConfig, activation, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct GemmaConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: u64,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    rope_theta: Option<f64>,
    rope_traditional: Option<bool>,
    rope_parameters: Option<Map<String, Value>>,
}

impl GemmaConfig {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: Some(self.head_dim),
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings.unwrap_or(8192),
            tied: Some(true),
            rope: RopeConfig {
                theta: self.rope_theta,
                traditional: self.rope_traditional.unwrap_or(false),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// Gemma.
pub struct Gemma;

impl Architecture for Gemma {
    type Config = GemmaConfig;
    type Model = Decoder<Block>;

    fn sanitize(config: &GemmaConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        let named = config.hidden_activation.as_deref();
        let named = named.or(config.hidden_act.as_deref());
        match named {
            Some(name) if activation("hidden_act", name)? == Activation::Gelu => {}
            other => only_activation("hidden_activation", other, Activation::GeluTanh)?,
        }
        weights.discard_tied_head(Some(true));
        Ok(())
    }

    fn build(
        config: &GemmaConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let dense = config.dense();
        let (attention, block) = (dense.attention()?, dense.block(Activation::GeluTanh)?);
        let (hidden, eps) = (block.hidden, block.eps);
        let decoder = DecoderConfig {
            embedding_scale: Some((hidden as f32).sqrt()),
            ..dense.decoder()
        };
        let layer = |builder: &mut Builder<'_, '_>, _, path: &str| {
            let mut norm =
                |name: &str| builder.offset_rms_norm(&format!("{path}.{name}"), hidden, eps);
            let attention_norms = Around::before(norm("input_layernorm")?);
            let mlp_norms = Around::before(norm("post_attention_layernorm")?);
            block.block(builder, path, &attention, attention_norms, mlp_norms)
        };
        Decoder::build(builder, &decoder, layer, |builder, path| {
            Ok(builder.offset_rms_norm(path, hidden, eps)?.into())
        })
    }
}
