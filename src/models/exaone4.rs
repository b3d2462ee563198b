//! EXAONE 4 (LG AI Research, 2025): norms behind both halves; in the larger one, three layers of four
//! see a window, and only these encode positions. The reference is mlx-lm's `models/exaone4.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, NormOver,
    RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Exaone4Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: u64,
    head_dim: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: usize,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
    /// `"LLLG"`, or 4: that many layers, the last of which sees everything.
    sliding_window_pattern: Option<Value>,
    layer_types: Option<Vec<String>>,
}

impl Exaone4Config {
    /// Which layers see a window; `None` where no layer does.
    fn slides(&self) -> Result<Option<Vec<bool>>, LoadError> {
        let layers = self.num_hidden_layers;
        if self.sliding_window.is_none() {
            return Ok(None);
        }
        if let Some(types) = &self.layer_types {
            let slides = |kind: &String| kind == "sliding_attention";
            return Ok(Some(types.iter().map(slides).collect()));
        }
        let pattern: Vec<bool> = match &self.sliding_window_pattern {
            None => return Ok(None),
            Some(Value::String(pattern)) => pattern.chars().map(|kind| kind == 'L').collect(),
            Some(every) => match every.as_u64().filter(|every| (1..=1024).contains(every)) {
                Some(every) => (1..=every).map(|nth| nth != every).collect(),
                None => Vec::new(),
            },
        };
        if pattern.is_empty() {
            let message = "is neither a word of L and G nor a number";
            return Err(LoadError::config("sliding_window_pattern", message));
        }
        Ok(Some(pattern.into_iter().cycle().take(layers).collect()))
    }
}

/// EXAONE 4.
pub struct Exaone4;

impl Architecture for Exaone4 {
    type Config = Exaone4Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Exaone4Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Exaone4Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            Some(config.num_key_value_heads),
            config.head_dim,
        )?;
        let rope = RopeConfig {
            theta: config.rope_theta,
            scaling: config.rope_scaling.clone(),
            parameters: config.rope_parameters.clone(),
            context: Some(config.max_position_embeddings),
            ..RopeConfig::default()
        };
        let attention = AttentionConfig {
            norms: Some((NormOver::Heads, config.rms_norm_eps)),
            ..AttentionConfig::plain(shape, rope)
        };
        let slides = config.slides()?;
        let slide = |index: usize| {
            slides
                .as_ref()
                .is_some_and(|all| all.get(index) == Some(&true))
        };
        let windows = match config.sliding_window {
            Some(window) => windows::by_index(
                config.num_hidden_layers,
                window,
                config.max_position_embeddings,
                slide,
            )?,
            None => windows::none(config.num_hidden_layers),
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
            context_length: config.max_position_embeddings,
            tied: config.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        let layer = |builder: &mut Builder<'_, '_>, index, path: &str| {
            let mut attention = attention.with_window(windows.of(index));
            if slides.is_some() && !slide(index) {
                attention.rope = None;
            }
            block.post_norm(builder, path, &attention)
        };
        Decoder::build(builder, &decoder, layer, |builder, path| {
            Ok(builder.rms_norm(path, hidden, eps)?.into())
        })
    }
}
