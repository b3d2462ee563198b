//! LFM2 (Liquid AI, 2025): gated short convolutions, and attention in some layers; with experts in
//! `lfm2_moe.rs`. The reference is mlx-lm's `models/lfm2.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Array, MlxError};

use super::StateSize;
use super::batch::Batch;
use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    Around, Attention, AttentionShape, Block, Convolution, Decoder, DecoderConfig, FeedForward,
    Linear, Mixer, Mlp, NormConfig, NormOver, QueryKeyNorms, Rope, RopeConfig, attends,
};
use super::registry::Architecture;
use super::weights::Weights;
use crate::mlx::fast::Scores;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Lfm2Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    vocab_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    max_position_embeddings: usize,
    norm_eps: f32,
    conv_bias: bool,
    #[serde(rename = "conv_L_cache")]
    conv_taps: u64,
    block_multiple_of: Option<u64>,
    block_ffn_dim_multiplier: Option<f64>,
    block_auto_adjust_ff_dim: Option<bool>,
    block_ff_dim: Option<u64>,
    intermediate_size: Option<u64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Map<String, Value>>,
    full_attn_idxs: Option<Vec<usize>>,
    layer_types: Option<Vec<String>>,
    tie_word_embeddings: Option<bool>,
    tie_embedding: Option<bool>,
    /// Those of the experts, which only some have.
    pub(super) num_experts: Option<u64>,
    pub(super) num_experts_per_tok: Option<u64>,
    pub(super) moe_intermediate_size: Option<u64>,
    pub(super) num_dense_layers: Option<usize>,
    pub(super) norm_topk_prob: Option<bool>,
    pub(super) use_expert_bias: Option<bool>,
    pub(super) routed_scaling_factor: Option<f32>,
}

impl Lfm2Config {
    /// Whether each layer has attention.
    fn attends(&self) -> Result<Vec<bool>, LoadError> {
        let layers = self.num_hidden_layers;
        if let Some(indices) = &self.full_attn_idxs {
            return Ok((0..layers).map(|index| indices.contains(&index)).collect());
        }
        let Some(types) = &self.layer_types else {
            return Err(LoadError::config("layer_types", "is missing"));
        };
        attends(types, layers, "conv")
    }

    /// Features inside of the feed-forward layers.
    fn inner(&self) -> Result<i32, LoadError> {
        let missing = || LoadError::config("intermediate_size", "is missing");
        let stated = self.block_ff_dim.or(self.intermediate_size);
        let mut inner = stated.ok_or_else(missing)?;
        if self.block_auto_adjust_ff_dim == Some(true) {
            inner = (2.0 * inner as f64 / 3.0) as u64;
            if let Some(factor) = self.block_ffn_dim_multiplier {
                inner = (factor * inner as f64) as u64;
            }
            inner = inner.next_multiple_of(self.block_multiple_of.unwrap_or(1).max(1));
        }
        dimension("block_ff_dim", inner)
    }

    fn rope(&self) -> RopeConfig {
        RopeConfig {
            theta: Some(self.rope_theta.unwrap_or(1_000_000.0)),
            parameters: self.rope_parameters.clone(),
            context: Some(self.max_position_embeddings),
            ..RopeConfig::default()
        }
    }
}

/// Convolutions and attention, with a feed-forward layer in each.
pub type Lfm2Model<F> = Decoder<Block<F, Box<dyn Mixer>>>;

impl Lfm2Config {
    /// Layers of the model.
    pub(super) fn layers(&self) -> usize {
        self.num_hidden_layers
    }

    /// What becomes of the tensors before anything is built.
    pub(super) fn sanitize(&self, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        if self.tie_word_embeddings.or(self.tie_embedding) == Some(false) {
            let message = "a head of its own is not supported in this architecture";
            return Err(LoadError::config("tie_word_embeddings", message));
        }
        weights.discard_tied_head(Some(true));
        weights.rename(|name| {
            let rest = name.strip_prefix("model.embedding_norm.")?;
            Some(format!("model.norm.{rest}"))
        });
        Ok(())
    }

    /// The model with the feed-forward layers that `mlp` takes under a path, given the layer's index and the
    /// features of a token and within the layer.
    pub(super) fn build<F: FeedForward>(
        &self,
        builder: &mut Builder<'_, '_>,
        mut mlp: impl FnMut(&mut Builder<'_, '_>, usize, &str, [i32; 2]) -> Result<F, LoadError>,
    ) -> Result<Lfm2Model<F>, LoadError> {
        let hidden = dimension("hidden_size", self.hidden_size)?;
        let taps = dimension("conv_L_cache", self.conv_taps)?;
        let shape = AttentionShape::new(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            None,
        )?;
        let (inner, eps) = (self.inner()?, self.norm_eps);
        let attends = self.attends()?;
        Decoder::build(
            builder,
            &DecoderConfig {
                hidden_size: self.hidden_size,
                vocab_size: self.vocab_size,
                layers: self.num_hidden_layers,
                context_length: self.max_position_embeddings,
                tied: Some(true),
                ..DecoderConfig::default()
            },
            NormConfig::rms(eps),
            |builder, index, path| {
                let mixer: Box<dyn Mixer> = if attends.get(index) == Some(&true) {
                    let path = format!("{path}.self_attn");
                    Box::new(attention(builder, &path, hidden, shape, self)?)
                } else {
                    let path = format!("{path}.conv");
                    let bias = self.conv_bias;
                    Box::new(GatedConv::build(builder, &path, hidden, taps, bias)?)
                };
                let mut norm =
                    |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, eps);
                let attention_norms = Around::before(norm("operator_norm")?);
                let mlp_norms = Around::before(norm("ffn_norm")?);
                Ok(Block {
                    attention_norms,
                    attention: mixer,
                    mlp_norms,
                    mlp: mlp(
                        builder,
                        index,
                        &format!("{path}.feed_forward"),
                        [hidden, inner],
                    )?,
                    branch_scale: None,
                })
            },
        )
    }
}

