//! Attention over a sequence's own past.

use crate::mlx::fast::{Mask, scaled_dot_product_attention};
use crate::mlx::{Array, MlxError};
use crate::models::batch::Batch;

use super::{Linear, Rope};

/// How the features of a projection are divided into heads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: i32,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: i32,
    /// Features of one head.
    pub head_dim: i32,
}

/// Causal self-attention with grouped heads and rotary positions.
pub struct Attention {
    /// `[hidden]` to `[heads · head_dim]`.
    pub q_proj: Linear,
    /// `[hidden]` to `[kv_heads · head_dim]`.
    pub k_proj: Linear,
    /// `[hidden]` to `[kv_heads · head_dim]`.
    pub v_proj: Linear,
    /// `[heads · head_dim]` to `[hidden]`.
    pub o_proj: Linear,
    /// Encodes the positions.
    pub rope: Rope,
    /// The division into heads.
    pub shape: AttentionShape,
}

impl Attention {
    /// `[tokens, hidden]` to the same; row `r` reads and extends the state of layer `layer` of its
    /// own sequence.
    #[track_caller]
    pub fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
        } = self.shape;
        let scale = 1.0 / (head_dim as f32).sqrt();
        // Every token with its heads, as rows of a batch: one operation for all sequences.
        let heads_of = |x: Array, heads| x.reshape(&[-1, heads, 1, head_dim]);
        let queries = heads_of(self.q_proj.forward(x)?, heads)?;
        let keys = heads_of(self.k_proj.forward(x)?, kv_heads)?;
        let values = heads_of(self.v_proj.forward(x)?, kv_heads)?;
        let queries = self.rope.forward(&queries, batch.positions())?;
        let keys = self.rope.forward(&keys, batch.positions())?;
        let attended = batch.per_row([queries, keys, values], |[queries, keys, values], row| {
            let (keys, values) = row
                .state
                .kv(layer)?
                .update(&as_sequence(keys)?, &as_sequence(values)?)?;
            let mask = if row.len == 1 {
                Mask::None
            } else {
                Mask::Causal
            };
            let queries = as_sequence(queries)?;
            as_tokens(scaled_dot_product_attention(
                &queries, &keys, &values, scale, mask,
            )?)
        })?;
        self.o_proj
            .forward(&attended.reshape(&[-1, heads * head_dim])?)
    }
}

/// `[len, heads, 1, head_dim]` to `[1, heads, len, head_dim]`.
#[track_caller]
fn as_sequence(x: Array) -> Result<Array, MlxError> {
    swap_ends(x)
}

/// `[1, heads, len, head_dim]` to `[len, heads, 1, head_dim]`.
#[track_caller]
fn as_tokens(x: Array) -> Result<Array, MlxError> {
    swap_ends(x)
}

#[track_caller]
fn swap_ends(x: Array) -> Result<Array, MlxError> {
    if (x.dim(0), x.dim(2)) == (1, 1) {
        return Ok(x);
    }
    x.transpose(&[2, 1, 0, 3])
}
