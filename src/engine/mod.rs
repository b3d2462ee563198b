//! The engine: one thread that owns MLX and serves every request in one batch.
//!
//! HTTP workers hand a [`Request`] to the [`EngineHandle`] and read [`Event`]s from a
//! [`TokenStream`]; dropping the stream cancels the request before the engine's next step. What a
//! step computes is planned by [`scheduler`], a pure function; how a token is chosen is
//! [`sampler`]'s. Text never comes here: tokens in, tokens out.

pub mod grammar;
mod handle;
mod histogram;
mod latency;
mod memory;
mod meter;
mod prefix_cache;
mod request;
pub mod sampler;
pub mod scheduler;
mod sequence;
mod siblings;
mod slots;
mod start;
mod step;
#[cfg(test)]
pub(crate) mod tests;
mod worker;

pub use handle::{EngineHandle, Stats, TokenStream};
pub use histogram::{Histogram, Spread};
pub use latency::{Latencies, REQUEST as REQUEST_SECONDS, TOKEN as TOKEN_SECONDS};
pub use request::{
    CacheSalt, EngineError, Event, Finish, FinishReason, Request, SamplingParams, Sibling, Timings,
    Token, TokenLogprobs,
};
pub use slots::Task;
pub use start::{EngineOptions, StartError, start};
