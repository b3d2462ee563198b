//! Phi-3 and Phi-4 (Abdin et al., 2024): Llama with fused projections. The reference is mlx-lm's
//! `models/phi3.py`; the window is transformers', mlx-lm has none.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::Activation;
use crate::mlx::fast::Scores;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    Around, Attention, AttentionShape, Block, Decoder, DecoderConfig, Mlp, Rope, RopeConfig,
    only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Phi3Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    rms_norm_eps: f32,
    vocab_size: u64,
    max_position_embeddings: Option<usize>,
    original_max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    partial_rotary_factor: Option<f64>,
    rope_theta: Option<f64>,
    rope_traditional: Option<bool>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    sliding_window: Option<u64>,
}

impl Phi3Config {
    fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(131_072)
    }

    fn rope(&self) -> RopeConfig {
        // The context before stretching stands beside the stretching, not in it.
        let complete = |section: &Option<Map<String, Value>>| {
            let mut section = section.clone()?;
            let kind = section.get("type").or_else(|| section.get("rope_type"));
            if matches!(kind.and_then(Value::as_str), Some("longrope" | "su")) {
                let original = self.original_max_position_embeddings.unwrap_or(4096);
                section
                    .entry("original_max_position_embeddings")
                    .or_insert_with(|| original.into());
            }
            Some(section)
        };
        RopeConfig {
            theta: self.rope_theta,
            traditional: self.rope_traditional.unwrap_or(false),
            partial: self.partial_rotary_factor,
            scaling: complete(&self.rope_scaling),
            parameters: complete(&self.rope_parameters),
            context: Some(self.context_length()),
        }
    }
}

/// Phi-3.
pub struct Phi3;

impl Architecture for Phi3 {
    type Config = Phi3Config;
    type Model = Decoder<Block>;

    fn sanitize(config: &Phi3Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Phi3Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = AttentionShape::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            None,
        )?;
        let (layers, context) = (config.num_hidden_layers, config.context_length());
        let windows = match config.sliding_window {
            Some(window) => windows::by_index(layers, window, context, |_| true)?,
            None => windows::none(layers),
        };
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let inner = dimension("intermediate_size", config.intermediate_size)?;
        let eps = config.rms_norm_eps;
        let decoder = DecoderConfig {
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            layers,
            context_length: context,
            tied: config.tie_word_embeddings,
            ..DecoderConfig::default()
        };
        let layer = |builder: &mut Builder<'_, '_>, index, path: &str| {
            let mut norm = |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, eps);
            let attention_norms = Around::before(norm("input_layernorm")?);
            let mlp_norms = Around::before(norm("post_attention_layernorm")?);
            let (queries, keys) = (shape.queries(), shape.keys());
            let [q_proj, k_proj, v_proj] = builder.fused_linear(
                &format!("{path}.self_attn.qkv_proj"),
                hidden,
                [queries, keys, keys],
                false,
            )?;
            let o_proj = format!("{path}.self_attn.o_proj");
            Ok(Block {
                attention_norms,
                attention: Attention {
                    q_proj,
                    k_proj,
                    v_proj,
                    o_proj: builder.linear(&o_proj, queries, hidden, false)?,
                    shape,
                    norms: None,
                    rope: Some(Rope::new(shape.head_dim, &config.rope())?),
                    growth: None,
                    scores: Scores {
                        window: windows.of(index),
                        ..Scores::plain(shape.head_dim)
                    },
                    gated: false,
                },
                mlp_norms,
                mlp: Mlp::fused(
                    builder,
                    &format!("{path}.mlp"),
                    hidden,
                    inner,
                    Activation::Silu,
                )?,
                branch_scale: None,
            })
        };
        Decoder::build(builder, &decoder, layer, |builder, path| {
            Ok(builder.rms_norm(path, hidden, eps)?.into())
        })
    }
}
