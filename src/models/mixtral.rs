//! Mixtral (Jiang et al., 2024). The reference is mlx-lm's `models/mixtral.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, Mixture,
    MixtureConfig, RopeConfig, choices, only_activation, plain_routing,
};
use super::registry::Architecture;
use super::stacking::stack_experts;
use super::weights::Weights;
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct MixtralConfig {
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
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_traditional: Option<bool>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
}

impl MixtralConfig {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(32_768)
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: Some(self.rope_theta.unwrap_or(1e6)),
            traditional: self.rope_traditional.unwrap_or(false),
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        }
    }

    /// The numbers of experts, and of those that a token goes through.
    fn experts(&self) -> Result<(i32, i32), LoadError> {
        choices(
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
    }
}

/// Mixtral.
pub struct Mixtral;

impl Architecture for Mixtral {
    type Config = MixtralConfig;
    type Model = Decoder<Block<Mixture>>;

    fn sanitize(config: &MixtralConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        let (experts, _) = config.experts()?;
        let names = [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")];
        for layer in 0..config.num_hidden_layers {
            let block = format!("model.layers.{layer}.block_sparse_moe");
            stack_experts(weights, &block, experts, &names)?;
        }
        Ok(())
    }

    fn build(
        config: &MixtralConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let attention = AttentionConfig::plain(shape, config.rope());
        let (layers, context) = (config.num_hidden_layers, config.context_length());
        let windows = match config.sliding_window {
            Some(window) => windows::by_index(layers, window, context, |_| true)?,
            None => windows::none(layers),
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
        let (experts, choices) = config.experts()?;
        let routing = plain_routing(Scoring::SoftmaxOfChosen, choices);
        let mixture = MixtureConfig::plain(hidden, inner, experts, routing);
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers,
            context_length: context,
            tied: config.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        Decoder::build(
            builder,
            &decoder,
            |builder, index, path| {
                let moe = format!("{path}.block_sparse_moe");
                let (router, experts) = (format!("{moe}.gate"), format!("{moe}.switch_mlp"));
                let moe = Mixture::build(builder, &router, &experts, &mixture)?;
                let attention = attention.with_window(windows.of(index));
                block.pre_norm_around(builder, path, &attention, moe)
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
