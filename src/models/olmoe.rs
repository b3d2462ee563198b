//! OLMoE (Muennighoff et al., 2024). The reference is mlx-lm's `models/olmoe.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Routing, Scoring};

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, Mixture,
    MixtureConfig, NormOver, RopeConfig, choices, only_activation, plain_routing,
};
use super::registry::Architecture;
use super::stacking::stack_experts;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct OlmoeConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    num_experts: u64,
    num_experts_per_tok: u64,
    #[serde(default)]
    norm_topk_prob: bool,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_traditional: Option<bool>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl OlmoeConfig {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(4096)
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: self.rope_theta,
            traditional: self.rope_traditional.unwrap_or(false),
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        }
    }

    fn experts(&self) -> Result<(i32, i32), LoadError> {
        choices(
            ("num_experts", self.num_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
    }
}

/// OLMoE.
pub struct Olmoe;

impl Architecture for Olmoe {
    type Config = OlmoeConfig;
    type Model = Decoder<Block<Mixture>>;

    fn sanitize(config: &OlmoeConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        let (experts, _) = config.experts()?;
        let names = ["gate_proj", "up_proj", "down_proj"].map(|name| (name, name));
        for layer in 0..config.num_hidden_layers {
            stack_experts(
                weights,
                &format!("model.layers.{layer}.mlp"),
                experts,
                &names,
            )?;
        }
        Ok(())
    }

    fn build(
        config: &OlmoeConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let eps = config.rms_norm_eps;
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            norms: Some((NormOver::Projection, eps)),
            ..AttentionConfig::plain(shape, config.rope())
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let inner = dimension("intermediate_size", config.intermediate_size)?;
        let block = BlockConfig {
            hidden,
            inner,
            eps,
            activation: Activation::Silu,
            mlp_bias: false,
        };
        let (experts, choices) = config.experts()?;
        let routing = Routing {
            normalize: config.norm_topk_prob,
            ..plain_routing(Scoring::Softmax, choices)
        };
        let mixture = MixtureConfig::plain(hidden, inner, experts, routing);
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
            |builder, _, path| {
                let (router, experts) =
                    (format!("{path}.mlp.gate"), format!("{path}.mlp.switch_mlp"));
                let mixture = Mixture::build(builder, &router, &experts, &mixture)?;
                block.pre_norm_around(builder, path, &attention, mixture)
            },
            |builder, path| Ok(builder.rms_norm(path, hidden, eps)?.into()),
        )
    }
}
