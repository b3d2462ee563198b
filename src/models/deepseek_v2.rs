//! DeepSeek-V2 (DeepSeek-AI, 2024), also its Lite and Coder: V3's shape, with experts chosen by a softmax. The
//! reference is mlx-lm's `models/deepseek_v2.py`, which unfolds latents that are kept folded here.

use crate::mlx::Scoring;

use super::builder::Builder;
use super::deepseek_v3::{DeepseekConfig, DeepseekLayer, complete};
use super::error::LoadError;
use super::layers::Decoder;
use super::variant::{Common, Variant};
use super::weights::Weights;

/// DeepSeek-V2.
pub struct DeepseekV2;

impl Variant for DeepseekV2 {
    type Own = DeepseekConfig;
    type Layer = DeepseekLayer;

    fn complete(_: &DeepseekConfig, common: &mut Common) {
        complete(common);
    }

    fn sanitize(
        own: &DeepseekConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        own.sanitize(common, weights, Scoring::Softmax)
    }

    fn build(
        own: &DeepseekConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<DeepseekLayer>, LoadError> {
        own.build(common, builder, Scoring::Softmax)
    }
}
