//! StarCoder2 (Lozhkov et al., 2024): layer normalization, biases everywhere, and a feed-forward layer
//! without a gate. The reference is mlx-lm's `models/starcoder2.py`; the window is transformers', mlx-lm
//! has none.

use serde::Deserialize;

use crate::mlx::Activation;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, Decoder, Mlp, NormKind, activation};
use super::variant::{Common, Variant};
use super::weights::Weights;

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Starcoder2Config {
    norm_epsilon: Option<f32>,
    use_bias: Option<bool>,
    sliding_window: Option<u64>,
}

/// StarCoder2.
pub struct Starcoder2;

impl Variant for Starcoder2 {
    type Own = Starcoder2Config;
    type Layer = Block;

    fn complete(own: &Starcoder2Config, common: &mut Common) {
        common.vocab_size.get_or_insert(49152);
        common.context.get_or_insert(4096);
        common.tied.get_or_insert(true);
        common.eps = own.norm_epsilon.or(Some(1e-5));
        common.norm = NormKind::Layer { bias: true };
        common.rope_theta.get_or_insert(100_000.0);
    }

    fn sanitize(
        _: &Starcoder2Config,
        common: &Common,
        weights: &mut Weights<'_>,
    ) -> Result<(), LoadError> {
        weights.discard_tied_head(common.tied);
        Ok(())
    }

    fn build(
        own: &Starcoder2Config,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let bias = own.use_bias.unwrap_or(true);
        let attention = common.attention()?.with_biases(bias);
        let windows = common.windows(None, own.sliding_window, |_| true)?;
        let block = common.block()?;
        let (hidden, inner) = (block.hidden, block.inner);
        // mlx-lm takes the exact one whatever the file says.
        let activation = match &common.hidden_act {
            Some(name) => activation("hidden_act", name)?,
            None => Activation::Gelu,
        };
        common.build(builder, |builder, index, path| {
            let mlp = Mlp {
                gate: None,
                up: builder.linear(&format!("{path}.mlp.c_fc"), hidden, inner, bias)?,
                down: builder.linear(&format!("{path}.mlp.c_proj"), inner, hidden, bias)?,
                activation,
            };
            let attention = attention.with_window(windows.of(index));
            block.pre_norm_around(builder, path, &attention, mlp)
        })
    }
}
