//! Attention over a sequence's own past.

use crate::mlx::fast::Scores;
use crate::mlx::{Activation, Array, HeadNorms, MlxError, Projections};
use crate::models::batch::Batch;
use crate::models::builder::Builder;
use crate::models::config::dimension;
use crate::models::{LayerState, LoadError, StateSize};

use super::{Linear, Norm, Rope, RopeConfig};

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

impl AttentionShape {
    /// Of the fields of `config.json`: `kv_heads` are as many as `heads` where it does not say, and
    /// the heads share `hidden` where it does not give their size.
    pub fn new(
        hidden: u64,
        heads: u64,
        kv_heads: Option<u64>,
        head_dim: Option<u64>,
    ) -> Result<Self, LoadError> {
        let kv_heads = dimension("num_key_value_heads", kv_heads.unwrap_or(heads))?;
        let heads = dimension("num_attention_heads", heads)?;
        if heads % kv_heads != 0 {
            return Err(LoadError::config(
                "num_key_value_heads",
                format!("{heads} attention heads cannot share {kv_heads} key heads evenly"),
            ));
        }
        let hidden = dimension("hidden_size", hidden)?;
        let head_dim = head_dim.unwrap_or(hidden as u64 / heads as u64);
        let head_dim = dimension("head_dim", head_dim)?;
        // All heads together are a dimension as well.
        dimension("head_dim", heads as u64 * head_dim as u64)?;
        Ok(Self {
            heads,
            kv_heads,
            head_dim,
        })
    }

    /// Features of the queries of a token.
    pub fn queries(&self) -> i32 {
        self.heads * self.head_dim
    }

    /// Features of its keys, and of its values.
    pub fn keys(&self) -> i32 {
        self.kv_heads * self.head_dim
    }

    /// The state of one layer.
    pub fn add_state(&self, size: &mut StateSize, window: Option<i32>) {
        size.add_attention(2 * self.keys() as u64, window);
    }
}

/// What queries and keys are normalized over before their positions are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormOver {
    /// Each head by itself; one weight a feature of a head.
    Heads,
    /// All heads of a token together.
    Projection,
}

/// The normalizations of queries and keys.
pub struct QueryKeyNorms {
    /// Over what.
    pub over: NormOver,
    /// That of the queries.
    pub q_norm: Norm,
    /// That of the keys.
    pub k_norm: Norm,
}

impl QueryKeyNorms {
    /// Both, where they are root-mean-square norms of single heads.
    fn of_heads(&self) -> Option<HeadNorms<'_>> {
        let (Norm::Rms(queries), Norm::Rms(keys)) = (&self.q_norm, &self.k_norm) else {
            return None;
        };
        (self.over == NormOver::Heads && queries.eps() == keys.eps()).then_some(HeadNorms {
            queries: queries.weight(),
            keys: keys.weight(),
            eps: queries.eps(),
        })
    }
}

/// Queries that grow with their position, beyond the context of the first training (as in Llama 4):
/// by `1 + beta · ln(1 + ⌊position / every⌋)`.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// How fast.
    pub beta: f32,
    /// Positions for which it stays the same.
    pub every: f32,
}

impl Growth {
    /// The factor of each token, `[tokens, 1, 1, 1]`; `None` where all are 1.
    #[track_caller]
    fn factors(self, batch: &Batch<'_, '_>) -> Result<Option<Array>, MlxError> {
        let factor = |position: i32| {
            let steps = (position as f32 / self.every).floor();
            1.0 + self.beta * (1.0 + steps).ln()
        };
        let factors: Vec<f32> = batch.places().iter().copied().map(factor).collect();
        if factors.iter().all(|&factor| factor == 1.0) {
            return Ok(None);
        }
        Array::from_f32(&factors, &[factors.len() as i32, 1, 1, 1]).map(Some)
    }
}

/// Causal self-attention with grouped heads.
pub struct Attention {
    /// `[hidden]` to `[heads · head_dim]`; to twice that where `gated`.
    pub q_proj: Linear,
    /// `[hidden]` to `[kv_heads · head_dim]`.
    pub k_proj: Linear,
    /// `[hidden]` to `[kv_heads · head_dim]`.
    pub v_proj: Linear,
    /// `[heads · head_dim]` to `[hidden]`.
    pub o_proj: Linear,
    /// The division into heads.
    pub shape: AttentionShape,
    /// Goes before the positions.
    pub norms: Option<QueryKeyNorms>,
    /// Encodes the positions; `None` where the layer does not know them.
    pub rope: Option<Rope>,
    /// What queries are multiplied by, after their positions.
    pub growth: Option<Growth>,
    /// How queries meet keys.
    pub scores: Scores,
    /// Whether `q_proj` gives a gate behind each head's query, through whose sigmoid the head goes.
    pub gated: bool,
}

