//! Attention of Gemma 4, to keys and values of its own or of an earlier layer.

use crate::mlx::fast::Scores;
use crate::mlx::{Array, MlxError};
use crate::models::batch::{Batch, as_sequence, as_tokens};
use crate::models::builder::Builder;
use crate::models::config::dimension;
use crate::models::layers::{AttentionShape, Linear, RmsNorm, Rope};
use crate::models::{LayerState, LoadError, StateSize};

use super::Gemma4Config;

/// Attention of one layer.
pub struct Attention {
    shape: AttentionShape,
    q_proj: Linear,
    q_norm: RmsNorm,
    /// `None` where the keys and values are those of another layer.
    own: Option<KeysAndValues>,
    o_proj: Linear,
    rope: Rope,
    scores: Scores,
    /// The place in the sequences' states of what is attended to.
    state: usize,
}

struct KeysAndValues {
    k_proj: Linear,
    k_norm: RmsNorm,
    /// `None` where values are made of the keys.
    v_proj: Option<Linear>,
    v_norm: RmsNorm,
}

impl Attention {
    /// Takes the tensors of layer `index`, which attends to what layer `state` keeps.
    pub fn build(
        config: &Gemma4Config,
        builder: &mut Builder<'_, '_>,
        (index, state): (usize, usize),
        window: Option<i32>,
    ) -> Result<Self, LoadError> {
        let path = format!("model.layers.{index}.self_attn");
        let shape = config.shape(index)?;
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let (head_dim, eps) = (shape.head_dim, config.eps());
        let (queries, keys) = (shape.queries(), shape.keys());
        let own = match state == index {
            false => None,
            true => Some(KeysAndValues {
                k_proj: builder.linear(&format!("{path}.k_proj"), hidden, keys, false)?,
                k_norm: builder.rms_norm(&format!("{path}.k_norm"), head_dim, eps)?,
                v_proj: match config.values_are_keys(index) {
                    true => None,
                    false => {
                        Some(builder.linear(&format!("{path}.v_proj"), hidden, keys, false)?)
                    }
                },
                v_norm: builder.plain_rms_norm(head_dim, eps)?,
            }),
        };
        Ok(Self {
            shape,
            q_proj: builder.linear(&format!("{path}.q_proj"), hidden, queries, false)?,
            q_norm: builder.rms_norm(&format!("{path}.q_norm"), head_dim, eps)?,
            own,
            o_proj: builder.linear(&format!("{path}.o_proj"), queries, hidden, false)?,
            rope: Rope::new(head_dim, &config.rope(index))?,
            scores: Scores {
                scale: 1.0,
                window,
                ..Scores::plain(head_dim)
            },
            state,
        })
    }

    /// Whether the layer keeps keys and values of its own.
    pub fn keeps(&self) -> bool {
        self.own.is_some()
    }

    /// Its state at the beginning of a sequence.
    pub fn new_state(&self) -> LayerState {
        LayerState::of_attention(self.scores.window)
    }

    /// Adds what a sequence keeps of this layer, in numbers.
    pub fn add_state(&self, size: &mut StateSize) {
        self.shape.add_state(size, self.scores.window);
    }

    /// `[tokens, hidden]` to the same.
    pub fn forward(&self, x: &Array, batch: &mut Batch<'_, '_>) -> Result<Array, MlxError> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
        } = self.shape;
        let heads_of = |x: Array, heads| x.reshape(&[-1, heads, 1, head_dim]);
        let queries = self
            .q_norm
            .forward(&heads_of(self.q_proj.forward(x)?, heads)?)?;
        let queries = self.rope.forward(&queries, batch.positions())?;
        let attended = match &self.own {
            None => batch.per_row([queries], |[queries], row| {
                let queries = as_sequence(queries)?;
                let found = row.state.find(self.state, &queries, &self.scores)?;
                as_tokens(found)?.reshape(&[-1, heads * head_dim])
            })?,
            Some(own) => {
                let keys = heads_of(own.k_proj.forward(x)?, kv_heads)?;
                let values = match &own.v_proj {
                    Some(v_proj) => heads_of(v_proj.forward(x)?, kv_heads)?,
                    None => keys.clone(),
                };
                let keys = own.k_norm.forward(&keys)?;
                let keys = self.rope.forward(&keys, batch.positions())?;
                let values = own.v_norm.forward(&values)?;
                batch.attend(self.state, [queries, keys, values], &self.scores)?
            }
        };
        self.o_proj.forward(&attended)
    }
}