/// LFM2.
pub struct Lfm2;

impl Architecture for Lfm2 {
    type Config = Lfm2Config;
    type Model = Lfm2Model<Mlp>;

    fn sanitize(config: &Lfm2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        if config.num_experts.is_some() {
            let message = "experts are those of the model type lfm2_moe";
            return Err(LoadError::config("num_experts", message));
        }
        config.sanitize(weights)
    }

    fn build(config: &Lfm2Config, builder: &mut Builder<'_, '_>) -> Result<Self::Model, LoadError> {
        config.build(builder, |builder, _, path, [hidden, inner]| {
            let mut linear = |name: &str, inputs, outputs| {
                builder.linear(&format!("{path}.{name}"), inputs, outputs, false)
            };
            Ok(Mlp {
                gate: Some(linear("w1", hidden, inner)?),
                up: linear("w3", hidden, inner)?,
                down: linear("w2", inner, hidden)?,
                activation: Activation::Silu,
            })
        })
    }
}

/// Attention, whose tensors have names of their own.
fn attention(
    builder: &mut Builder<'_, '_>,
    path: &str,
    hidden: i32,
    shape: AttentionShape,
    config: &Lfm2Config,
) -> Result<Attention, LoadError> {
    let (queries, keys) = (shape.queries(), shape.keys());
    let mut linear = |name: &str, inputs, outputs| {
        builder.linear(&format!("{path}.{name}"), inputs, outputs, false)
    };
    let q_proj = linear("q_proj", hidden, queries)?;
    let k_proj = linear("k_proj", hidden, keys)?;
    let v_proj = linear("v_proj", hidden, keys)?;
    let o_proj = linear("out_proj", queries, hidden)?;
    let mut norm =
        |name: &str| builder.rms_norm(&format!("{path}.{name}"), shape.head_dim, config.norm_eps);
    Ok(Attention {
        q_proj,
        k_proj,
        v_proj,
        o_proj,
        shape,
        norms: Some(QueryKeyNorms {
            over: NormOver::Heads,
            q_norm: norm("q_layernorm")?.into(),
            k_norm: norm("k_layernorm")?.into(),
        }),
        rope: Some(Rope::new(shape.head_dim, &config.rope())?),
        growth: None,
        scores: Scores::plain(shape.head_dim),
        gated: false,
    })
}

/// A short convolution with a gate before it and one behind.
struct GatedConv {
    in_proj: Linear,
    conv: Convolution,
    out_proj: Linear,
    hidden: i32,
}

impl GatedConv {
    fn build(
        builder: &mut Builder<'_, '_>,
        path: &str,
        hidden: i32,
        taps: i32,
        bias: bool,
    ) -> Result<Self, LoadError> {
        let wide = dimension("hidden_size", 3 * hidden as u64)?;
        let conv = format!("{path}.conv");
        Ok(Self {
            in_proj: builder.linear(&format!("{path}.in_proj"), hidden, wide, bias)?,
            conv: Convolution::build(builder, &conv, hidden, taps, bias, false)?,
            out_proj: builder.linear(&format!("{path}.out_proj"), hidden, hidden, bias)?,
            hidden,
        })
    }

    fn mix(&self, x: &Array, batch: &mut Batch<'_, '_>, layer: usize) -> Result<Array, MlxError> {
        let projected = self.in_proj.forward(x)?;
        let tokens = x.dim(0);
        let part = |index: i32| {
            let (from, to) = (index * self.hidden, (index + 1) * self.hidden);
            projected.slice(&[0, from], &[tokens, to])
        };
        let gated = part(0)?.multiply(&part(2)?)?;
        part(1)?.multiply(&self.conv.forward(&gated, batch, layer)?)
    }
}

impl Mixer for GatedConv {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        self.out_proj.forward(&self.mix(x, batch, layer)?)
    }

    fn forward_add(
        &self,
        x: &Array,
        residual: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        let mixed = self.mix(x, batch, layer)?;
        self.out_proj.forward_add(&mixed, residual)
    }

    fn add_state(&self, size: &mut StateSize) {
        self.conv.add_state(size);
    }
}
