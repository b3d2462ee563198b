//! What goes into the engine and what comes out of it.

use std::time::{Duration, Instant};

use super::grammar::Matcher;
use super::sampler::Dry;

/// A generation request, already tokenized and validated.
pub struct Request {
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; `None` runs to a stop token or the end of the context. With 0 only
    /// the prompt is computed.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// `Some(k)`: every token carries its logprob and those of the `k` likeliest.
    pub logprobs: Option<usize>,
    /// `Some(k)`: the same for the tokens of the prompt, in one [`Event::Prompt`].
    pub prompt_logprobs: Option<usize>,
    /// Tokens that end the generation (the end-of-sequence ids); they are not part of the output.
    pub stop_tokens: Vec<u32>,
    /// Constrains the output.
    pub grammar: Option<Matcher>,
    /// Only requests with the same one share what is kept of their prompts, so that nobody else can
    /// tell by the time a prompt takes whether it was seen before.
    pub cache_salt: Option<CacheSalt>,
    /// When to give up on it.
    pub deadline: Option<Instant>,
    /// Further outputs of the same prompt, which is computed once for all of them.
    pub siblings: Vec<Sibling>,
}

/// One more output of a request's prompt: what it has of its own.
pub struct Sibling {
    /// How its tokens are chosen.
    pub sampling: SamplingParams,
    /// Constrains it.
    pub grammar: Option<Matcher>,
}

/// Tells apart who may share a prompt's state: a digest of what makes them one.
pub type CacheSalt = [u8; 32];

/// How the next token is chosen. The order of the steps is documented in `sampler`.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the `k` likeliest; 0 is off.
    pub top_k: usize,
    /// Keep the most typical tokens whose probability reaches it; 1 is off.
    pub typical_p: f32,
    /// Nucleus: the smallest set of tokens whose probability reaches it; 1 is off.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 is off.
    pub min_p: f32,
    /// How often XTC drops the likeliest tokens; 0 is off.
    pub xtc_probability: f32,
    /// How likely they must be for that.
    pub xtc_threshold: f32,
    /// Divides positive and multiplies negative logits of seen tokens (CTRL); 1 is off.
    pub repetition_penalty: f32,
    /// How many of the last tokens the repetition penalty looks at; 0 is all of them.
    pub repetition_context: usize,
    /// Subtracted once from the logits of generated tokens; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted once for each time a token was generated; 0 is off.
    pub frequency_penalty: f32,
    /// Penalizes going on with a repetition.
    pub dry: Dry,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens that are not chosen before the output has so many others, unless the grammar allows
    /// nothing else.
    pub withheld: Vec<(u32, usize)>,
    /// Makes the output repeatable; `None` draws one from the system.
    pub seed: Option<u64>,
    /// Which of a seed's independent outputs this is.
    pub choice: u64,
}

impl SamplingParams {
    /// Whether bias or penalties may change a logit.
    pub fn has_penalties(&self) -> bool {
        !self.logit_bias.is_empty()
            || self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.dry.is_on()
    }

    /// Whether any filter may leave less than all tokens.
    pub fn has_filters(&self) -> bool {
        self.top_k > 0
            || self.typical_p < 1.0
            || self.top_p < 1.0
            || self.min_p > 0.0
            || self.xtc_probability > 0.0
    }
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            typical_p: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: 1.0,
            repetition_context: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry: Dry::default(),
            logit_bias: Vec::new(),
            withheld: Vec::new(),
            seed: None,
            choice: 0,
        }
    }
}

/// A token's log-probability under the model's own distribution (before sampling changes it).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Of the chosen token.
    pub logprob: f32,
    /// The likeliest tokens, best first.
    pub top: Vec<(u32, f32)>,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Present when the request asked for logprobs.
    pub logprobs: Option<TokenLogprobs>,
}

/// Why a generation ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token, or the grammar's end.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}

/// What a finished generation took.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were not computed again.
    pub cached_tokens: usize,
    /// Tokens generated, a final stop token included.
    pub completion_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Where a request's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// From submission to the first step.
    pub queued: Duration,
    /// From the first step to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// What a request's stream carries: `Started`, `Prompt` where asked for, tokens, then exactly one `Finished` or `Failed`
/// (which may also come first).
#[derive(Debug)]
pub enum Event {
    /// The request has its place in the batch.
    Started {
        /// How long it waited for it.
        queued: Duration,
        /// Tokens of the prompt that need not be computed again.
        cached_tokens: usize,
    },
    /// The logprobs of the prompt's tokens from the second on (nothing comes before the first).
    Prompt(Vec<TokenLogprobs>),
    /// The next token.
    Token(Token),
    /// The end.
    Finished(Finish),
    /// The request was lost; others go on.
    Failed(EngineError),
}

/// Why the engine did not serve a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// As many requests wait as may.
    #[error("the queue is full: {0} requests are waiting")]
    QueueFull(usize),
    /// The server is draining, or the engine is gone.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Prompt and output do not fit.
    #[error("the prompt has {prompt} tokens, the context holds {context}")]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens the context holds.
        context: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The model has no such token.
    #[error("token {token} is not in the vocabulary of {vocab} tokens")]
    UnknownToken {
        /// The token.
        token: u32,
        /// How many there are.
        vocab: usize,
    },
    /// Its deadline came before its end.
    #[error("the request took longer than it may")]
    DeadlineExceeded,
    /// The grammar reached its bounds in the middle.
    #[error("structured output failed: {0}")]
    GrammarTooComplex(String),
    /// The grammar could not go on.
    #[error("structured output failed: {0}")]
    Grammar(String),
    /// MLX refused a computation.
    #[error("the model failed: {0}")]
    Compute(String),
}
