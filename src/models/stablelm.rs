//! StableLM 2 (Stability AI, 2024): layer normalization, a part of each head turned by position, and where
//! `config.json` says so halves side by side and norms of each head's own. The reference is mlx-lm's
//! `models/stablelm.py`.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{AttentionConfig, Decoder, EitherBlock, NormKind};
use super::stacking::stack;
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StableLmConfig {
    layer_norm_eps: Option<f32>,
    partial_rotary_factor: Option<f64>,
    use_qkv_bias: bool,
    use_parallel_residual: bool,
    qk_layernorm: bool,
}

/// StableLM.
pub struct StableLm;

impl Variant for StableLm {
    type Own = StableLmConfig;
    type Layer = EitherBlock;

    fn complete(own: &StableLmConfig, common: &mut Common) {
        common.context.get_or_insert(4096);
        common.tied = Some(false);
        common.eps = own.layer_norm_eps.or(Some(1e-5));
        common.norm = NormKind::Layer { bias: true };
        common.rope_partial = own.partial_rotary_factor.or(Some(0.25));
    }

    fn sanitize(
        own: &StableLmConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        if !own.qk_layernorm {
            return Ok(());
        }
        let shape = common.attention()?.shape;
        for layer in 0..common.num_hidden_layers {
            let path = format!("model.layers.{layer}.self_attn");
            for (norm, heads) in [
                ("q_layernorm", shape.heads),
                ("k_layernorm", shape.kv_heads),
            ] {
                stack(weights, format!("{path}.{norm}.weight"), heads, |head| {
                    format!("{path}.{norm}.norms.{head}.weight")
                })?;
            }
        }
        Ok(())
    }

    fn build(
        own: &StableLmConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<EitherBlock>, LoadError> {
        let block = common.block()?;
        let attention = AttentionConfig {
            qkv_bias: own.use_qkv_bias,
            ..common.attention()?
        };
        common.build(builder, |builder, _, path| {
            let mut layer = match own.use_parallel_residual {
                true => EitherBlock::Parallel(block.parallel(builder, path, &attention)?),
                false => EitherBlock::Sequential(block.pre_norm(builder, path, &attention)?),
            };
            if own.qk_layernorm {
                let (path, eps) = (format!("{path}.self_attn"), block.norm.eps);
                layer.attention().take_head_norms(
                    builder,
                    &path,
                    ["q_layernorm", "k_layernorm"],
                    eps,
                )?;
            }
            Ok(layer)
        })
    }
}
