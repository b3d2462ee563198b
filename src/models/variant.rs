//! Variants of one decoder: Llama's, from which most architectures differ in little.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::{ConfigFile, FromConfig, dimension};
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, BlockConfig, Decoder, DecoderConfig, DecoderLayer, NormConfig,
    NormKind, RopeConfig, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;
use super::windows::{self, Windows};

/// An architecture that is this decoder but for what it says here.
pub trait Variant {
    /// The fields of `config.json` that it reads beside those of [`Common`].
    type Own: DeserializeOwned;

    /// What its decoder stacks.
    type Layer: DecoderLayer + 'static;

    /// Says what the file may leave out, and what it says in other fields.
    fn complete(_own: &Self::Own, _common: &mut Common) {}

    /// Checks the configuration, and discards or converts tensors (mlx-lm's `sanitize`).
    fn sanitize(
        _own: &Self::Own,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)
    }

    /// Takes the tensors, and makes the model of them.
    fn build(
        own: &Self::Own,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Self::Layer>, LoadError>;
}

/// The fields of `config.json` that nearly all have, under the names that most give them.
#[derive(Debug, Clone, Deserialize)]
pub struct Common {
    /// Features of a token.
    pub hidden_size: u64,
    /// Features within the feed-forward layers.
    pub intermediate_size: u64,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: u64,
    /// Key and value heads; `None`: as many.
    pub num_key_value_heads: Option<u64>,
    /// Features of a head; `None`: the heads share those of a token.
    pub head_dim: Option<u64>,
    /// Tokens that there are.
    pub vocab_size: Option<u64>,
    /// Positions that there are.
    #[serde(rename = "max_position_embeddings")]
    pub context: Option<usize>,
    /// Whether the embeddings are the output head as well; `None`: where the checkpoint has none.
    #[serde(rename = "tie_word_embeddings")]
    pub tied: Option<bool>,
    /// Epsilon of the norms.
    #[serde(rename = "rms_norm_eps")]
    pub eps: Option<f32>,
    /// What the norms are.
    #[serde(skip)]
    pub norm: NormKind,
    /// What the file calls the activation of the feed-forward layers.
    pub hidden_act: Option<String>,
    /// What it must be.
    #[serde(skip, default = "silu")]
    pub activation: Activation,
    /// The base of the rotary positions.
    pub rope_theta: Option<f64>,
    /// Whether they turn neighbouring features; `None`: the halves of a head.
    pub rope_traditional: Option<bool>,
    /// The share of a head's features that they turn; `None`: all.
    #[serde(skip)]
    pub rope_partial: Option<f64>,
    /// How they are stretched.
    pub rope_scaling: Option<Map<String, Value>>,
    /// The same, and the base, as transformers 5 has it.
    pub rope_parameters: Option<Map<String, Value>>,
}

fn silu() -> Activation {
    Activation::Silu
}

fn stated<T: Copy>(key: &str, field: Option<T>) -> Result<T, LoadError> {
    field.ok_or_else(|| LoadError::config(key, "is missing"))
}

impl Common {
    /// Fails where the activation is another one, and discards what is computed here, and the head where it
    /// is tied.
    pub fn sanitize(&self, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", self.hidden_act.as_deref(), self.activation)?;
        // Frequencies that old versions of transformers saved.
        weights.discard(|name| name.ends_with(".inv_freq"));
        weights.discard_tied_head(self.tied);
        Ok(())
    }

    /// Positions that there are.
    pub fn context(&self) -> Result<usize, LoadError> {
        stated("max_position_embeddings", self.context)
    }

    /// The norms.
    pub fn norm(&self) -> Result<NormConfig, LoadError> {
        Ok(NormConfig {
            kind: self.norm,
            eps: stated("rms_norm_eps", self.eps)?,
        })
    }

    /// How positions are encoded.
    pub fn rope(&self) -> Result<RopeConfig, LoadError> {
        Ok(RopeConfig {
            theta: self.rope_theta,
            traditional: self.rope_traditional.unwrap_or(false),
            partial: self.rope_partial,
            scaling: self.rope_scaling.clone(),
            parameters: self.rope_parameters.clone(),
            context: Some(self.context()?),
        })
    }

    /// Attention without biases, norms and windows.
    pub fn attention(&self) -> Result<AttentionConfig, LoadError> {
        let shape = AttentionShape::new(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )?;
        Ok(AttentionConfig::plain(shape, self.rope()?))
    }

    /// The window of each layer: as `types` say, or else that of the layers for whose index `slides` says
    /// so, if there is one at all.
    pub fn windows(
        &self,
        types: Option<&[String]>,
        window: Option<u64>,
        slides: impl Fn(usize) -> bool,
    ) -> Result<Windows, LoadError> {
        let (layers, context) = (self.num_hidden_layers, self.context()?);
        match (types, window) {
            (Some(types), window) => windows::by_types(types, layers, window, context),
            (None, Some(window)) => windows::by_index(layers, window, context, slides),
            (None, None) => Ok(windows::none(layers)),
        }
    }

    /// Blocks whose feed-forward layers have no biases.
    pub fn block(&self) -> Result<BlockConfig, LoadError> {
        Ok(BlockConfig {
            hidden: dimension("hidden_size", self.hidden_size)?,
            inner: dimension("intermediate_size", self.intermediate_size)?,
            norm: self.norm()?,
            activation: self.activation,
            mlp_bias: false,
        })
    }

    /// What is around the layers.
    pub fn decoder(&self) -> Result<DecoderConfig, LoadError> {
        Ok(DecoderConfig {
            hidden_size: self.hidden_size,
            vocab_size: stated("vocab_size", self.vocab_size)?,
            layers: self.num_hidden_layers,
            context_length: self.context()?,
            tied: self.tied,
            ..DecoderConfig::default()
        })
    }

    /// The model of these layers.
    pub fn build<L: DecoderLayer>(
        &self,
        builder: &mut Builder<'_, '_>,
        layer: impl FnMut(&mut Builder<'_, '_>, usize, &str) -> Result<L, LoadError>,
    ) -> Result<Decoder<L>, LoadError> {
        Decoder::build(builder, &self.decoder()?, self.norm()?, layer)
    }
}

/// The configuration of a variant.
pub struct VariantConfig<V: Variant> {
    common: Common,
    own: V::Own,
}

impl<V: Variant> FromConfig for VariantConfig<V> {
    fn from_config(file: &ConfigFile) -> Result<Self, LoadError> {
        let (mut common, own) = file.parse_both()?;
        V::complete(&own, &mut common);
        Ok(Self { common, own })
    }
}

impl<V: Variant> Architecture for V {
    type Config = VariantConfig<V>;
    type Model = Decoder<V::Layer>;

    fn sanitize(config: &Self::Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        V::sanitize(&config.own, &config.common, weights)
    }

    fn build(
        config: &Self::Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        V::build(&config.own, &config.common, builder)
    }
}
