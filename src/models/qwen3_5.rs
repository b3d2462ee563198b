//! Qwen3.5 (Qwen team, 2026), its language model: Qwen3-Next's layers with projections of their own. The
//! reference is mlx-lm's `models/qwen3_5.py`.

use super::builder::Builder;
use super::error::LoadError;
use super::layers::DeltaInputs;
use super::qwen3_next::{Kind, QwenHybrid, QwenHybridConfig};
use super::registry::Architecture;
use super::weights::Weights;

/// Qwen3.5, with experts or without.
pub struct Qwen35;

impl Architecture for Qwen35 {
    type Config = QwenHybridConfig;
    type Model = QwenHybrid;

    fn sanitize(config: &QwenHybridConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        config.sanitize(weights)
    }

    fn build(
        config: &QwenHybridConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<QwenHybrid, LoadError> {
        // mlx-lm's defaults.
        let kind = Kind {
            inputs: DeltaInputs::Apart,
            theta: 100_000.0,
            partial: 0.25,
            normalize: true,
        };
        config.build(builder, kind)
    }
}
