//! The parts that architectures are made of. All work on the concatenated tokens of a ragged
//! batch, `[tokens, features]`; only attention looks at single rows.

mod attention;
mod conv;
mod delta;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod rope;
mod ssm;

pub use attention::{Attention, AttentionShape};
pub use conv::Convolution;
pub use delta::{DeltaConfig, DeltaInputs, GatedDelta};
pub use embedding::Embedding;
pub use linear::{Linear, Packed};
pub use mlp::SwiGlu;
pub use norm::RmsNorm;
pub use rope::{Rope, RopeConfig};
pub use ssm::{Mamba, MambaConfig};
