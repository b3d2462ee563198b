//! A small model with a layer of every kind of state, whose faults can be forced.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::mlx::fast::{Scores, attention};
use crate::mlx::{Array, MlxError};
use crate::models::{
    Batch, KvCache, LayerState, Model, ModelInfo, Row, RowView, SequenceState, StateSize, Window,
};

/// Tokens that the model knows.
pub const VOCAB: usize = 50;
/// A token whose step fails.
pub(crate) const FAILS: u32 = 48;
/// A token whose step panics.
pub const PANICS: u32 = 49;

const FEATURES: i32 = 4;
const WINDOW: i32 = 6;

/// `out = attention + recurrence + window`, each over the tokens' embeddings.
pub struct Hybrid {
    info: ModelInfo,
    embeddings: Array,
    head: Array,
    decay: Array,
    /// Makes the next state that is asked for a panic: outside of a step, it ends the thread.
    pub deadly: Arc<AtomicBool>,
    /// Counts the passes.
    pub passes: Arc<AtomicUsize>,
    /// While it is locked, no pass begins.
    pub gate: Arc<Mutex<()>>,
}

impl Hybrid {
    pub fn new(
        deadly: Arc<AtomicBool>,
        passes: Arc<AtomicUsize>,
        gate: Arc<Mutex<()>>,
    ) -> Result<Self, MlxError> {
        let vocab = VOCAB as i32;
        let numbers = |seed: u32, count: i32| -> Vec<f32> {
            let number = |i: i32| {
                ((i as u32)
                    .wrapping_mul(2_654_435_761)
                    .wrapping_add(seed.wrapping_mul(40_503))
                    >> 8) as f32
                    / 8_388_608.0
                    - 1.0
            };
            (0..count).map(number).collect()
        };
        let bytes = u64::from(FEATURES.unsigned_abs()) * 4;
        Ok(Self {
            info: ModelInfo {
                architecture: "hybrid".to_owned(),
                vocab_size: VOCAB,
                context_length: 4096,
                parameters: 0,
                weight_bytes: 0,
                state: StateSize {
                    per_token: 2 * bytes,
                    windows: vec![Window {
                        positions: WINDOW as usize,
                        per_token: bytes,
                    }],
                    fixed: bytes,
                },
                quantization: None,
                dtype: "float32".to_owned(),
            },
            embeddings: Array::from_f32(&numbers(1, vocab * FEATURES), &[vocab, FEATURES])?,
            head: Array::from_f32(&numbers(2, FEATURES * vocab), &[FEATURES, vocab])?,
            decay: Array::from_f32(&[0.9], &[1])?,
            deadly,
            passes,
            gate,
        })
    }

    /// One row, `[len, FEATURES]` to the same. Token by token where the state rolls, so that how the
    /// tokens are cut into steps cannot matter.
    fn row(&self, x: Array, row: RowView<'_>) -> Result<Array, MlxError> {
        let heads = x.reshape(&[1, 1, row.len, FEATURES])?;
        let (keys, values) = row.state.extend(0, &heads, &heads)?;
        let attended = attention(&heads, &keys, &values, &Scores::plain(4))?;
        let attended = attended.reshape(&[row.len, FEATURES])?;
        let mut rolled = Vec::new();
        for position in 0..row.len {
            let token = x.slice(&[position, 0], &[position + 1, FEATURES])?;
            let recurrent = row.state.rolling(1)?;
            let next = match recurrent.pop() {
                Some(past) => past.multiply(&self.decay)?.add(&token)?,
                None => token.clone(),
            };
            recurrent.push(next.clone());
            let window = row.state.rolling(2)?;
            let seen = match window.pop() {
                Some(past) => Array::concatenate(&[&past, &token], 0)?,
                None => token,
            };
            let len = seen.dim(0);
            let seen = seen.slice(&[(len - WINDOW).max(0), 0], &[len, FEATURES])?;
            let len = seen.dim(0);
            let sum = Array::from_f32(&vec![0.3; len as usize], &[1, len])?.matmul(&seen)?;
            window.push(seen);
            rolled.push(next.add(&sum)?);
        }
        let rolled = Array::concatenate(&rolled.iter().collect::<Vec<_>>(), 0)?;
        attended.add(&rolled)
    }
}

impl Model for Hybrid {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn new_state(&self) -> SequenceState {
        assert!(!self.deadly.load(Ordering::Acquire), "a forced death");
        SequenceState::new(vec![
            LayerState::Kv(KvCache::new()),
            LayerState::Rolling(Vec::new()),
            LayerState::Rolling(Vec::new()),
        ])
    }

    fn forward(&self, tokens: &Array, rows: &mut [Row<'_>]) -> Result<Option<Array>, MlxError> {
        self.passes.fetch_add(1, Ordering::AcqRel);
        drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
        for token in tokens.to_vec_f32()? {
            if token == FAILS as f32 {
                // What MLX itself refuses.
                self.head.matmul(&self.head)?;
            }
            assert!(token != PANICS as f32, "a forced panic");
        }
        let mut batch = Batch::new(tokens, rows)?;
        let x = self.embeddings.take(tokens, 0)?;
        let x = batch.per_row([x], |[x], row| self.row(x, row))?;
        batch.finish(&x, |x| x.matmul(&self.head))
    }
}
