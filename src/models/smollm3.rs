//! SmolLM3 (Hugging Face, 2025): Llama whose every fourth layer does not encode positions. The reference
//! is mlx-lm's `models/smollm3.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, BlockConfig, Decoder, RopeConfig, only_activation};
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
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings.unwrap_or(32768),
            tied: self.tie_word_embeddings,
            rope: RopeConfig {
                theta: self.rope_theta,
                traditional: self.rope_traditional.unwrap_or(false),
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }

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
        let dense = config.dense();
        let bias = config.attention_bias.unwrap_or(false);
        let attention = AttentionConfig {
            qkv_bias: bias,
            out_bias: bias,
            ..dense.attention()?
        };
        let roped = config.roped()?;
        let windows = windows::qwen(
            config.num_hidden_layers,
            config.layer_types.as_deref(),
            config
                .sliding_window
                .filter(|_| config.use_sliding_window == Some(true)),
            None,
            dense.context,
        )?;
        let block = BlockConfig {
            mlp_bias: config.mlp_bias.unwrap_or(false),
            ..dense.block(Activation::Silu)?
        };
        Decoder::build(
            builder,
            &dense.decoder(),
            |builder, index, path| {
                let rope = attention.rope.clone();
                let attention = AttentionConfig {
                    rope: rope.filter(|_| roped.get(index) == Some(&true)),
                    ..attention.with_window(windows.of(index))
                };
                block.pre_norm(builder, path, &attention)
            },
            |builder, path| Ok(builder.rms_norm(path, block.hidden, block.eps)?.into()),
        )
    }
}
