//! Granite's mixtures of experts (IBM, 2024). The reference is mlx-lm's `models/granitemoe.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::fast::Scores;
use crate::mlx::{Activation, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, Mixture,
    MixtureConfig, RopeConfig, choices, only_activation, plain_routing,
};
use super::registry::Architecture;
use super::stacking::{rename, split_rows};
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct GraniteMoeConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    num_local_experts: u64,
    num_experts_per_tok: u64,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    logits_scaling: f32,
    attention_multiplier: f32,
    embedding_multiplier: f32,
    residual_multiplier: f32,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl GraniteMoeConfig {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(2048)
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: self.rope_theta,
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        }
    }

    fn decoder(&self) -> DecoderConfig {
        DecoderConfig {
            hidden_size: self.hidden_size,
            vocab_size: self.vocab_size,
            layers: self.num_hidden_layers,
            context_length: self.context_length(),
            embedding_scale: Some(self.embedding_multiplier),
            tied: self.tie_word_embeddings,
            logit_scale: Some(1.0 / self.logits_scaling),
            ..DecoderConfig::default()
        }
    }
}

/// Granite with experts.
pub struct GraniteMoe;

impl Architecture for GraniteMoe {
    type Config = GraniteMoeConfig;
    type Model = Decoder<Block<Mixture>>;

    fn sanitize(config: &GraniteMoeConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        for layer in 0..config.num_hidden_layers {
            let moe = format!("model.layers.{layer}.block_sparse_moe");
            let name = |name: &str| format!("{moe}.{name}.weight");
            if weights.contains(&name("input_linear")) {
                let halves = ["switch_mlp.gate_proj", "switch_mlp.up_proj"].map(name);
                split_rows(weights, &name("input_linear"), halves)?;
                rename(
                    weights,
                    &name("output_linear"),
                    name("switch_mlp.down_proj"),
                )?;
            }
        }
        Ok(())
    }

    fn build(
        config: &GraniteMoeConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            None,
        )?;
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            scores: Scores {
                scale: config.attention_multiplier,
                ..Scores::plain(shape.head_dim)
            },
            ..AttentionConfig::plain(shape, config.rope())
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let inner = dimension("intermediate_size", config.intermediate_size)?;
        let eps = config.rms_norm_eps;
        let block = BlockConfig {
            hidden,
            inner,
            eps,
            activation: Activation::Silu,
            mlp_bias: false,
        };
        let (experts, choices) = choices(
            ("num_local_experts", config.num_local_experts),
            ("num_experts_per_tok", config.num_experts_per_tok),
        )?;
        let routing = plain_routing(Scoring::SoftmaxOfChosen, choices);
        let mixture = MixtureConfig::plain(hidden, inner, experts, routing);
        Decoder::build(
            builder,
            &config.decoder(),
            |builder, _, path| {
                let moe = format!("{path}.block_sparse_moe");
                let (router, experts) =
                    (format!("{moe}.router.layer"), format!("{moe}.switch_mlp"));
                let moe = Mixture::build(builder, &router, &experts, &mixture)?;
                let block = block.pre_norm_around(builder, path, &attention, moe)?;
                Ok(Block {
                    branch_scale: Some(config.residual_multiplier),
                    ..block
                })
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
