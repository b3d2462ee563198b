//! gpt-oss (OpenAI, 2025). The reference is mlx-lm's `models/gpt_oss.py`.

use serde::Deserialize;

use crate::mlx::{Gate, Scoring};

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, Decoder, Mixture, MixtureConfig, choices, plain_routing};
use super::stacking::{as_words, split_interleaved};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// Steepness of the experts' sigmoid.
const ALPHA: f32 = 1.702;
/// Where the experts' activations are cut off.
const LIMIT: f32 = 7.0;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct GptOssConfig {
    num_local_experts: u64,
    num_experts_per_tok: u64,
    swiglu_limit: Option<f32>,
    sliding_window: Option<u64>,
    layer_types: Option<Vec<String>>,
}

/// gpt-oss.
pub struct GptOss;

impl Variant for GptOss {
    type Own = GptOssConfig;
    type Layer = Block<Mixture>;

    fn complete(_: &GptOssConfig, common: &mut Common) {
        common.context.get_or_insert(131_072);
        common.rope_theta.get_or_insert(150_000.0);
    }

    fn sanitize(
        _: &GptOssConfig,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        common.sanitize(weights)?;
        for layer in 0..common.num_hidden_layers {
            let experts = format!("model.layers.{layer}.mlp.experts");
            for (end, part) in [
                ("_blocks", "weight"),
                ("_scales", "scales"),
                ("_bias", "bias"),
            ] {
                let gate_up = format!("{experts}.gate_up_proj{end}");
                if weights.contains(&gate_up) {
                    let halves =
                        ["gate_proj", "up_proj"].map(|it| format!("{experts}.{it}.{part}"));
                    split_interleaved(weights, &gate_up, halves)?;
                }
                let down = format!("{experts}.down_proj{end}");
                if weights.contains(&down) {
                    as_words(weights, &down, format!("{experts}.down_proj.{part}"))?;
                }
            }
        }
        Ok(())
    }

    fn build(
        own: &GptOssConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block<Mixture>>, LoadError> {
        let attention = common.attention()?.with_biases(true);
        let block = common.block()?;
        let (experts, choices) = choices(
            ("num_local_experts", own.num_local_experts),
            ("num_experts_per_tok", own.num_experts_per_tok),
        )?;
        let routing = plain_routing(Scoring::SoftmaxOfChosen, choices);
        let mixture = MixtureConfig {
            opening: Gate::ClampedSilu {
                alpha: ALPHA,
                limit: own.swiglu_limit.unwrap_or(LIMIT),
            },
            bias: true,
            ..MixtureConfig::plain(block.hidden, block.inner, experts, routing)
        };
        // Every other layer has a window, the first one first.
        let (types, window) = (own.layer_types.as_deref(), own.sliding_window.or(Some(128)));
        let windows = common.windows(types, window, |index| index.is_multiple_of(2))?;
        common.build(builder, |builder, index, path| {
            let mlp = format!("{path}.mlp");
            let moe = Mixture::build(builder, &mlp, ["router", "experts"], &mixture)?;
            let mut attention = attention.with_window(windows.of(index));
            let sinks = format!("{path}.self_attn.sinks");
            attention.scores.sinks = Some(builder.vector(&sinks, attention.shape.heads)?);
            block.pre_norm_around(builder, path, &attention, moe)
        })
    }
}
