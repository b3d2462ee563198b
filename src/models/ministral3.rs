//! Ministral 3 (Mistral AI, 2025): Llama whose queries grow beyond the context of the first training. The
//! reference is mlx-lm's `models/ministral3.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, Decoder, Growth, RopeConfig};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct Ministral3Config {
    rope_parameters: Map<String, Value>,
    sliding_window: Option<u64>,
    layer_types: Option<Vec<String>>,
}

impl Ministral3Config {
    /// `rope_parameters`, divided into what is the rope's and what is the growth's.
    fn positions(&self) -> Result<(Map<String, Value>, Growth), LoadError> {
        let mut parameters = self.rope_parameters.clone();
        let number = |key: &str, value: Option<Value>| {
            let key = format!("rope_parameters.{key}");
            let value = value.and_then(|value| value.as_f64());
            value.ok_or_else(|| LoadError::config(key, "is not a number"))
        };
        let every = "original_max_position_embeddings";
        let every = number(every, parameters.get(every).cloned())?;
        let beta = "llama_4_scaling_beta";
        let beta = number(beta, parameters.remove(beta))?;
        // mlx-lm reads it from the level above.
        parameters.remove("max_position_embeddings");
        let growth = Growth {
            beta: beta as f32,
            every: every as f32,
        };
        Ok((parameters, growth))
    }
}

/// Ministral 3.
pub struct Ministral3;

impl Variant for Ministral3 {
    type Own = Ministral3Config;
    type Layer = Block;

    fn complete(_: &Ministral3Config, common: &mut Common) {
        common.context.get_or_insert(262_144);
    }

    fn build(
        own: &Ministral3Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let (parameters, growth) = own.positions()?;
        let attention = AttentionConfig {
            rope: Some(RopeConfig {
                parameters: Some(parameters),
                ..common.rope()?
            }),
            growth: Some(growth),
            ..common.attention()?
        };
        let windows = common.windows(own.layer_types.as_deref(), own.sliding_window, |_| false)?;
        let block = common.block()?;
        common.build(builder, |builder, index, path| {
            block.pre_norm(builder, path, &attention.with_window(windows.of(index)))
        })
    }
}
