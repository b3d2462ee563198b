//! A whole language model: embeddings, a stack of layers, and a head that scores every token.

use crate::mlx::{Array, MlxError};
use crate::models::batch::Batch;
use crate::models::builder::{Builder, Dimensions};
use crate::models::config::dimension;
use crate::models::{LoadError, Model, ModelInfo, Row, SequenceState, StateSize};

use super::{DecoderLayer, Embedding, Linear, Norm, NormConfig};

/// What `config.json` says of the parts around the layers.
#[derive(Debug, Clone, Default)]
pub struct DecoderConfig {
    /// `hidden_size`.
    pub hidden_size: u64,
    /// `vocab_size`.
    pub vocab_size: u64,
    /// `num_hidden_layers`.
    pub layers: usize,
    /// `max_position_embeddings`.
    pub context_length: usize,
    /// What embeddings are multiplied by.
    pub embedding_scale: Option<f32>,
    /// Whether the embeddings are the output head as well. `None`: they are where the checkpoint has no
    /// `lm_head`.
    pub tied: Option<bool>,
    /// Whether the output head has a bias.
    pub head_bias: bool,
    /// What logits are multiplied by.
    pub logit_scale: Option<f32>,
    /// By way of tanh logits are kept below it.
    pub logit_cap: Option<f32>,
}

/// The model.
pub struct Decoder<L> {
    info: ModelInfo,
    embed_tokens: Embedding,
    embedding_scale: Option<f32>,
    layers: Vec<L>,
    norm: Norm,
    head: Head,
}

impl<L: DecoderLayer> Decoder<L> {
    /// Takes `model.embed_tokens`, what `layer` takes under `model.layers.{index}`, `model.norm`, and
    /// `lm_head`.
    pub fn build(
        builder: &mut Builder<'_, '_>,
        config: &DecoderConfig,
        norm: NormConfig,
        mut layer: impl FnMut(&mut Builder<'_, '_>, usize, &str) -> Result<L, LoadError>,
    ) -> Result<Self, LoadError> {
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let vocab = dimension("vocab_size", config.vocab_size)?;
        let embed_tokens = builder.embedding("model.embed_tokens", vocab, hidden)?;
        let layers = (0..config.layers)
            .map(|index| layer(builder, index, &format!("model.layers.{index}")))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = builder.norm("model.norm", hidden, norm)?;
        let head = Head::build(builder, config, hidden, vocab)?;
        let mut state = StateSize::default();
        for layer in &layers {
            layer.add_state(&mut state);
        }
        let info = builder.info(Dimensions {
            vocab_size: vocab as usize,
            context_length: config.context_length,
            state,
        });
        Ok(Self {
            info,
            embed_tokens,
            embedding_scale: config.embedding_scale,
            layers,
            norm,
            head,
        })
    }
}

impl<L: DecoderLayer> Model for Decoder<L> {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn new_state(&self) -> SequenceState {
        SequenceState::new(self.layers.iter().map(DecoderLayer::new_state).collect())
    }

    fn forward(&self, tokens: &Array, rows: &mut [Row<'_>]) -> Result<Option<Array>, MlxError> {
        let mut batch = Batch::new(tokens, rows)?;
        let mut x = self.embed_tokens.forward(tokens)?;
        if let Some(factor) = self.embedding_scale {
            x = x.scale(factor)?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &mut batch, index)?;
        }
        batch.finish(&x, |x| {
            self.head
                .forward(&self.norm.forward(x)?, &self.embed_tokens)
        })
    }
}

/// Scores every token.
struct Head {
    /// `None` where the embeddings are tied.
    own: Option<Linear>,
    scale: Option<f32>,
    cap: Option<f32>,
}

impl Head {
    /// Takes `lm_head` where the model has one of its own.
    fn build(
        builder: &mut Builder<'_, '_>,
        config: &DecoderConfig,
        hidden: i32,
        vocab: i32,
    ) -> Result<Self, LoadError> {
        let own_head = match config.tied {
            Some(tied) => !tied,
            None => builder.contains("lm_head.weight"),
        };
        let own = match own_head {
            true => Some(builder.linear("lm_head", hidden, vocab, config.head_bias)?),
            false => None,
        };
        Ok(Self {
            own,
            scale: config.logit_scale,
            cap: config.logit_cap,
        })
    }

    /// `[tokens, hidden]` to logits `[tokens, vocab]`.
    #[track_caller]
    fn forward(&self, x: &Array, embeddings: &Embedding) -> Result<Array, MlxError> {
        let mut logits = match &self.own {
            Some(head) => head.forward(x)?,
            None => embeddings.as_linear(x)?,
        };
        if let Some(factor) = self.scale {
            logits = logits.scale(factor)?;
        }
        match self.cap {
            Some(limit) => logits.soft_cap(limit),
            None => Ok(logits),
        }
    }
}
