//! Ministral 3 (Mistral AI, 2025): Llama whose queries grow beyond the context of the first training. The
//! reference is mlx-lm's `models/ministral3.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, Growth,
    RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Ministral3Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    rope_parameters: Map<String, Value>,
    sliding_window: Option<u64>,
    layer_types: Option<Vec<String>>,
}

impl Ministral3Config {
    /// `rope_parameters`, divided into what is the rope's and what is the growth's.
    fn positions(&self) -> Result<(RopeConfig, Growth), LoadError> {
        let mut parameters = self.rope_parameters.clone();
        let number = |key: &str, value: Option<Value>| {
            let key = format!("rope_parameters.{key}");
            let value = value.and_then(|value| value.as_f64());
            value.ok_or_else(|| LoadError::config(key, "is not a number"))
        };
        let every = "original_max_position_embeddings";
        let every = number(every, parameters.get(every).cloned())?;
        let beta = "llama_4_scaling_beta";
        let beta = number(beta, parameters.remove(beta))?;
        // mlx-lm reads it from the level above.
        parameters.remove("max_position_embeddings");
        let rope = RopeConfig {
            parameters: Some(parameters),
            context: self.max_position_embeddings,
            ..RopeConfig::default()
        };
        let growth = Growth {
            beta: beta as f32,
            every: every as f32,
        };
        Ok((rope, growth))
    }
}

/// Ministral 3.
pub struct Ministral3;

impl Architecture for Ministral3 {
    type Config = Ministral3Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Ministral3Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Ministral3Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let context = config.max_position_embeddings.unwrap_or(262_144);
        let (rope, growth) = config.positions()?;
        let attention = AttentionConfig {
            growth: Some(growth),
            ..AttentionConfig::plain(shape, rope)
        };
        let layers = config.num_hidden_layers;
        let windows = match &config.layer_types {
            Some(types) => windows::by_types(types, layers, config.sliding_window, context)?,
            None => windows::none(layers),
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let eps = config.rms_norm_eps;
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
            context_length: context,
            tied: config.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        Decoder::build(
            builder,
            &decoder,
            |builder, index, path| {
                block.pre_norm(builder, path, &attention.with_window(windows.of(index)))
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
