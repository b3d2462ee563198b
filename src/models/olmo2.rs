//! OLMo 2 (OLMo et al., 2024): norms behind attention and feed-forward layer instead of before them, and
//! on all queries and all keys of a token. The reference is mlx-lm's `models/olmo2.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::dense::Dense;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, Block, BlockConfig, Decoder, NormOver, RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Olmo2Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    rope_traditional: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
}

impl Olmo2Config {
    fn dense(&self) -> Dense {
        Dense {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            eps: self.rms_norm_eps,
            vocab_size: self.vocab_size,
            context: self.max_position_embeddings.unwrap_or(2048),
            tied: self.tie_word_embeddings,
            rope: RopeConfig {
                theta: self.rope_theta,
                traditional: self.rope_traditional.unwrap_or(false),
                scaling: self.rope_scaling.clone(),
                parameters: self.rope_parameters.clone(),
                ..RopeConfig::default()
            },
        }
    }
}

/// OLMo 2.
pub struct Olmo2;

impl Architecture for Olmo2 {
    type Config = Olmo2Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Olmo2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Olmo2Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let dense = config.dense();
        let bias = config.attention_bias.unwrap_or(false);
        let attention = AttentionConfig {
            qkv_bias: bias,
            out_bias: bias,
            norms: Some((NormOver::Projection, config.rms_norm_eps)),
            ..dense.attention()?
        };
        let block = BlockConfig {
            mlp_bias: config.mlp_bias.unwrap_or(false),
            ..dense.block(Activation::Silu)?
        };
        Decoder::build(
            builder,
            &dense.decoder(),
            |builder, _, path| block.post_norm(builder, path, &attention),
            |builder, path| Ok(builder.rms_norm(path, block.hidden, block.eps)?.into()),
        )
    }
}
