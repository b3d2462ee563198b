//! Gemma 4 (Gemma Team, 2026): the last layers attend to the keys and values of earlier ones, and every
//! layer is told the token once more, by an embedding of its own. The reference is mlx-lm's
//! `models/gemma4_text.py`.

mod attention;
mod config;
mod experts;

use crate::mlx::{Activation, Array, MlxError};

use super::batch::Batch;
use super::builder::{Builder, Dimensions};
use super::config::dimension;
use super::error::LoadError;
use super::layers::{Embedding, FeedForward, Linear, Mlp, RmsNorm};
use super::registry::Architecture;
use super::weights::Weights;
use super::{Model, ModelInfo, Row, SequenceState, StateSize};

use self::attention::Attention;
pub use self::config::Gemma4Config;
use self::experts::Beside;

/// The model.
pub struct Gemma4 {
    info: ModelInfo,
    embed_tokens: Embedding,
    embedding_scale: f32,
    token_again: Option<TokenAgain>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Option<Linear>,
    logit_cap: Option<f32>,
}

/// What tells every layer the token once more.
struct TokenAgain {
    embed: Embedding,
    projection: Linear,
    projection_norm: RmsNorm,
    layers: i32,
    size: i32,
    hidden: i32,
}

struct Layer {
    input_norm: RmsNorm,
    attention: Attention,
    attention_norm: RmsNorm,
    mlp_input_norm: RmsNorm,
    mlp: Mlp,
    experts: Option<Beside>,
    mlp_norm: RmsNorm,
    again: Option<Again>,
    scalar: Array,
}

/// A layer's use of the token that it is told again.
struct Again {
    gate: Linear,
    projection: Linear,
    norm: RmsNorm,
}

impl Architecture for Gemma4 {
    type Config = Gemma4Config;
    type Model = Self;

    fn sanitize(config: &Gemma4Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        experts::sanitize(config, weights)?;
        let first_shared = config.own_states()?;
        weights.discard(|name| {
            let unused = [
                "rotary_emb",
                "input_max",
                "input_min",
                "output_max",
                "output_min",
            ];
            let projects = [
                ".self_attn.k_proj",
                ".self_attn.v_proj",
                ".self_attn.k_norm",
            ];
            let layer = name
                .strip_prefix("model.layers.")
                .and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            unused.iter().any(|part| name.contains(part))
                || layer.is_some_and(|layer| layer >= first_shared)
                    && projects.iter().any(|part| name.contains(part))
        });
        weights.discard_tied_head(Some(config.tie_word_embeddings.unwrap_or(true)));
        Ok(())
    }

    fn build(config: &Gemma4Config, builder: &mut Builder<'_, '_>) -> Result<Self, LoadError> {
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let vocab = dimension("vocab_size", config.vocab_size)?;
        let embed_tokens = builder.embedding("model.embed_tokens", vocab, hidden)?;
        let token_again = TokenAgain::build(config, builder, hidden)?;
        let own_states = config.own_states()?;
        let windows = config.windows()?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for index in 0..config.num_hidden_layers {
            // The last layer of the same kind that keeps any.
            let alike = |&other: &usize| config.slides(other) == config.slides(index);
            let state = match index < own_states {
                true => Some(index),
                false => (0..own_states).rev().find(alike),
            };
            let missing = || LoadError::config("num_kv_shared_layers", "shares with no layer");
            let state = state.ok_or_else(missing)?;
            let size = token_again.as_ref().map(|it| it.size);
            let window = windows.of(index);
            layers.push(Layer::build(config, builder, (index, state), window, size)?);
        }
        let norm = builder.rms_norm("model.norm", hidden, config.eps())?;
        let lm_head = match config.tie_word_embeddings.unwrap_or(true) {
            true => None,
            false => Some(builder.linear("lm_head", hidden, vocab, false)?),
        };
        let mut state = StateSize::default();
        for layer in layers.iter().filter(|layer| layer.attention.keeps()) {
            layer.attention.add_state(&mut state);
        }
        let info = builder.info(Dimensions {
            vocab_size: vocab as usize,
            context_length: config.context_length(),
            state,
        });
        Ok(Self {
            info,
            embed_tokens,
            embedding_scale: (hidden as f32).sqrt(),
            token_again,
            layers,
            norm,
            lm_head,
            logit_cap: config.final_logit_softcapping,
        })
    }
}

impl TokenAgain {
    fn build(
        config: &Gemma4Config,
        builder: &mut Builder<'_, '_>,
        hidden: i32,
    ) -> Result<Option<Self>, LoadError> {
        let Some(size) = config.hidden_size_per_layer_input.filter(|&size| size > 0) else {
            return Ok(None);
        };
        let key = "hidden_size_per_layer_input";
        let all = dimension(key, size.saturating_mul(config.num_hidden_layers as u64))?;
        let size = dimension(key, size)?;
        let vocab = config
            .vocab_size_per_layer_input
            .unwrap_or(config.vocab_size);
        let vocab = dimension("vocab_size_per_layer_input", vocab.max(config.vocab_size))?;
        let norm = "model.per_layer_projection_norm";
        Ok(Some(Self {
            embed: builder.embedding("model.embed_tokens_per_layer", vocab, all)?,
            projection: builder.linear("model.per_layer_model_projection", hidden, all, false)?,
            projection_norm: builder.rms_norm(norm, size, config.eps())?,
            layers: all / size,
            size,
            hidden,
        }))
    }

