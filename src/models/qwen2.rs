//! Qwen2 and Qwen2.5 (Yang et al., 2024): Llama with biases on queries, keys and values. The reference is
//! mlx-lm's `models/qwen2.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, Decoder, RopeConfig, only_activation};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Qwen2Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    rope_traditional: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

impl Qwen2Config {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: Some(self.num_key_value_heads),
            head_dim: None,
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings.unwrap_or(32768),
            tied: self.tie_word_embeddings,
            rope: RopeConfig {
                theta: self.rope_theta.or(Some(1e6)),
                traditional: self.rope_traditional.unwrap_or(false),
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// Qwen2.
pub struct Qwen2;

impl Architecture for Qwen2 {
    type Config = Qwen2Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Qwen2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Qwen2Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let dense = config.dense();
        let attention = AttentionConfig {
            qkv_bias: true,
            ..dense.attention()?
        };
        let windows = windows::qwen(
            config.num_hidden_layers,
            config.layer_types.as_deref(),
            config
                .sliding_window
                .filter(|_| config.use_sliding_window == Some(true)),
            config.max_window_layers,
            dense.context,
        )?;
        let block = dense.block(Activation::Silu)?;
        Decoder::build(
            builder,
            &dense.decoder(),
            |builder, index, path| {
                block.pre_norm(builder, path, &attention.with_window(windows.of(index)))
            },
            |builder, path| Ok(builder.rms_norm(path, block.hidden, block.eps)?.into()),
        )
    }
}
