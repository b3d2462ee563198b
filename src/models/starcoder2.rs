//! StarCoder2 (Lozhkov et al., 2024): layer normalization, biases everywhere, and a feed-forward layer
//! without a gate. The reference is mlx-lm's `models/starcoder2.py`; the window is transformers', mlx-lm
//! has none.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    Around, Attention, AttentionConfig, AttentionShape, Block, Decoder, DecoderConfig, Mlp,
    RopeConfig, activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Starcoder2Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    norm_epsilon: Option<f32>,
    vocab_size: Option<u64>,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    use_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
}

/// StarCoder2.
pub struct Starcoder2;

impl Architecture for Starcoder2 {
    type Config = Starcoder2Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Starcoder2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        weights.discard_tied_head(Some(config.tie_word_embeddings.unwrap_or(true)));
        Ok(())
    }

    fn build(
        config: &Starcoder2Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            Some(config.num_key_value_heads),
            None,
        )?;
        let layers = config.num_hidden_layers;
        let context = config.max_position_embeddings.unwrap_or(4096);
        let windows = match config.sliding_window {
            Some(window) => windows::by_index(layers, window, context, |_| true)?,
            None => windows::none(layers),
        };
        let rope = RopeConfig {
            theta: config.rope_theta.or(Some(100_000.0)),
            parameters: config.rope_parameters.clone(),
            ..RopeConfig::default()
        };
        let bias = config.use_bias.unwrap_or(true);
        let attention = AttentionConfig {
            qkv_bias: bias,
            out_bias: bias,
            ..AttentionConfig::plain(shape, rope)
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let inner = dimension("intermediate_size", config.intermediate_size)?;
        let eps = config.norm_epsilon.unwrap_or(1e-5);
        // mlx-lm takes the exact one whatever the file says.
        let activation = match &config.hidden_act {
            Some(name) => activation("hidden_act", name)?,
            None => Activation::Gelu,
        };
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size.unwrap_or(49152),
            layers,
            context_length: context,
            tied: Some(config.tie_word_embeddings.unwrap_or(true)),
            ..DecoderConfig::default()
        };
        let layer = |builder: &mut Builder<'_, '_>, index, path: &str| {
            let mut norm =
                |name: &str| builder.layer_norm(&format!("{path}.{name}"), hidden, eps, true);
            Ok(Block {
                attention_norms: Around::before(norm("input_layernorm")?),
                mlp_norms: Around::before(norm("post_attention_layernorm")?),
                attention: Attention::build(
                    builder,
                    &format!("{path}.self_attn"),
                    hidden,
                    &attention.with_window(windows.of(index)),
                )?,
                mlp: Mlp {
                    gate: None,
                    up: builder.linear(&format!("{path}.mlp.c_fc"), hidden, inner, bias)?,
                    down: builder.linear(&format!("{path}.mlp.c_proj"), inner, hidden, bias)?,
                    activation,
                },
                branch_scale: None,
            })
        };
        Decoder::build(builder, &decoder, layer, |builder, path| {
            Ok(builder.layer_norm(path, hidden, eps, true)?.into())
        })
    }
}