    /// What the layers are told: `[tokens, layers, size]`.
    fn forward(&self, tokens: &Array, x: &Array) -> Result<Array, MlxError> {
        let divided = |array: Array| array.reshape(&[-1, self.layers, self.size]);
        let told = divided(
            self.embed
                .forward(tokens)?
                .scale((self.size as f32).sqrt())?,
        )?;
        let seen = self.projection.forward(x)?;
        let seen = divided(seen.scale(1.0 / (self.hidden as f32).sqrt())?)?;
        let seen = self.projection_norm.forward(&seen)?;
        seen.add(&told)?.scale(std::f32::consts::FRAC_1_SQRT_2)
    }
}

impl Layer {
    fn build(
        config: &Gemma4Config,
        builder: &mut Builder<'_, '_>,
        (index, state): (usize, usize),
        window: Option<i32>,
        told: Option<i32>,
    ) -> Result<Self, LoadError> {
        let path = format!("model.layers.{index}");
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let shares = state != index;
        let wide = shares && config.use_double_wide_mlp.unwrap_or(true);
        let inner = config
            .intermediate_size
            .saturating_mul(if wide { 2 } else { 1 });
        let inner = dimension("intermediate_size", inner)?;
        let mut norm =
            |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, config.eps());
        let input_norm = norm("input_layernorm")?;
        let attention_norm = norm("post_attention_layernorm")?;
        let mlp_input_norm = norm("pre_feedforward_layernorm")?;
        let mlp_norm = norm("post_feedforward_layernorm")?;
        let again = match told {
            None => None,
            Some(size) => Some(Again {
                norm: norm("post_per_layer_input_norm")?,
                gate: builder.linear(
                    &format!("{path}.per_layer_input_gate"),
                    hidden,
                    size,
                    false,
                )?,
                projection: builder.linear(
                    &format!("{path}.per_layer_projection"),
                    size,
                    hidden,
                    false,
                )?,
            }),
        };
        let mlp = format!("{path}.mlp");
        Ok(Self {
            input_norm,
            attention: Attention::build(config, builder, (index, state), window)?,
            attention_norm,
            mlp_input_norm,
            mlp: Mlp::gated(builder, &mlp, hidden, inner, Activation::GeluTanh, false)?,
            experts: Beside::build(config, builder, &path)?,
            mlp_norm,
            again,
            scalar: builder.vector(&format!("{path}.layer_scalar"), 1)?,
        })
    }

    /// `told` is `[tokens, size]`.
    fn forward(
        &self,
        x: &Array,
        told: Option<Array>,
        batch: &mut Batch<'_, '_>,
    ) -> Result<Array, MlxError> {
        let attended = self
            .attention
            .forward(&self.input_norm.forward(x)?, batch)?;
        let x = x.add(&self.attention_norm.forward(&attended)?)?;
        let mut given = self.mlp.forward(&self.mlp_input_norm.forward(&x)?)?;
        if let Some(experts) = &self.experts {
            given = experts.forward(&x, &given)?;
        }
        let mut x = x.add(&self.mlp_norm.forward(&given)?)?;
        if let (Some(again), Some(told)) = (&self.again, told) {
            let gate = again.gate.forward(&x)?;
            let opened = gate.activate_times(Activation::GeluTanh, &told)?;
            let projected = again.projection.forward(&opened)?;
            x = x.add(&again.norm.forward(&projected)?)?;
        }
        x.multiply(&self.scalar)
    }
}

impl Model for Gemma4 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn new_state(&self) -> SequenceState {
        let own = self.layers.iter().filter(|layer| layer.attention.keeps());
        let state = |layer: &Layer| layer.attention.new_state();
        SequenceState::new(own.map(state).collect())
    }

    fn forward(&self, tokens: &Array, rows: &mut [Row<'_>]) -> Result<Option<Array>, MlxError> {
        let mut batch = Batch::new(tokens, rows)?;
        let mut x = self
            .embed_tokens
            .forward(tokens)?
            .scale(self.embedding_scale)?;
        let told = match &self.token_again {
            Some(again) => Some((again.forward(tokens, &x)?, again.size)),
            None => None,
        };
        for (index, layer) in self.layers.iter().enumerate() {
            let index = index as i32;
            let told = match &told {
                Some((all, size)) => {
                    let tokens = all.dim(0);
                    let own = all.slice(&[0, index, 0], &[tokens, index + 1, *size])?;
                    Some(own.reshape(&[tokens, *size])?)
                }
                None => None,
            };
            x = layer.forward(&x, told, &mut batch)?;
        }
        batch.finish(&x, |x| {
            let x = self.norm.forward(x)?;
            let logits = match &self.lm_head {
                Some(head) => head.forward(&x)?,
                None => self.embed_tokens.as_linear(&x)?,
            };
            match self.logit_cap {
                Some(limit) => logits.soft_cap(limit),
                None => Ok(logits),
            }
        })
    }
}
