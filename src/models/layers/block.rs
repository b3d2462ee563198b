//! One layer of a transformer: attention and a feed-forward layer, each added to what came in.

use crate::mlx::{Activation, Array, MlxError};
use crate::models::batch::Batch;
use crate::models::builder::Builder;
use crate::models::{LayerState, LoadError, StateSize};

use super::{Attention, AttentionConfig, FeedForward, Mixer, Mlp, Norm, NormConfig, ParallelBlock};

/// What a decoder stacks.
pub trait DecoderLayer {
    /// `[tokens, hidden]` to the same; `index` is the layer's place in the sequences' states.
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        index: usize,
    ) -> Result<Array, MlxError>;

    /// The layer's state at the beginning of a sequence.
    fn new_state(&self) -> LayerState;

    /// Adds what a sequence keeps of this layer, in numbers.
    fn add_state(&self, size: &mut StateSize);
}

/// The norms around one half of a block: on what goes into it, and on what comes out.
#[derive(Default)]
pub struct Around {
    /// `None`: it takes what comes in as it is.
    pub before: Option<Norm>,
    /// `None`: what it gives is added as it is.
    pub after: Option<Norm>,
}

impl Around {
    /// Before only.
    pub fn before(norm: impl Into<Norm>) -> Self {
        Self {
            before: Some(norm.into()),
            after: None,
        }
    }

    /// After only.
    pub fn after(norm: impl Into<Norm>) -> Self {
        Self {
            before: None,
            after: Some(norm.into()),
        }
    }

    /// Before and after.
    pub fn both(before: impl Into<Norm>, after: impl Into<Norm>) -> Self {
        Self {
            before: Some(before.into()),
            after: Some(after.into()),
        }
    }

    fn enter(&self, x: &Array) -> Result<Array, MlxError> {
        match &self.before {
            Some(norm) => norm.forward(x),
            None => Ok(x.clone()),
        }
    }
}

/// `x + a(attention(b(x)))`, then the same with the feed-forward layer; `b` and `a` are the norms
/// before and after.
pub struct Block<F = Mlp, M = Attention> {
    /// The norms around `attention`.
    pub attention_norms: Around,
    /// Looks at the sequence; in hybrids not always by attention.
    pub attention: M,
    /// The norms around `mlp`.
    pub mlp_norms: Around,
    /// Looks at single tokens.
    pub mlp: F,
    /// What both halves are multiplied by before they are added.
    pub branch_scale: Option<f32>,
}

/// What the blocks with the usual names of tensors have in common.
#[derive(Debug, Clone, Copy)]
pub struct BlockConfig {
    /// `hidden_size`.
    pub hidden: i32,
    /// `intermediate_size`.
    pub inner: i32,
    /// Of the norms.
    pub norm: NormConfig,
    /// Of the feed-forward layer.
    pub activation: Activation,
    /// Whether its products have biases.
    pub mlp_bias: bool,
}

impl BlockConfig {
    /// Llama's block: a norm before each half.
    pub fn pre_norm(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        attention: &AttentionConfig,
    ) -> Result<Block, LoadError> {
        let mlp = self.mlp(builder, path)?;
        self.pre_norm_around(builder, path, attention, mlp)
    }

    /// The same around another feed-forward layer.
    pub fn pre_norm_around<F>(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        attention: &AttentionConfig,
        mlp: F,
    ) -> Result<Block<F>, LoadError> {
        let attention_norm = self.norm(builder, path, "input_layernorm")?;
        let mlp_norm = self.norm(builder, path, "post_attention_layernorm")?;
        Ok(Block {
            attention_norms: Around::before(attention_norm),
            attention: self.attention(builder, path, attention)?,
            mlp_norms: Around::before(mlp_norm),
            mlp,
            branch_scale: None,
        })
    }