/// What distinguishes an [`Attention`] whose tensors have the usual names.
#[derive(Debug, Clone)]
pub struct AttentionConfig {
    /// The division into heads.
    pub shape: AttentionShape,
    /// Whether `q_proj`, `k_proj` and `v_proj` have biases.
    pub qkv_bias: bool,
    /// Whether `o_proj` has one.
    pub out_bias: bool,
    /// Over what `q_norm` and `k_norm` go, and their epsilon.
    pub norms: Option<(NormOver, f32)>,
    /// `None` where positions are not encoded.
    pub rope: Option<RopeConfig>,
    /// What queries are multiplied by, after their positions.
    pub growth: Option<Growth>,
    /// How queries meet keys.
    pub scores: Scores,
    /// Whether `q_proj` gives a gate behind each head's query.
    pub gated: bool,
}

impl AttentionConfig {
    /// Without biases and norms, with everything before a query in its sight.
    pub fn plain(shape: AttentionShape, rope: RopeConfig) -> Self {
        Self {
            shape,
            qkv_bias: false,
            out_bias: false,
            norms: None,
            rope: Some(rope),
            growth: None,
            scores: Scores::plain(shape.head_dim),
            gated: false,
        }
    }
}

impl AttentionConfig {
    /// The same with biases in all products, or in none.
    pub fn with_biases(self, bias: bool) -> Self {
        Self {
            qkv_bias: bias,
            out_bias: bias,
            ..self
        }
    }

    /// The same with scores that are multiplied by `scale`.
    pub fn with_scale(self, scale: f32) -> Self {
        Self {
            scores: Scores {
                scale,
                ..self.scores
            },
            ..self
        }
    }

    /// The same for a layer whose tokens see `window` positions.
    pub fn with_window(&self, window: Option<i32>) -> Self {
        Self {
            scores: Scores {
                window,
                ..self.scores.clone()
            },
            ..self.clone()
        }
    }
}

impl Attention {
    /// Takes `q_proj`, `k_proj`, `v_proj`, `o_proj` and maybe `q_norm` and `k_norm` under `path`.
    pub fn build(
        builder: &mut Builder<'_, '_>,
        path: &str,
        hidden: i32,
        config: &AttentionConfig,
    ) -> Result<Self, LoadError> {
        let (queries, keys) = (config.shape.queries(), config.shape.keys());
        let bias = config.qkv_bias;
        let asked = match config.gated {
            true => dimension("num_attention_heads", 2 * queries as u64)?,
            false => queries,
        };
        let q_proj = builder.linear(&format!("{path}.q_proj"), hidden, asked, bias)?;
        let k_proj = builder.linear(&format!("{path}.k_proj"), hidden, keys, bias)?;
        let v_proj = builder.linear(&format!("{path}.v_proj"), hidden, keys, bias)?;
        let o_proj = builder.linear(&format!("{path}.o_proj"), queries, hidden, config.out_bias)?;
        let norms = match config.norms {
            None => None,
            Some((over, eps)) => {
                let (queries, keys) = match over {
                    NormOver::Heads => (config.shape.head_dim, config.shape.head_dim),
                    NormOver::Projection => (queries, keys),
                };
                Some(QueryKeyNorms {
                    over,
                    q_norm: builder
                        .rms_norm(&format!("{path}.q_norm"), queries, eps)?
                        .into(),
                    k_norm: builder
                        .rms_norm(&format!("{path}.k_norm"), keys, eps)?
                        .into(),
                })
            }
        };
        let rope = match &config.rope {
            Some(rope) => Some(Rope::new(config.shape.head_dim, rope)?),
            None => None,
        };
        Ok(Self {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            shape: config.shape,
            norms,
            rope,
            growth: config.growth,
            scores: config.scores.clone(),
            gated: config.gated,
        })
    }

