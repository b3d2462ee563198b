//! Gemma 3 (Gemma Team, 2025): five layers of six see a window, and encode positions on their own scale.
//! The reference is mlx-lm's `models/gemma3_text.py`.

use half::bf16;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, NormConfig,
    NormKind, NormOver, QueryKeyNorms, RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows::{self, Windows};

/// The fields of `config.json`. Those of the smallest checkpoint are left out in some.
#[derive(Debug, Deserialize)]
pub struct Gemma3Config {
    hidden_size: Option<u64>,
    num_hidden_layers: Option<usize>,
    intermediate_size: Option<u64>,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    rms_norm_eps: Option<f32>,
    vocab_size: Option<u64>,
    max_position_embeddings: Option<usize>,
    hidden_activation: Option<String>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    query_pre_attn_scalar: Option<f32>,
    sliding_window: Option<u64>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
}

impl Gemma3Config {
    fn hidden_size(&self) -> u64 {
        self.hidden_size.unwrap_or(1152)
    }

    fn layers(&self) -> usize {
        self.num_hidden_layers.unwrap_or(26)
    }

    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(32768)
    }

    fn slides(&self, index: usize) -> bool {
        match &self.layer_types {
            Some(types) => types
                .get(index)
                .is_some_and(|kind| kind == "sliding_attention"),
            None => !(index + 1).is_multiple_of(self.sliding_window_pattern.unwrap_or(6)),
        }
    }

    fn windows(&self) -> Result<Windows, LoadError> {
        let (layers, context) = (self.layers(), self.context_length());
        let window = self.sliding_window.unwrap_or(512);
        match &self.layer_types {
            Some(types) => windows::by_types(types, layers, Some(window), context),
            None => windows::by_index(layers, window, context, |index| self.slides(index)),
        }
    }

    fn rope(&self, slides: bool) -> RopeConfig {
        let rope = RopeConfig {
            theta: Some(match slides {
                true => self.rope_local_base_freq.unwrap_or(10_000.0),
                false => self.rope_theta.unwrap_or(1_000_000.0),
            }),
            scaling: self.rope_scaling.clone().filter(|_| !slides),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        };
        rope.of_kind(match slides {
            true => "sliding_attention",
            false => "full_attention",
        })
    }
}

/// Gemma 3.
pub struct Gemma3;

impl Architecture for Gemma3 {
    type Config = Gemma3Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Gemma3Config, _: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation(
            "hidden_activation",
            config.hidden_activation.as_deref(),
            Activation::GeluTanh,
        )
    }

    fn build(
        config: &Gemma3Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size(),
            config.num_attention_heads.unwrap_or(4),
            Some(config.num_key_value_heads.unwrap_or(1)),
            Some(config.head_dim.unwrap_or(256)),
        )?;
        let scale = config.query_pre_attn_scalar.unwrap_or(256.0).powf(-0.5);
        let windows = config.windows()?;
        let hidden = dimension("hidden_size", config.hidden_size())?;
        let inner = config.intermediate_size.unwrap_or(6912);
        let eps = config.rms_norm_eps.unwrap_or(1e-6);
        let block = BlockConfig {
            hidden,
            inner: dimension("intermediate_size", inner)?,
            norm: NormConfig {
                kind: NormKind::OffsetRms,
                eps,
            },
            activation: Activation::GeluTanh,
            mlp_bias: false,
        };
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size(),
            vocab_size: config.vocab_size.unwrap_or(262_144),
            layers: config.layers(),
            context_length: config.context_length(),
            // Rounded as in its training.
            embedding_scale: Some(bf16::from_f32((hidden as f32).sqrt()).to_f32()),
            ..DecoderConfig::default()
        };
        Decoder::build(builder, &decoder, block.norm, |builder, index, path| {
            let rope = config.rope(config.slides(index));
            let attention = AttentionConfig::plain(shape, rope)
                .with_scale(scale)
                .with_window(windows.of(index));
            let mut block = block.both_norms(builder, path, &attention)?;
            let path = format!("{path}.self_attn");
            let mut norm = |name: &str| {
                builder.offset_rms_norm(&format!("{path}.{name}"), shape.head_dim, eps)
            };
            block.attention.norms = Some(QueryKeyNorms {
                over: NormOver::Heads,
                q_norm: norm("q_norm")?.into(),
                k_norm: norm("k_norm")?.into(),
            });
            Ok(block)
        })
    }
}
