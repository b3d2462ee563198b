//! GLM-4 0414 (Z.ai, 2025): norms on both sides of both halves, half of a head's features turned. The
//! reference is mlx-lm's `models/glm4.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Around, Attention, AttentionConfig, Block, Decoder, Mlp};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Glm4Config {
    attention_bias: bool,
    partial_rotary_factor: Option<f64>,
}

/// GLM-4.
pub struct Glm4;

impl Variant for Glm4 {
    type Own = Glm4Config;
    type Layer = Block;

    fn complete(own: &Glm4Config, common: &mut Common) {
        common.context.get_or_insert(32768);
        common.rope_traditional.get_or_insert(true);
        common.rope_partial = own.partial_rotary_factor.or(Some(0.5));
    }

    fn build(
        own: &Glm4Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let attention = AttentionConfig {
            qkv_bias: own.attention_bias,
            ..common.attention()?
        };
        let block = common.block()?;
        let (hidden, inner) = (block.hidden, block.inner);
        common.build(builder, |builder, _, path| {
            let mut norm = |name: &str| builder.norm(&format!("{path}.{name}"), hidden, block.norm);
            let (own, mlp) = (format!("{path}.self_attn"), format!("{path}.mlp"));
            Ok(Block {
                attention_norms: Around::both(
                    norm("input_layernorm")?,
                    norm("post_self_attn_layernorm")?,
                ),
                mlp_norms: Around::both(
                    norm("post_attention_layernorm")?,
                    norm("post_mlp_layernorm")?,
                ),
                attention: Attention::build(builder, &own, hidden, &attention)?,
                mlp: Mlp::fused(builder, &mlp, hidden, inner, block.activation)?,
                branch_scale: None,
            })
        })
    }
}
