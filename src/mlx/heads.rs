//! The projections that attention begins with.

use super::array::{Array, list};
use super::bridge::ffi;
use super::dtype::Dtype;
use super::error::{MlxError, OrMlxError};
use super::fast::{RopeParams, or_null, rms_norm, rope};
use super::matrix::Matrix;

/// Root-mean-square normalizations of single heads, one weight a feature of a head.
pub struct HeadNorms<'a> {
    /// Of the queries' heads.
    pub queries: &'a Array,
    /// Of the keys'.
    pub keys: &'a Array,
    /// Of both.
    pub eps: f32,
}

/// How queries, keys and values come from a layer's input.
pub struct Projections<'a> {
    /// The matrices of queries, keys and values.
    pub matrices: [&'a Matrix; 3],
    /// Features of a head.
    pub head_dim: i32,
    /// Go before the positions.
    pub norms: Option<HeadNorms<'a>>,
    /// Encodes the positions of queries and keys.
    pub rope: Option<&'a RopeParams>,
}

impl Projections<'_> {
    /// Queries, keys and values of `x` (`[tokens, in]`), token `i` standing at `positions[i]` (`[tokens]`,
    /// int32): `[tokens, heads, 1, head_dim]`.
    #[track_caller]
    pub fn of(&self, x: &Array, positions: &Array) -> Result<[Array; 3], MlxError> {
        if ffi::computes_here(x.raw()) && self.has_plain_norms()? {
            self.at_once(x, positions)
        } else {
            self.one_by_one(x, positions)
        }
    }

    fn has_plain_norms(&self) -> Result<bool, MlxError> {
        let Some(norms) = &self.norms else {
            return Ok(true);
        };
        Ok(norms.queries.dtype()? == Dtype::Float32 && norms.keys.dtype()? == Dtype::Float32)
    }

    #[track_caller]
    fn at_once(&self, x: &Array, positions: &Array) -> Result<[Array; 3], MlxError> {
        let [queries, keys, values] = self.matrices;
        let norms: Vec<&Array> = match &self.norms {
            Some(norms) => vec![norms.queries, norms.keys],
            None => Vec::new(),
        };
        let heads = ffi::project_heads(
            x.raw(),
            &queries.0,
            &keys.0,
            &values.0,
            self.head_dim,
            &list(&norms),
            self.norms.as_ref().map_or(0.0, |norms| norms.eps),
            &or_null(self.rope.map(|rope| &rope.frequencies)),
            self.rope.is_some_and(|rope| rope.traditional),
            self.rope.map_or(1.0, |rope| rope.amplitude),
            positions.raw(),
        )
        .or_mlx()?;
        let part = |index| Array::wrap(ffi::list_get(&heads, index));
        Ok([part(0)?, part(1)?, part(2)?])
    }

    #[track_caller]
    fn one_by_one(&self, x: &Array, positions: &Array) -> Result<[Array; 3], MlxError> {
        let heads = |matrix: &Matrix| {
            let product = matrix.product(x)?;
            product.reshape(&[-1, product.dim(-1) / self.head_dim, 1, self.head_dim])
        };
        let [queries, keys, values] = self.matrices;
        let (mut queries, mut keys, values) = (heads(queries)?, heads(keys)?, heads(values)?);
        if let Some(norms) = &self.norms {
            queries = rms_norm(&queries, norms.queries, norms.eps)?;
            keys = rms_norm(&keys, norms.keys, norms.eps)?;
        }
        if let Some(params) = self.rope {
            queries = rope(&queries, params, positions)?;
            keys = rope(&keys, params, positions)?;
        }
        Ok([queries, keys, values])
    }
}
