//! MiniCPM (OpenBMB, 2024): Llama whose embeddings, branches and logits are multiplied by factors of its
//! width and depth. The reference is mlx-lm's `models/minicpm.py`; that logits are scaled with tied
//! embeddings too is transformers'.

use serde::Deserialize;

use super::builder::Builder;
use super::error::LoadError;
use super::layers::{Block, Decoder, DecoderConfig};
use super::variant::{Common, Variant};

/// The fields of `config.json` beside the common ones.
#[derive(Debug, Deserialize)]
pub struct MiniCpmConfig {
    dim_model_base: f32,
    scale_depth: f32,
    scale_emb: f32,
}

/// MiniCPM.
pub struct MiniCpm;

impl Variant for MiniCpm {
    type Own = MiniCpmConfig;
    type Layer = Block;

    fn complete(_: &MiniCpmConfig, common: &mut Common) {
        common.context.get_or_insert(32768);
        common.rope_theta.get_or_insert(1_000_000.0);
    }

    fn build(
        own: &MiniCpmConfig,
        common: &Common,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Block>, LoadError> {
        let (attention, block) = (common.attention()?, common.block()?);
        let decoder = DecoderConfig {
            embedding_scale: Some(own.scale_emb),
            logit_scale: Some(own.dim_model_base / common.hidden_size as f32),
            ..common.decoder()?
        };
        let depth = (common.num_hidden_layers as f32).sqrt();
        Decoder::build(builder, &decoder, block.norm, |builder, _, path| {
            Ok(Block {
                branch_scale: Some(own.scale_depth / depth),
                ..block.pre_norm(builder, path, &attention)?
            })
        })
    }
}
