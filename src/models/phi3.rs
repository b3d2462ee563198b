//! Phi-3 and Phi-4 (Abdin et al., 2024): Llama with fused projections. The reference is mlx-lm's
//! `models/phi3.py`; the window is transformers', mlx-lm has none.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::fast::Scores;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Around, Attention, Block, Decoder, Mlp, Rope};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Phi3Config {
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
    sliding_window: Option<u64>,
}

impl Phi3Config {
    /// Writes the context before stretching, which stands beside the stretching, into it.
    fn complete_stretching(&self, section: &mut Map<String, Value>) {
        let kind = section.get("type").or_else(|| section.get("rope_type"));
        if matches!(kind.and_then(Value::as_str), Some("longrope" | "su")) {
            let original = self.original_max_position_embeddings.unwrap_or(4096);
            section
                .entry("original_max_position_embeddings")
                .or_insert_with(|| original.into());
        }
    }
}

/// Phi-3.
pub struct Phi3;

impl Variant for Phi3 {
    type Own = Phi3Config;
    type Layer = Block;

    fn complete(own: &Phi3Config, common: &mut Common) {
        common.context.get_or_insert(131_072);
        common.rope_partial = own.partial_rotary_factor;
        let sections = [&mut common.rope_scaling, &mut common.rope_parameters];
        for section in sections.into_iter().flatten() {
            own.complete_stretching(section);
        }
    }

    fn build(
        own: &Phi3Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let shape = common.attention()?.shape;
        let (queries, keys) = (shape.queries(), shape.keys());
        let rope = common.rope()?;
        let windows = common.windows(None, own.sliding_window, |_| true)?;
        let block = common.block()?;
        let (hidden, inner) = (block.hidden, block.inner);
        common.build(builder, |builder, index, path| {
            let mut norm = |name: &str| builder.norm(&format!("{path}.{name}"), hidden, block.norm);
            let attention_norms = Around::before(norm("input_layernorm")?);
            let mlp_norms = Around::before(norm("post_attention_layernorm")?);
            let qkv = format!("{path}.self_attn.qkv_proj");
            let [q_proj, k_proj, v_proj] =
                builder.fused_linear(&qkv, hidden, [queries, keys, keys], false)?;
            let (o_proj, mlp) = (format!("{path}.self_attn.o_proj"), format!("{path}.mlp"));
            Ok(Block {
                attention_norms,
                attention: Attention {
                    q_proj,
                    k_proj,
                    v_proj,
                    o_proj: builder.linear(&o_proj, queries, hidden, false)?,
                    shape,
                    norms: None,
                    rope: Some(Rope::new(shape.head_dim, &rope)?),
                    growth: None,
                    scores: Scores {
                        window: windows.of(index),
                        ..Scores::plain(shape.head_dim)
                    },
                    gated: false,
                },
                mlp_norms,
                mlp: Mlp::fused(builder, &mlp, hidden, inner, block.activation)?,
                branch_scale: None,
            })
        })
    }
}
