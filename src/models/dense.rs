//! What dense architectures have in common: Llama's shape, from which most differ in little.

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::dimension;
use super::error::LoadError;
use super::layers::{
    AttentionConfig, AttentionShape, Block, BlockConfig, Decoder, DecoderConfig, RopeConfig,
};

/// The fields of `config.json` that nearly all have, under the names that most give them.
#[derive(Debug, Clone)]
pub struct Dense {
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
    /// Epsilon of the norms.
    pub eps: f32,
    /// Tokens that there are.
    pub vocab_size: u64,
    /// Positions that there are.
    pub context: usize,
    /// Whether the embeddings are the output head as well; `None`: where the checkpoint has none.
    pub tied: Option<bool>,
    /// How positions are encoded; its context is the one above.
    pub rope: RopeConfig,
}

impl Dense {
    /// Attention without biases, norms and windows.
    pub fn attention(&self) -> Result<AttentionConfig, LoadError> {
        let shape = AttentionShape::new(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )?;
        let rope = RopeConfig {
            context: Some(self.context),
            ..self.rope.clone()
        };
        Ok(AttentionConfig::plain(shape, rope))
    }

    /// Blocks without biases.
    pub fn block(&self, activation: Activation) -> Result<BlockConfig, LoadError> {
        Ok(BlockConfig {
            hidden: dimension("hidden_size", self.hidden_size)?,
            inner: dimension("intermediate_size", self.intermediate_size)?,
            eps: self.eps,
            activation,
            mlp_bias: false,
        })
    }

    /// What is around the layers.
    pub fn decoder(&self) -> DecoderConfig {
        DecoderConfig {
            hidden_size: self.hidden_size,
            vocab_size: self.vocab_size,
            layers: self.num_hidden_layers,
            context_length: self.context,
            tied: self.tied,
            ..DecoderConfig::default()
        }
    }

    /// Llama's blocks, all of them alike.
    pub fn build(
        &self,
        builder: &mut Builder<'_, '_>,
        attention: &AttentionConfig,
        block: &BlockConfig,
    ) -> Result<Decoder<Block>, LoadError> {
        Decoder::build(
            builder,
            &self.decoder(),
            |builder, _, path| block.pre_norm(builder, path, attention),
            |builder, path| Ok(builder.rms_norm(path, block.hidden, self.eps)?.into()),
        )
    }
}
