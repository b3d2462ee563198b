//! Mamba-2 (Dao & Gu, Transformers are SSMs, 2024): layers of state spaces, nothing else. The reference
//! is mlx-lm's `models/mamba2.py`.

use serde::Deserialize;

use crate::mlx::Activation;

use super::builder::Builder;
use super::config::{Number, dimension};
use super::error::LoadError;
use super::layers::{
    Decoder, DecoderConfig, Mamba, MambaConfig, NormConfig, Residual, only_activation,
};
use super::registry::Architecture;
use super::weights::Weights;

/// A state has no length of its own; this bounds what a request may ask for.
const CONTEXT: usize = 1 << 20;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct Mamba2Config {
    hidden_size: u64,
    num_hidden_layers: usize,
    vocab_size: u64,
    num_heads: u64,
    head_dim: u64,
    n_groups: u64,
    state_size: u64,
    ssm_state_size: Option<u64>,
    conv_kernel: u64,
    use_conv_bias: Option<bool>,
    use_bias: Option<bool>,
    layer_norm_epsilon: f32,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    time_step_limit: Option<(Number, Number)>,
    max_position_embeddings: Option<usize>,
}

/// Mamba-2.
pub struct Mamba2;

impl Architecture for Mamba2 {
    type Config = Mamba2Config;
    type Model = Decoder<Residual>;

    fn sanitize(config: &Mamba2Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        backbone_as_model(weights);
        weights.discard_tied_head(config.tie_word_embeddings);
        Ok(())
    }

    fn build(
        config: &Mamba2Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Residual>, LoadError> {
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let eps = config.layer_norm_epsilon;
        let mamba = MambaConfig {
            hidden,
            heads: config.num_heads,
            head_dim: config.head_dim,
            groups: config.n_groups,
            state: config.ssm_state_size.unwrap_or(config.state_size),
            taps: config.conv_kernel,
            conv_bias: config.use_conv_bias.unwrap_or(true),
            proj_bias: config.use_bias.unwrap_or(false),
            limits: limits(config.time_step_limit, (0.0, f32::INFINITY)),
            eps,
            norm_by_group: false,
        };
        Decoder::build(
            builder,
            &DecoderConfig {
                hidden_size: config.hidden_size,
                vocab_size: config.vocab_size,
                layers: config.num_hidden_layers,
                context_length: config.max_position_embeddings.unwrap_or(CONTEXT),
                tied: config.tie_word_embeddings,
                ..DecoderConfig::default()
            },
            NormConfig::rms(eps),
            |builder, _, path| {
                Ok(Residual {
                    norm: builder.rms_norm(&format!("{path}.norm"), hidden, eps)?,
                    mixer: Box::new(Mamba::build(builder, &format!("{path}.mixer"), &mamba)?),
                })
            },
        )
    }
}

/// The bounds of the step size.
pub fn limits(given: Option<(Number, Number)>, otherwise: (f32, f32)) -> (f32, f32) {
    given.map_or(otherwise, |(Number(least), Number(most))| {
        (least as f32, most as f32)
    })
}

/// Gives the parts of Mamba's `backbone` the names that decoders are built with.
pub fn backbone_as_model(weights: &mut Weights<'_>) {
    weights.rename(|name| {
        let part = name.strip_prefix("backbone.")?;
        let (part, rest) = part.split_once('.')?;
        let part = match part {
            "embedding" | "embeddings" => "embed_tokens",
            "norm_f" => "norm",
            other => other,
        };
        Some(format!("model.{part}.{rest}"))
    });
}
