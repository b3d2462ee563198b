//! Command R and Aya (Cohere, 2024): attention and feed-forward layer side by side, maybe norms of each head's
//! own. The reference is mlx-lm's `models/cohere.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{
    Attention, AttentionConfig, Decoder, DecoderConfig, Mlp, NormOver, ParallelBlock,
    QueryKeyNorms, RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct CohereConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    #[serde(default)]
    layer_norm_bias: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    use_qk_norm: bool,
    logit_scale: Option<f32>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl CohereConfig {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: None,
            eps: self.layer_norm_eps.unwrap_or(1e-5),
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings.unwrap_or(8192),
            tied: Some(true),
            rope: RopeConfig {
                theta: self.rope_theta.or(Some(8_000_000.0)),
                traditional: true,
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// Cohere.
pub struct Cohere;

impl Architecture for Cohere {
    type Config = CohereConfig;
    type Model = Decoder<ParallelBlock>;

    fn sanitize(config: &CohereConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(Some(true));
        Ok(())
    }

    fn build(
        config: &CohereConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<ParallelBlock>, LoadError> {
        let dense = config.dense();
        let block = dense.block(Activation::Silu)?;
        let (hidden, eps, bias) = (block.hidden, block.eps, config.layer_norm_bias);
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            ..dense.attention()?
        };
        let decoder = DecoderConfig {
            logit_scale: Some(config.logit_scale.unwrap_or(0.0625)),
            ..dense.decoder()
        };
        let shape = attention.shape;
        let layer = |builder: &mut Builder<'_, '_>, _, path: &str| {
            let (mlp, norm) = (format!("{path}.mlp"), format!("{path}.input_layernorm"));
            let path = format!("{path}.self_attn");
            let mut attention = Attention::build(builder, &path, hidden, &attention)?;
            if config.use_qk_norm {
                let mut norm = |name: &str, heads| {
                    builder.head_norm(&format!("{path}.{name}"), heads, shape.head_dim, eps)
                };
                attention.norms = Some(QueryKeyNorms {
                    over: NormOver::Heads,
                    q_norm: norm("q_norm", shape.heads)?.into(),
                    k_norm: norm("k_norm", shape.kv_heads)?.into(),
                });
            }
            let mlp = Mlp::gated(builder, &mlp, hidden, block.inner, block.activation, false)?;
            Ok(ParallelBlock {
                norm: builder.layer_norm(&norm, hidden, eps, bias)?,
                attention,
                mlp,
            })
        };
        Decoder::build(builder, &decoder, layer, |builder, path| {
            Ok(builder.layer_norm(path, hidden, eps, bias)?.into())
        })
    }
}
