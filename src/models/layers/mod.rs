//! The parts that architectures are made of. All work on the concatenated tokens of a ragged
//! batch, `[tokens, features]`; only attention looks at single rows.

mod attention;
mod block;
mod conv;
mod decoder;
mod delta;
mod embedding;
mod experts;
mod latent;
mod linear;
mod mixer;
mod mlp;
mod norm;
mod parallel;
mod rope;
mod rope_scaling;
mod ssm;

pub use attention::{Attention, AttentionConfig, AttentionShape, Growth, NormOver, QueryKeyNorms};
pub use block::{Around, Block, BlockConfig, DecoderLayer};
pub use conv::Convolution;
pub use decoder::{Decoder, DecoderConfig};
pub use delta::{DeltaConfig, DeltaInputs, GatedDelta};
pub use embedding::Embedding;
pub use experts::{Mixture, MixtureConfig, Shared, Sparse, choices, plain_routing};
pub use latent::{LatentAttention, LatentBlock, LatentShape};
pub use linear::Linear;
pub use mixer::{Mixer, Residual, Stateless, attends};
pub use mlp::{FeedForward, Mlp, activation, only_activation};
pub use norm::{HeadNorm, LayerNorm, Norm, NormConfig, NormKind, RmsNorm};
pub use parallel::{EitherBlock, ParallelBlock};
pub use rope::{Rope, RopeConfig};
pub use ssm::{Mamba, MambaConfig};
