//! gpt-oss (OpenAI, 2025). The reference is mlx-lm's `models/gpt_oss.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Gate, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, Mixture,
    MixtureConfig, RopeConfig, choices, only_activation, plain_routing,
};
use super::registry::Architecture;
use super::stacking::{as_words, split_interleaved};
use super::weights::Weights;
use super::windows::{self, Windows};

/// Steepness of the experts' sigmoid.
const ALPHA: f32 = 1.702;
/// Where the experts' activations are cut off.
const LIMIT: f32 = 7.0;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct GptOssConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    num_local_experts: u64,
    num_experts_per_tok: u64,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    swiglu_limit: Option<f32>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
    layer_types: Option<Vec<String>>,
}

impl GptOssConfig {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(131_072)
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: Some(self.rope_theta.unwrap_or(150_000.0)),
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        }
    }

    /// Every other layer has a window, the first one first.
    fn windows(&self) -> Result<Windows, LoadError> {
        let (layers, context) = (self.num_hidden_layers, self.context_length());
        let window = self.sliding_window.unwrap_or(128);
        match &self.layer_types {
            Some(types) => windows::by_types(types, layers, Some(window), context),
            None => windows::by_index(layers, window, context, |index| index.is_multiple_of(2)),
        }
    }

    fn mixture(&self) -> Result<MixtureConfig, LoadError> {
        let (experts, choices) = choices(
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )?;
        Ok(MixtureConfig {
            opening: Gate::ClampedSilu {
                alpha: ALPHA,
                limit: self.swiglu_limit.unwrap_or(LIMIT),
            },
            bias: true,
            ..MixtureConfig::plain(
                dimension("hidden_size", self.hidden_size)?,
                dimension("intermediate_size", self.intermediate_size)?,
                experts,
                plain_routing(Scoring::SoftmaxOfChosen, choices),
            )
        })
    }
}

/// gpt-oss.
pub struct GptOss;

impl Architecture for GptOss {
    type Config = GptOssConfig;
    type Model = Decoder<Block<Mixture>>;

    fn sanitize(config: &GptOssConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        for layer in 0..config.num_hidden_layers {
            let experts = format!("model.layers.{layer}.mlp.experts");
            for (end, part) in [
                ("_blocks", "weight"),
                ("_scales", "scales"),
                ("_bias", "bias"),
            ] {
                let gate_up = format!("{experts}.gate_up_proj{end}");
                if weights.contains(&gate_up) {
                    let halves =
                        ["gate_proj", "up_proj"].map(|it| format!("{experts}.{it}.{part}"));
                    split_interleaved(weights, &gate_up, halves)?;
                }
                let down = format!("{experts}.down_proj{end}");
                if weights.contains(&down) {
                    as_words(weights, &down, format!("{experts}.down_proj.{part}"))?;
                }
            }
        }
        Ok(())
    }

    fn build(
        config: &GptOssConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let attention = AttentionConfig {
            qkv_bias: true,
            out_bias: true,
            ..AttentionConfig::plain(shape, config.rope())
        };
        let mixture = config.mixture()?;
        let (hidden, eps) = (mixture.hidden, config.rms_norm_eps);
        let block = BlockConfig {
            hidden,
            inner: mixture.inner,
            eps,
            activation: Activation::Silu,
            mlp_bias: true,
        };
        let windows = config.windows()?;
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers: config.num_hidden_layers,
            context_length: config.context_length(),
            tied: config.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        Decoder::build(
            builder,
            &decoder,
            |builder, index, path| {
                let (router, experts) =
                    (format!("{path}.mlp.router"), format!("{path}.mlp.experts"));
                let mixture = Mixture::build(builder, &router, &experts, &mixture)?;
                let mut attention = attention.with_window(windows.of(index));
                let sinks = builder.vector(&format!("{path}.self_attn.sinks"), shape.heads)?;
                attention.scores.sinks = Some(sinks);
                block.pre_norm_around(builder, path, &attention, mixture)
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