    /// OLMo 2's block: a norm behind each half.
    pub fn post_norm(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        attention: &AttentionConfig,
    ) -> Result<Block, LoadError> {
        let attention_norm = self.norm(builder, path, "post_attention_layernorm")?;
        let mlp_norm = self.norm(builder, path, "post_feedforward_layernorm")?;
        Ok(Block {
            attention_norms: Around::after(attention_norm),
            attention: self.attention(builder, path, attention)?,
            mlp_norms: Around::after(mlp_norm),
            mlp: self.mlp(builder, path)?,
            branch_scale: None,
        })
    }

    /// Gemma 2's block: a norm before and behind each half.
    pub fn both_norms(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        attention: &AttentionConfig,
    ) -> Result<Block, LoadError> {
        let mut norm = |name: &str| self.norm(builder, path, name);
        let attention_norms =
            Around::both(norm("input_layernorm")?, norm("post_attention_layernorm")?);
        let mlp_norms = Around::both(
            norm("pre_feedforward_layernorm")?,
            norm("post_feedforward_layernorm")?,
        );
        Ok(Block {
            attention_norms,
            attention: self.attention(builder, path, attention)?,
            mlp_norms,
            mlp: self.mlp(builder, path)?,
            branch_scale: None,
        })
    }

    /// Cohere's block: halves side by side, and a norm before both.
    pub fn parallel(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        attention: &AttentionConfig,
    ) -> Result<ParallelBlock, LoadError> {
        let mlp = self.mlp(builder, path)?;
        self.parallel_around(builder, path, attention, mlp)
    }

    /// The same around another feed-forward layer.
    pub fn parallel_around(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        attention: &AttentionConfig,
        mlp: Mlp,
    ) -> Result<ParallelBlock, LoadError> {
        Ok(ParallelBlock {
            norm: self.norm(builder, path, "input_layernorm")?,
            attention: self.attention(builder, path, attention)?,
            mlp,
        })
    }

    fn attention(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        config: &AttentionConfig,
    ) -> Result<Attention, LoadError> {
        Attention::build(builder, &format!("{path}.self_attn"), self.hidden, config)
    }

    fn mlp(&self, builder: &mut Builder<'_, '_>, path: &str) -> Result<Mlp, LoadError> {
        Mlp::gated(
            builder,
            &format!("{path}.mlp"),
            self.hidden,
            self.inner,
            self.activation,
            self.mlp_bias,
        )
    }

    fn norm(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        name: &str,
    ) -> Result<Norm, LoadError> {
        builder.norm(&format!("{path}.{name}"), self.hidden, self.norm)
    }
}

impl<F: FeedForward, M: Mixer> Block<F, M> {
    /// Adds what a half gave to what came in.
    fn leave(&self, x: &Array, given: &Array, norms: &Around) -> Result<Array, MlxError> {
        let normed;
        let given = match &norms.after {
            Some(norm) => {
                normed = norm.forward(given)?;
                &normed
            }
            None => given,
        };
        match self.branch_scale {
            Some(factor) => x.add(&given.scale(factor)?),
            None => x.add(given),
        }
    }
}

impl<F: FeedForward, M: Mixer> DecoderLayer for Block<F, M> {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        index: usize,
    ) -> Result<Array, MlxError> {
        // A product adds what came in by itself where nothing goes between.
        let adds = |norms: &Around| norms.after.is_none() && self.branch_scale.is_none();
        let entered = self.attention_norms.enter(x)?;
        let x = if adds(&self.attention_norms) {
            self.attention.forward_add(&entered, x, batch, index)?
        } else {
            let attended = self.attention.forward(&entered, batch, index)?;
            self.leave(x, &attended, &self.attention_norms)?
        };
        let entered = self.mlp_norms.enter(&x)?;
        if adds(&self.mlp_norms) {
            self.mlp.forward_add(&entered, &x)
        } else {
            self.leave(&x, &self.mlp.forward(&entered)?, &self.mlp_norms)
        }
    }

    fn new_state(&self) -> LayerState {
        self.attention.new_state()
    }

    fn add_state(&self, size: &mut StateSize) {
        self.attention.add_state(size);
    }
}
