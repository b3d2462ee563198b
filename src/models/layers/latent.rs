//! Multi-head latent attention (DeepSeek-V2, 2024).

use crate::mlx::fast::{self, Scores};
use crate::mlx::{Array, Experts, MlxError};
use crate::models::batch::{Batch, as_sequence, as_tokens};
use crate::models::builder::Builder;
use crate::models::{LayerState, LoadError, StateSize};

use super::{DecoderLayer, FeedForward, Linear, RmsNorm, Rope, RopeConfig};

/// Epsilon of the norms within the attention, whatever `config.json` says of the others.
const EPS: f32 = 1e-6;

/// How many features there are of what.
#[derive(Debug, Clone, Copy)]
pub struct LatentShape {
    /// Heads.
    pub heads: i32,
    /// Of a head's query and key, those that know no position.
    pub plain: i32,
    /// Those that are turned by it; the key's are the same for all heads.
    pub turned: i32,
    /// Of a head's value.
    pub value: i32,
    /// Of what is kept of a position, besides the turned ones.
    pub rank: i32,
    /// Of what queries are made of; `None`: they are made of the hidden state.
    pub query_rank: Option<i32>,
}

/// Causal self-attention whose keys and values are made, for each head by a matrix of its own, of one
/// vector a position: the latent.
///
/// Instead of unfolding every latent to keys and values, queries are folded and results unfolded. So a
/// prompt is computed as single tokens are, bit for bit, and only latents are kept.
pub struct LatentAttention {
    shape: LatentShape,
    queries: Queries,
    compress: Linear,
    latent_norm: RmsNorm,
    /// `[heads, rank, plain]`.
    fold: Experts,
    /// `[heads, value, rank]`.
    unfold: Experts,
    o_proj: Linear,
    rope: Rope,
    scores: Scores,
    /// `[1, heads]`: every token goes through all heads.
    all_heads: Array,
}

enum Queries {
    Direct(Linear),
    LowRank {
        down: Linear,
        norm: RmsNorm,
        up: Linear,
    },
}

impl LatentAttention {
    /// Takes the tensors under `path`.
    pub fn build(
        builder: &mut Builder<'_, '_>,
        path: &str,
        hidden: i32,
        shape: LatentShape,
        bias: bool,
        rope: &RopeConfig,
        scale: f32,
    ) -> Result<Self, LoadError> {
        let LatentShape {
            heads,
            plain,
            turned,
            value,
            rank,
            query_rank,
        } = shape;
        let name = |name: &str| format!("{path}.{name}");
        let features = heads * (plain + turned);
        let queries = match query_rank {
            None => Queries::Direct(builder.linear(&name("q_proj"), hidden, features, false)?),
            Some(rank) => Queries::LowRank {
                down: builder.linear(&name("q_a_proj"), hidden, rank, bias)?,
                norm: builder.rms_norm(&name("q_a_layernorm"), rank, EPS)?,
                up: builder.linear(&name("q_b_proj"), rank, features, false)?,
            },
        };
        let all: Vec<u32> = (0..heads as u32).collect();
        Ok(Self {
            shape,
            queries,
            compress: builder.linear(&name("kv_a_proj_with_mqa"), hidden, rank + turned, bias)?,
            latent_norm: builder.rms_norm(&name("kv_a_layernorm"), rank, EPS)?,
            fold: builder.experts(&name("embed_q"), heads, plain, rank, false)?,
            unfold: builder.experts(&name("unembed_out"), heads, rank, value, false)?,
            o_proj: builder.linear(&name("o_proj"), heads * value, hidden, bias)?,
            rope: Rope::new(turned, rope)?,
            scores: Scores {
                scale,
                ..Scores::plain(plain + turned)
            },
            all_heads: Array::from_u32(&all, &[1, heads])?,
        })
    }

    /// `[tokens, hidden]` to the same, plus `residual`; row `r` reads and extends the state of layer
    /// `layer` of its own sequence.
    #[track_caller]
    pub fn forward_add(
        &self,
        x: &Array,
        residual: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        let LatentShape {
            heads,
            plain,
            turned,
            value,
            rank,
            ..
        } = self.shape;
        let tokens = x.dim(0);
        let choices = self.all_heads.broadcast_to(&[tokens, heads])?;
        let queries = self.project(x)?.reshape(&[tokens, heads, plain + turned])?;
        let part = |from: i32, to: i32| queries.slice(&[0, 0, from], &[tokens, heads, to]);
        let unturned = part(0, plain)?.reshape(&[tokens * heads, plain])?;
        let folded = self.fold.product(&unturned, &choices)?;
        let folded = folded.reshape(&[tokens, heads, 1, rank])?;
        let placed = part(plain, plain + turned)?.reshape(&[tokens, heads, 1, turned])?;
        let placed = self.rope.forward(&placed, batch.positions())?;
        let queries = Array::concatenate(&[&folded, &placed], 3)?;

        let compressed = self.compress.forward(x)?;
        let latents = compressed.slice(&[0, 0], &[tokens, rank])?;
        let latents = self.latent_norm.forward(&latents)?;
        let latents = latents.reshape(&[tokens, 1, 1, rank])?;
        let placed = compressed.slice(&[0, rank], &[tokens, rank + turned])?;
        let placed = placed.reshape(&[tokens, 1, 1, turned])?;
        let placed = self.rope.forward(&placed, batch.positions())?;

        let attended = batch.per_row([queries, latents, placed], |parts, row| {
            let [queries, latents, placed] = parts;
            let (latents, placed) =
                row.state
                    .extend(layer, &as_sequence(latents)?, &as_sequence(placed)?)?;
            // As values the turned features are too many: they are cut off below.
            let keys = Array::concatenate(&[&latents, &placed], 3)?;
            let queries = as_sequence(queries)?;
            as_tokens(fast::attention(&queries, &keys, &keys, &self.scores)?)
        })?;
        let attended = attended.reshape(&[tokens, heads, rank + turned])?;
        let attended = attended.slice(&[0, 0, 0], &[tokens, heads, rank])?;
        let attended = attended.reshape(&[tokens * heads, rank])?;
        let values = self.unfold.product(&attended, &choices)?;
        let values = values.reshape(&[tokens, heads * value])?;
        self.o_proj.forward_add(&values, residual)
    }

    fn project(&self, x: &Array) -> Result<Array, MlxError> {
        match &self.queries {
            Queries::Direct(linear) => linear.forward(x),
            Queries::LowRank { down, norm, up } => up.forward(&norm.forward(&down.forward(x)?)?),
        }
    }
}

/// One layer: latent attention and a feed-forward layer, a norm before each.
pub struct LatentBlock<F> {
    /// Before the attention.
    pub attention_norm: RmsNorm,
    /// Looks at the sequence.
    pub attention: LatentAttention,
    /// Before the feed-forward layer.
    pub mlp_norm: RmsNorm,
    /// Looks at single tokens.
    pub mlp: F,
}

impl<F: FeedForward> DecoderLayer for LatentBlock<F> {
    fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        index: usize,
    ) -> Result<Array, MlxError> {
        let normed = self.attention_norm.forward(x)?;
        let x = self.attention.forward_add(&normed, x, batch, index)?;
        self.mlp.forward_add(&self.mlp_norm.forward(&x)?, &x)
    }

    fn new_state(&self) -> LayerState {
        LayerState::of_attention(None)
    }

    fn add_state(&self, size: &mut StateSize) {
        let shape = self.attention.shape;
        size.add_attention((shape.rank + shape.turned) as u64, None);
    }
}
