//! StableLM 2 (Stability AI, 2024): layer normalization, a part of each head turned by position, and where
//! `config.json` says so halves side by side and norms of each head's own. The reference is mlx-lm's
//! `models/stablelm.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{
    Around, Attention, AttentionConfig, Block, Decoder, EitherBlock, Mlp, NormOver, ParallelBlock,
    QueryKeyNorms, RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::stacking::stack;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct StableLmConfig {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    partial_rotary_factor: Option<f64>,
    #[serde(default)]
    use_qkv_bias: bool,
    #[serde(default)]
    use_parallel_residual: bool,
    #[serde(default)]
    qk_layernorm: bool,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl StableLmConfig {
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
            context: self.max_position_embeddings.unwrap_or(4096),
            tied: Some(false),
            rope: RopeConfig {
                theta: self.rope_theta,
                partial: Some(self.partial_rotary_factor.unwrap_or(0.25)),
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// StableLM.
pub struct StableLm;

impl Architecture for StableLm {
    type Config = StableLmConfig;
    type Model = Decoder<EitherBlock>;

    fn sanitize(config: &StableLmConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
        if !config.qk_layernorm {
            return Ok(());
        }
        let shape = config.dense().attention()?.shape;
        for layer in 0..config.num_hidden_layers {
            let path = format!("model.layers.{layer}.self_attn");
            for (norm, heads) in [
                ("q_layernorm", shape.heads),
                ("k_layernorm", shape.kv_heads),
            ] {
                stack(weights, format!("{path}.{norm}.weight"), heads, |head| {
                    format!("{path}.{norm}.norms.{head}.weight")
                })?;
            }
        }
        Ok(())
    }

    fn build(
        config: &StableLmConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<EitherBlock>, LoadError> {
        let dense = config.dense();
        let block = dense.block(Activation::Silu)?;
        let (hidden, eps) = (block.hidden, block.eps);
        let attention = AttentionConfig {
            qkv_bias: config.use_qkv_bias,
            ..dense.attention()?
        };
        let shape = attention.shape;
        let layer = |builder: &mut Builder<'_, '_>, _, path: &str| {
            let own = format!("{path}.self_attn");
            let mut attention = Attention::build(builder, &own, hidden, &attention)?;
            if config.qk_layernorm {
                let mut norm = |name: &str, heads| {
                    builder.head_norm(&format!("{own}.{name}"), heads, shape.head_dim, eps)
                };
                attention.norms = Some(QueryKeyNorms {
                    over: NormOver::Heads,
                    q_norm: norm("q_layernorm", shape.heads)?.into(),
                    k_norm: norm("k_layernorm", shape.kv_heads)?.into(),
                });
            }
            let mlp = format!("{path}.mlp");
            let mlp = Mlp::gated(builder, &mlp, hidden, block.inner, block.activation, false)?;
            let mut norm =
                |name: &str| builder.layer_norm(&format!("{path}.{name}"), hidden, eps, true);
            let first = norm("input_layernorm")?;
            Ok(if config.use_parallel_residual {
                EitherBlock::Parallel(ParallelBlock {
                    norm: first,
                    attention,
                    mlp,
                })
            } else {
                EitherBlock::Sequential(Block {
                    attention_norms: Around::before(first),
                    attention,
                    mlp_norms: Around::before(norm("post_attention_layernorm")?),
                    mlp,
                    branch_scale: None,
                })
            })
        };
        Decoder::build(builder, &dense.decoder(), layer, |builder, path| {
            Ok(builder.layer_norm(path, hidden, eps, true)?.into())
        })
    }
}
