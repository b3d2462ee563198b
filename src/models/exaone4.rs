//! EXAONE 4 (LG AI Research, 2025): norms behind both halves; in the larger one, three layers of four
//! see a window, and only these encode positions. The reference is mlx-lm's `models/exaone4.py`.

use serde::Deserialize;
use serde_json::Value;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Block, Decoder, NormOver};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Exaone4Config {
    sliding_window: Option<u64>,
    /// `"LLLG"`, or 4: that many layers, the last of which sees everything.
    sliding_window_pattern: Option<Value>,
    layer_types: Option<Vec<String>>,
}

impl Exaone4Config {
    /// Which layers see a window; `None` where no layer does.
    fn slides(&self, layers: usize) -> Result<Option<Vec<bool>>, LoadError> {
        if self.sliding_window.is_none() {
            return Ok(None);
        }
        if let Some(types) = &self.layer_types {
            let slides = |kind: &String| kind == "sliding_attention";
            return Ok(Some(types.iter().map(slides).collect()));
        }
        let pattern: Vec<bool> = match &self.sliding_window_pattern {
            None => return Ok(None),
            Some(Value::String(pattern)) => pattern.chars().map(|kind| kind == 'L').collect(),
            Some(every) => match every.as_u64().filter(|every| (1..=1024).contains(every)) {
                Some(every) => (1..=every).map(|nth| nth != every).collect(),
                None => Vec::new(),
            },
        };
        if pattern.is_empty() {
            let message = "is neither a word of L and G nor a number";
            return Err(LoadError::config("sliding_window_pattern", message));
        }
        Ok(Some(pattern.into_iter().cycle().take(layers).collect()))
    }
}

/// EXAONE 4.
pub struct Exaone4;

impl Variant for Exaone4 {
    type Own = Exaone4Config;
    type Layer = Block;

    fn build(
        own: &Exaone4Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let block = common.block()?;
        let attention = AttentionConfig {
            norms: Some((NormOver::Heads, block.norm.eps)),
            ..common.attention()?
        };
        let slides = own.slides(common.num_hidden_layers)?;
        let slide = |index: usize| {
            slides
                .as_ref()
                .is_some_and(|all| all.get(index) == Some(&true))
        };
        let windows = common.windows(None, own.sliding_window, slide)?;
        common.build(builder, |builder, index, path| {
            let mut attention = attention.with_window(windows.of(index));
            if slides.is_some() && !slide(index) {
                attention.rope = None;
            }
            block.post_norm(builder, path, &attention)
        })
    }
}
