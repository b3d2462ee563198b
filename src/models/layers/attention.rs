//! Attention over a sequence's own past.

use crate::mlx::fast::{Mask, scaled_dot_product_attention};
use crate::mlx::{Array, MlxError};
use crate::models::LayerState;
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
        let projected = [
            self.q_proj.forward(x)?,
            self.k_proj.forward(x)?,
            self.v_proj.forward(x)?,
        ];
        let attended = batch.per_row(projected, |[queries, keys, values], row| {
            let queries = split_heads(&queries, row.len, heads, head_dim)?;
            let keys = split_heads(&keys, row.len, kv_heads, head_dim)?;
            let values = split_heads(&values, row.len, kv_heads, head_dim)?;
            let queries = self.rope.forward(&queries, row.offset)?;
            let keys = self.rope.forward(&keys, row.offset)?;
            let LayerState::Kv(cache) = &mut row.state.layers[layer];
            let (keys, values) = cache.update(&keys, &values)?;
            let mask = if row.len == 1 {
                Mask::None
            } else {
                Mask::Causal
            };
            let out = scaled_dot_product_attention(&queries, &keys, &values, scale, mask)?;
            join_heads(&out, row.len, heads * head_dim)
        })?;
        self.o_proj.forward(&attended)
    }
}

/// `[len, heads · head_dim]` to `[1, heads, len, head_dim]`.
#[track_caller]
fn split_heads(x: &Array, len: i32, heads: i32, head_dim: i32) -> Result<Array, MlxError> {
    if len == 1 {
        return x.reshape(&[1, heads, 1, head_dim]);
    }
    x.reshape(&[1, len, heads, head_dim])?
        .transpose(&[0, 2, 1, 3])
}

/// `[1, heads, len, head_dim]` to `[len, heads · head_dim]`.
#[track_caller]
fn join_heads(x: &Array, len: i32, features: i32) -> Result<Array, MlxError> {
    if len == 1 {
        return x.reshape(&[1, features]);
    }
    x.transpose(&[0, 2, 1, 3])?.reshape(&[len, features])
}
