//! DeepSeek-V2 (DeepSeek-AI, 2024), also its Lite and Coder: V3's shape, with experts chosen by a softmax. The
//! reference is mlx-lm's `models/deepseek_v2.py`, which unfolds latents that are kept folded here.

use crate::mlx::Scoring;

use super::builder::Builder;
use super::deepseek_v3::{DeepseekConfig, DeepseekModel};
use super::error::LoadError;
use super::registry::Architecture;
use super::weights::Weights;

/// DeepSeek-V2.
pub struct DeepseekV2;

impl Architecture for DeepseekV2 {
    type Config = DeepseekConfig;
    type Model = DeepseekModel;

    fn sanitize(config: &DeepseekConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        config.sanitize(weights, Scoring::Softmax)
    }

    fn build(
        config: &DeepseekConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<DeepseekModel, LoadError> {
        config.build(builder, Scoring::Softmax)
    }
}