    /// Takes norms of each head's own: `{path}.{name}` for the queries and for the keys.
    pub fn take_head_norms(
        &mut self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        [queries, keys]: [&str; 2],
        eps: f32,
    ) -> Result<(), LoadError> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
        } = self.shape;
        let mut norm =
            |name: &str, heads| builder.head_norm(&format!("{path}.{name}"), heads, head_dim, eps);
        self.norms = Some(QueryKeyNorms {
            over: NormOver::Heads,
            q_norm: norm(queries, heads)?.into(),
            k_norm: norm(keys, kv_heads)?.into(),
        });
        Ok(())
    }

    /// The state of this layer at the beginning of a sequence.
    pub fn new_state(&self) -> LayerState {
        LayerState::of_attention(self.scores.window)
    }

    /// Adds what a sequence keeps of this layer.
    pub fn add_state(&self, size: &mut StateSize) {
        self.shape.add_state(size, self.scores.window);
    }

    /// `[tokens, hidden]` to the same; row `r` reads and extends the state of layer `layer` of its
    /// own sequence.
    #[track_caller]
    pub fn forward(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        self.o_proj.forward(&self.attended(x, batch, layer)?)
    }

    /// The same, plus `residual`.
    #[track_caller]
    pub fn forward_add(
        &self,
        x: &Array,
        residual: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        let attended = self.attended(x, batch, layer)?;
        self.o_proj.forward_add(&attended, residual)
    }

    fn attended(
        &self,
        x: &Array,
        batch: &mut Batch<'_, '_>,
        layer: usize,
    ) -> Result<Array, MlxError> {
        let (mut queries, keys, values, gate) = match self.projections() {
            Some(projections) => {
                let [queries, keys, values] = projections.of(x, batch.positions())?;
                (queries, keys, values, None)
            }
            None => self.projected(x, batch.positions())?,
        };
        if let Some(growth) = self.growth
            && let Some(factors) = growth.factors(batch)?
        {
            queries = queries.multiply(&factors.astype(queries.dtype()?)?)?;
        }
        let attended = batch.attend(layer, [queries, keys, values], &self.scores)?;
        match gate {
            Some(gate) => gate.activate_times(Activation::Sigmoid, &attended),
            None => Ok(attended),
        }
    }

    /// The projections, where nothing keeps them from being computed at once: an update, a gate, or norms over
    /// more than a head.
    fn projections(&self) -> Option<Projections<'_>> {
        let norms = match &self.norms {
            None => None,
            Some(norms) => Some(norms.of_heads()?),
        };
        let matrices = [
            self.q_proj.matrix()?,
            self.k_proj.matrix()?,
            self.v_proj.matrix()?,
        ];
        (!self.gated).then_some(Projections {
            matrices,
            head_dim: self.shape.head_dim,
            norms,
            rope: self.rope.as_ref().map(Rope::params),
        })
    }

    /// Queries, keys, values, `[tokens, heads, 1, head_dim]`, and the gate.
    #[track_caller]
    fn projected(
        &self,
        x: &Array,
        positions: &Array,
    ) -> Result<(Array, Array, Array, Option<Array>), MlxError> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
        } = self.shape;
        let (queries, gate) = self.queries(x)?;
        let keys = self.k_proj.forward(x)?;
        let values = self.v_proj.forward(x)?;
        let (queries, keys) = match &self.norms {
            Some(norms) if norms.over == NormOver::Projection => (
                norms.q_norm.forward(&queries)?,
                norms.k_norm.forward(&keys)?,
            ),
            _ => (queries, keys),
        };
        // Every token with its heads, as rows of a batch: one operation for all sequences.
        let heads_of = |x: Array, heads| x.reshape(&[-1, heads, 1, head_dim]);
        let mut queries = heads_of(queries, heads)?;
        let mut keys = heads_of(keys, kv_heads)?;
        let values = heads_of(values, kv_heads)?;
        if let Some(norms) = &self.norms
            && norms.over == NormOver::Heads
        {
            queries = norms.q_norm.forward(&queries)?;
            keys = norms.k_norm.forward(&keys)?;
        }
        if let Some(rope) = &self.rope {
            queries = rope.forward(&queries, positions)?;
            keys = rope.forward(&keys, positions)?;
        }
        Ok((queries, keys, values, gate))
    }

    /// The queries, `[tokens, heads · head_dim]`, and the gate in the same shape.
    fn queries(&self, x: &Array) -> Result<(Array, Option<Array>), MlxError> {
        let projected = self.q_proj.forward(x)?;
        if !self.gated {
            return Ok((projected, None));
        }
        let AttentionShape {
            heads, head_dim, ..
        } = self.shape;
        let tokens = projected.dim(0);
        let both = projected.reshape(&[tokens, heads, 2 * head_dim])?;
        let part = |from: i32| {
            let (start, stop) = ([0, 0, from], [tokens, heads, from + head_dim]);
            both.slice(&start, &stop)?
                .reshape(&[tokens, heads * head_dim])
        };
        Ok((part(0)?, Some(part(head_dim)?)))
    }
}
