//! MiniMax-M2 (MiniMax, 2025): experts in every layer, norms over all heads together, a part of each head
//! turned by position. The reference is mlx-lm's `models/minimax.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Routing, Scoring};

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, Block, Decoder, Mixture, MixtureConfig, NormOver, RopeConfig, choices,
    only_activation, plain_routing,
};
use super::registry::Architecture;
use super::stacking::stack_experts;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct MiniMaxM2Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    num_local_experts: u64,
    num_experts_per_tok: u64,
    scoring_func: Option<String>,
    use_qk_norm: Option<bool>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: usize,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    rotary_dim: u64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl MiniMaxM2Config {
    fn dense(&self) -> Dense {
        let head_dim = self.head_dim;
        let head_dim = head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1));
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings,
            tied: self.tie_word_embeddings,
            rope: RopeConfig {
                theta: self.rope_theta,
                // Cut off to a number of features, which must not be one less by rounding.
                partial: Some((self.rotary_dim as f64 + 0.5) / head_dim as f64),
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }

    fn experts(&self) -> Result<(i32, i32), LoadError> {
        choices(
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
    }
}

/// MiniMax-M2.
pub struct MiniMaxM2;

impl Architecture for MiniMaxM2 {
    type Config = MiniMaxM2Config;
    type Model = Decoder<Block<Mixture>>;

    fn sanitize(config: &MiniMaxM2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        if let Some(other) = config.scoring_func.as_ref().filter(|it| *it != "sigmoid") {
            let message = format!("\"{other}\" is not supported; supported is \"sigmoid\"");
            return Err(LoadError::config("scoring_func", message));
        }
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
        config: &MiniMaxM2Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let dense = config.dense();
        let block = dense.block(Activation::Silu)?;
        let (hidden, eps) = (block.hidden, block.eps);
        let normed = config.use_qk_norm.unwrap_or(true);
        let attention = AttentionConfig {
            norms: normed.then_some((NormOver::Projection, eps)),
            ..dense.attention()?
        };
        let (experts, choices) = config.experts()?;
        let routing = Routing {
            normalize: true,
            ..plain_routing(Scoring::Sigmoid, choices)
        };
        let mixture = MixtureConfig::plain(hidden, block.inner, experts, routing);
        Decoder::build(
            builder,
            &dense.decoder(),
            |builder, _, path| {
                let moe = format!("{path}.block_sparse_moe");
                let (router, stack) = (format!("{moe}.gate"), format!("{moe}.switch_mlp"));
                let correction = format!("{moe}.e_score_correction_bias");
                let mut moe = Mixture::build(builder, &router, &stack, &mixture)?;
                moe.take_correction(builder, &correction, experts)?;
                block.pre_norm_around(builder, path, &attention, moe)
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
