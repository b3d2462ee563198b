//! Language models: what an architecture promises to the engine, and how one is loaded.

mod adapter;
mod batch;
mod builder;
mod cohere;
mod cohere2;
mod config;
#[cfg(test)]
mod config_forms;
mod deepseek_v2;
mod deepseek_v3;
mod ernie4_5;
mod error;
mod exaone4;
mod gemma;
mod gemma2;
mod gemma3_text;
mod gemma4_text;
mod glm4;
mod glm4_moe;
mod gpt_oss;
mod granite;
mod granitemoe;
mod granitemoehybrid;
mod grouped_experts;
mod helium;
mod internlm3;
mod kv_cache;
mod kv_format;
mod latents;
mod layers;
mod lfm2;
mod lfm2_moe;
mod llama;
mod load;
mod mamba2;
mod memory;
mod mimo;
mod minicpm;
mod minimax_m2;
mod ministral3;
mod mixtral;
#[cfg(test)]
mod mortal;
mod nemotron_h;
mod nesting;
mod olmo2;
mod olmo3;
mod olmoe;
mod pages;
mod phi;
mod phi3;
mod quantization;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
mod registry;
mod seed_oss;
mod shard;
mod size;
mod smollm3;
mod snapshot;
mod stablelm;
mod stacking;
mod starcoder2;
mod state;
#[cfg(test)]
mod testing;
mod text_config;
mod variant;
mod weight_files;
mod weights;
mod window_cache;
mod windows;

pub use batch::{Batch, RowView};
pub use error::LoadError;
pub use kv_cache::KvCache;
pub use kv_format::{KvFormat, with_kv_format, with_kv_size};
pub use load::{LoadOptions, LoadProgress, load};
pub use memory::available_memory;
pub use registry::supported;
pub use size::{StateSize, Window};
pub use snapshot::{Segment, Snapshot};
pub use state::{LayerState, SequenceState};
pub use window_cache::WindowCache;

use crate::mlx::{Array, MlxError};

/// What the rest of the server may know of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// `model_type` of `config.json`, after remapping.
    pub architecture: String,
    /// Rows of the output head: the length of a logits row.
    pub vocab_size: usize,
    /// The longest sequence the model was made for (`max_position_embeddings`).
    pub context_length: usize,
    /// Number of weights (a packed quantized weight counts its unpacked elements).
    pub parameters: u64,
    /// Bytes of the weights in memory, after any conversion at load.
    pub weight_bytes: u64,
    /// What one sequence's state takes.
    pub state: StateSize,
    /// For instance `"4-bit, group 64"`; `None` for a dense checkpoint.
    pub quantization: Option<String>,
    /// The type activations are computed in, for instance `"float32"`.
    pub dtype: String,
}

/// Which positions of a row are turned into logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: a prefill chunk that is not the last.
    None,
    /// The last position only.
    Last,
    /// Every position of the row.
    All,
}

/// One sequence's share of a forward pass.
pub struct Row<'a> {
    /// Tokens to append, at least one: a prefill chunk, or the one token of a decode step.
    pub len: usize,
    /// The sequence's state, advanced by `len`.
    pub state: &'a mut SequenceState,
    /// Which logits the caller wants.
    pub logits: Logits,
}

/// An architecture with its weights. It lives on the engine thread (arrays are not `Send`).
pub trait Model {
    /// Facts about the model.
    fn info(&self) -> &ModelInfo;

    /// The state of an empty sequence: one entry a layer, of the kind that layer keeps.
    fn new_state(&self) -> SequenceState;

    /// Builds the graph of one step over a ragged batch (rows need not have equal lengths).
    ///
    /// `tokens` are the ids of all rows behind one another, each below the vocabulary's size. Returns
    /// the lazy logits of the positions that the rows asked for, behind one another, `[positions,
    /// vocab]` in float32; the caller evaluates them together with the rows' states. After an error
    /// the rows' states are not to be used again.
    ///
    /// On the CPU what is computed for a position depends on the tokens up to it and on nothing else,
    /// bit for bit: not on the other rows, nor on how the sequence was cut into steps. The prefix
    /// cache, preemption and the size of prefill chunks rely on it.
    fn forward(&self, tokens: &Array, rows: &mut [Row<'_>]) -> Result<Option<Array>, MlxError>;
}

/// Token ids for [`Model::forward`]. Fails where one is not below `vocab_size`: MLX would read
/// whatever lies there.
#[track_caller]
pub fn token_ids(tokens: &[u32], vocab_size: usize) -> Result<Array, MlxError> {
    if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
        let message = format!("token id {id} is outside of the vocabulary of {vocab_size}");
        return Err(MlxError::new(message));
    }
    Array::from_u32(tokens, &[tokens.len() as i32])
}
