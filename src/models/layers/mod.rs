//! The parts that architectures are made of. All work on the concatenated tokens of a ragged
//! batch, `[tokens, features]`; only attention looks at single rows.

mod attention;
mod embedding;
#[expect(dead_code, reason = "the architectures that have experts come next")]
mod experts;
mod linear;
mod mlp;
mod norm;
mod rope;

pub use attention::{Attention, AttentionShape};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::SwiGlu;
pub use norm::RmsNorm;
pub use rope::{Rope, RopeConfig};
