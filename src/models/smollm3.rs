//! SmolLM3 (Hugging Face, 2025): Llama whose every fourth layer does not encode positions. The reference
//! is mlx-lm's `models/smollm3.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, RopeConfig,
    only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct SmolLm3Config {
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
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    rope_traditional: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    no_rope_layer_interval: Option<usize>,
    no_rope_layers: Option<Vec<u8>>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
}

impl SmolLm3Config {
    /// Which layers encode positions.
    fn roped(&self) -> Result<Vec<bool>, LoadError> {
        let layers = self.num_hidden_layers;
        match &self.no_rope_layers {
            Some(flags) if flags.len() != layers => Err(LoadError::config(
                "no_rope_layers",
                format!("{} layers are named, there are {layers}", flags.len()),
            )),
            Some(flags) => Ok(flags.iter().map(|&flag| flag != 0).collect()),
            None => {
                let every = self.no_rope_layer_interval.unwrap_or(4).max(1);
                Ok((1..=layers)
                    .map(|nth: usize| !nth.is_multiple_of(every))
                    .collect())
            }
        }
    }
}

/// SmolLM3.
pub struct SmolLm3;

impl Architecture for SmolLm3 {
    type Config = SmolLm3Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &SmolLm3Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &SmolLm3Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let context = config.max_position_embeddings.unwrap_or(32768);
        let rope = RopeConfig {
            theta: config.rope_theta,
            traditional: config.rope_traditional.unwrap_or(false),
            scaling: config.rope_scaling.clone(),
            parameters: config.rope_parameters.clone(),
            context: Some(context),
            ..RopeConfig::default()
        };
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias.unwrap_or(false),
            out_bias: config.attention_bias.unwrap_or(false),
            ..AttentionConfig::plain(shape, rope)
        };
        let roped = config.roped()?;
        let windows = windows::qwen(
            config.num_hidden_layers,
            config.layer_types.as_deref(),
            config
                .sliding_window
                .filter(|_| config.use_sliding_window == Some(true)),
            None,
            context,
        )?;
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let eps = config.rms_norm_eps;
        let block = BlockConfig {
            hidden,
            inner: dimension("intermediate_size", config.intermediate_size)?,
            eps,
            activation: Activation::Silu,
            mlp_bias: config.mlp_bias.unwrap_or(false),
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
                let rope = attention.rope.clone();
                let attention = AttentionConfig {
                    rope: rope.filter(|_| roped.get(index) == Some(&true)),
                    ..attention.with_window(windows.of(index))
                };
                block.pre_norm(builder, path, &attention)
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
