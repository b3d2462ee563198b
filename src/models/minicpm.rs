//! MiniCPM (OpenBMB, 2024): Llama whose embeddings, branches and logits are multiplied by factors of its
//! width and depth. The reference is mlx-lm's `models/minicpm.py`; that logits are scaled with tied
//! embeddings too is transformers'.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{Block, Decoder, DecoderConfig, RopeConfig, only_activation};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct MiniCpmConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    dim_model_base: f32,
    scale_depth: f32,
    scale_emb: f32,
    rope_traditional: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl MiniCpmConfig {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: None,
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings.unwrap_or(32768),
            tied: self.tie_word_embeddings,
            rope: RopeConfig {
                theta: self.rope_theta.or(Some(1_000_000.0)),
                traditional: self.rope_traditional.unwrap_or(false),
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// MiniCPM.
pub struct MiniCpm;

impl Architecture for MiniCpm {
    type Config = MiniCpmConfig;
    type Model = Decoder<Block>;

    fn sanitize(config: &MiniCpmConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &MiniCpmConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let dense = config.dense();
        let (attention, block) = (dense.attention()?, dense.block(Activation::Silu)?);
        let decoder = DecoderConfig {
            embedding_scale: Some(config.scale_emb),
            logit_scale: Some(config.dim_model_base / config.hidden_size as f32),
            ..dense.decoder()
        };
        let depth = (config.num_hidden_layers as f32).sqrt();
        Decoder::build(
            builder,
            &decoder,
            |builder, _, path| {
                Ok(Block {
                    branch_scale: Some(config.scale_depth / depth),
                    ..block.pre_norm(builder, path, &attention)?
                })
            },
            |builder, path| Ok(builder.rms_norm(path, block.hidden, block.eps)?.into()),
        )
    }
}
