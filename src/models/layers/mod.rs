//! The parts that architectures are made of. All work on the concatenated tokens of a ragged
//! batch, `[tokens, features]`; only attention looks at single rows.

mod attention;
mod block;
mod decoder;
mod embedding;
mod experts;
mod latent;
mod linear;
mod mlp;
mod norm;
mod rope;
mod rope_scaling;

pub use attention::{
    Attention, AttentionConfig, AttentionShape, Growth, NormOver, QueryKeyNorms, as_sequence,
    as_tokens,
};
pub use block::{Around, Block, BlockConfig, DecoderLayer};
pub use decoder::{Decoder, DecoderConfig};
pub use embedding::Embedding;
pub use experts::{Mixture, MixtureConfig, Shared, Sparse, choices, plain_routing};
pub use latent::{LatentAttention, LatentBlock, LatentShape};
pub use linear::Linear;
pub use mlp::{FeedForward, Mlp, activation, only_activation};
pub use norm::{LayerNorm, Norm, RmsNorm};
pub use rope::{Rope, RopeConfig};
