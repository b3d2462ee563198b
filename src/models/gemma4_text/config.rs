//! What `config.json` says of a Gemma 4.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::models::LoadError;
use crate::models::layers::{AttentionShape, RopeConfig};
use crate::models::windows::{self, Windows};

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Gemma4Config {
    pub hidden_size: u64,
    pub num_hidden_layers: usize,
    pub intermediate_size: u64,
    pub num_attention_heads: u64,
    pub num_key_value_heads: u64,
    pub num_global_key_value_heads: Option<u64>,
    pub head_dim: Option<u64>,
    #[serde(default = "usual_global_head_dim")]
    pub global_head_dim: Option<u64>,
    pub rms_norm_eps: Option<f32>,
    pub vocab_size: u64,
    pub vocab_size_per_layer_input: Option<u64>,
    #[serde(default = "usual_per_layer_input")]
    pub hidden_size_per_layer_input: Option<u64>,
    pub num_kv_shared_layers: Option<usize>,
    pub max_position_embeddings: Option<usize>,
    pub rope_traditional: Option<bool>,
    pub rope_parameters: Option<Map<String, Value>>,
    pub sliding_window: Option<u64>,
    pub sliding_window_pattern: Option<usize>,
    pub layer_types: Option<Vec<String>>,
    /// What layers have otherwise, by their indices: how newer versions of transformers say it.
    pub per_layer_config: Option<HashMap<usize, OwnShape>>,
    pub attention_k_eq_v: Option<bool>,
    pub use_double_wide_mlp: Option<bool>,
    pub enable_moe_block: Option<bool>,
    pub num_experts: Option<u64>,
    pub top_k_experts: Option<u64>,
    pub moe_intermediate_size: Option<u64>,
    pub tie_word_embeddings: Option<bool>,
    #[serde(default = "usual_cap")]
    pub final_logit_softcapping: Option<f32>,
}

/// What a layer has otherwise than the others.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnShape {
    head_dim: Option<u64>,
    num_key_value_heads: Option<u64>,
}

// Where the file does not say; `null` means none.

fn usual_cap() -> Option<f32> {
    Some(30.0)
}

fn usual_global_head_dim() -> Option<u64> {
    Some(512)
}

fn usual_per_layer_input() -> Option<u64> {
    Some(256)
}

impl Gemma4Config {
    pub fn context_length(&self) -> usize {
        self.max_position_embeddings.unwrap_or(131_072)
    }

    pub fn eps(&self) -> f32 {
        self.rms_norm_eps.unwrap_or(1e-6)
    }

    /// Layers that keep keys and values of their own.
    pub fn own_states(&self) -> Result<usize, LoadError> {
        let shared = self.num_kv_shared_layers.unwrap_or(0);
        match self.num_hidden_layers.checked_sub(shared) {
            Some(own) if own > 0 => Ok(own),
            _ => Err(LoadError::config(
                "num_kv_shared_layers",
                format!("{shared} of {} layers", self.num_hidden_layers),
            )),
        }
    }

    pub fn slides(&self, index: usize) -> bool {
        match &self.layer_types {
            Some(types) => types
                .get(index)
                .is_some_and(|kind| kind == "sliding_attention"),
            None => !(index + 1).is_multiple_of(self.sliding_window_pattern.unwrap_or(5)),
        }
    }

    pub fn windows(&self) -> Result<Windows, LoadError> {
        let (layers, context) = (self.num_hidden_layers, self.context_length());
        let window = self.sliding_window.unwrap_or(512);
        match &self.layer_types {
            Some(types) => windows::by_types(types, layers, Some(window), context),
            None => windows::by_index(layers, window, context, |index| self.slides(index)),
        }
    }

    /// Whether a layer's values are its keys, before these are normalized and turned.
    pub fn values_are_keys(&self, index: usize) -> bool {
        self.attention_k_eq_v == Some(true) && !self.slides(index)
    }

    pub fn shape(&self, index: usize) -> Result<AttentionShape, LoadError> {
        let head_dim = self.head_dim.unwrap_or(256);
        let own = match &self.per_layer_config {
            Some(layers) => layers.get(&index).copied().unwrap_or_default(),
            None => OwnShape {
                head_dim: self
                    .global_head_dim
                    .filter(|&size| size > 0 && !self.slides(index)),
                num_key_value_heads: self
                    .num_global_key_value_heads
                    .filter(|_| self.values_are_keys(index)),
            },
        };
        AttentionShape::new(
            self.hidden_size,
            self.num_attention_heads,
            own.num_key_value_heads.or(Some(self.num_key_value_heads)),
            own.head_dim.or(Some(head_dim)),
        )
    }

    pub fn rope(&self, index: usize) -> RopeConfig {
        let (kind, usual) = match self.slides(index) {
            true => ("sliding_attention", json!({"rope_theta": 1e4})),
            false => (
                "full_attention",
                json!({"rope_theta": 1e6, "rope_type": "proportional", "partial_rotary_factor": 0.25}),
            ),
        };
        let own = self.rope_parameters.as_ref().map(|all| all.get(kind));
        let parameters = match own {
            Some(own) => own.cloned().unwrap_or_else(|| json!({})),
            None => usual,
        };
        RopeConfig {
            traditional: self.rope_traditional.unwrap_or(false),
            parameters: parameters.as_object().cloned(),
            context: Some(self.context_length()),
            ..RopeConfig::default()
        }
    }
}
