//! From the engine's tokens to text: the pipeline that every endpoint stands on.
//!
//! A [`Generation`] detokenizes, finds stop strings and keeps each token's place in the text, so that
//! what an endpoint shows of tokens and of text always agrees. Dropping it cancels the request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};

use super::error::ApiError;
use crate::engine::{EngineError, Event, Finish, FinishReason, Timings, Token, TokenLogprobs};
use crate::text::{Detokenizer, StopMatcher, Tokenizer};

/// A shown token.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownToken {
    /// Its id.
    pub id: u32,
    /// Where its text begins in the output, in bytes.
    pub start: usize,
    /// As the engine reported it.
    pub logprobs: Option<TokenLogprobs>,
}

/// The next piece of an output.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Whole characters, none of them part of a stop string.
    pub text: String,
    /// The tokens whose text is now shown in full.
    pub tokens: Vec<ShownToken>,
}

/// What happens to an output.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// More of it.
    Delta(Delta),
    /// The last there is.
    End(Summary),
}

/// How an output ended and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The engine's account; where a stop string ended the output, what is known without it.
    pub finish: Finish,
    /// The stop string that ended the output.
    pub stop: Option<String>,
}

/// Where a generation stands.
enum Phase {
    Running,
    /// The last text is out, this is still to be said.
    Ending(Summary),
    Done,
}

/// One output in the making.
pub struct Generation<S> {
    events: S,
    abort: BoxFuture<'static, ()>,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Tokens whose text is not shown in full, with the end of their text.
    held: VecDeque<(ShownToken, usize)>,
    /// Bytes of text made and shown.
    made: usize,
    shown: usize,
    clock: Clock,
    phase: Phase,
}

impl<S: Stream<Item = Event> + Unpin> Generation<S> {
    /// `abort` ends it with an error when the server cannot wait any longer.
    pub fn new(
        events: S,
        abort: BoxFuture<'static, ()>,
        tokenizer: Arc<Tokenizer>,
        stops: Vec<String>,
        prompt_tokens: usize,
    ) -> Self {
        Self {
            events,
            abort,
            detokenizer: Detokenizer::new(tokenizer),
            stops: StopMatcher::new(stops),
            held: VecDeque::new(),
            made: 0,
            shown: 0,
            clock: Clock::start(prompt_tokens),
            phase: Phase::Running,
        }
    }

    /// The next step; `None` after the end or an error.
    pub async fn next(&mut self) -> Option<Result<Step, ApiError>> {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Done => None,
            Phase::Ending(summary) => Some(Ok(Step::End(summary))),
            Phase::Running => {
                let step = self.advance().await;
                if let Ok(Step::Delta(_)) = &step
                    && matches!(self.phase, Phase::Done)
                {
                    self.phase = Phase::Running;
                }
                Some(step)
            }
        }
    }

    async fn advance(&mut self) -> Result<Step, ApiError> {
        loop {
            let event = tokio::select! {
                event = self.events.next() => event,
                () = &mut self.abort => Some(Event::Failed(EngineError::ShuttingDown)),
            };
            match event {
                Some(Event::Token(token)) => {
                    if let Some(delta) = self.token(token)? {
                        return Ok(Step::Delta(delta));
                    }
                }
                Some(Event::Finished(finish)) => return self.finished(finish),
                Some(Event::Failed(error)) => return Err(error.into()),
                None => return Err(ApiError::internal("the engine is gone")),
            }
            if let Phase::Ending(summary) = std::mem::replace(&mut self.phase, Phase::Done) {
                return Ok(Step::End(summary));
            }
        }
    }

    fn token(&mut self, token: Token) -> Result<Option<Delta>, ApiError> {
        self.clock.token();
        let text = self.detokenizer.push(token.id).map_err(undecodable)?;
        let start = self.made;
        self.made += text.len();
        let shown = ShownToken {
            id: token.id,
            start,
            logprobs: token.logprobs,
        };
        self.held.push_back((shown, self.made));
        let step = self.stops.push(&text);
        if let Some(stop) = step.matched {
            let summary = Summary {
                finish: self.clock.stopped(),
                stop: Some(stop),
            };
            self.phase = Phase::Ending(summary);
            let end = self.shown + step.text.len();
            self.held.retain(|(token, _)| token.start < end);
            return Ok(self.show(step.text, usize::MAX));
        }
        let end = self.shown + step.text.len();
        Ok(self.show(step.text, end))
    }

    fn finished(&mut self, finish: Finish) -> Result<Step, ApiError> {
        let rest = self.detokenizer.finish().map_err(undecodable)?;
        self.made += rest.len();
        let last = self.stops.push(&rest);
        let (text, stop, finish) = match last.matched {
            Some(stop) => {
                let finish = Finish {
                    reason: FinishReason::Stop,
                    ..finish
                };
                (last.text, Some(stop), finish)
            }
            None => (last.text + &self.stops.finish(), None, finish),
        };
        let summary = Summary { finish, stop };
        Ok(match self.show(text, usize::MAX) {
            Some(delta) => {
                self.phase = Phase::Ending(summary);
                Step::Delta(delta)
            }
            None => Step::End(summary),
        })
    }

    /// Shows `text` and the held tokens that end by `end`; `None` if there is nothing to show.
    fn show(&mut self, text: String, end: usize) -> Option<Delta> {
        self.shown += text.len();
        let count = self
            .held
            .partition_point(|(_, token_end)| *token_end <= end);
        let tokens: Vec<_> = self.held.drain(..count).map(|(token, _)| token).collect();
        let worth_telling = !text.is_empty() || tokens.iter().any(|t| t.logprobs.is_some());
        worth_telling.then_some(Delta { text, tokens })
    }

    /// Everything at once.
    pub async fn collect(mut self) -> Result<(Delta, Summary), ApiError> {
        let mut whole = Delta::default();
        while let Some(step) = self.next().await {
            match step? {
                Step::Delta(delta) => {
                    whole.text.push_str(&delta.text);
                    whole.tokens.extend(delta.tokens);
                }
                Step::End(summary) => return Ok((whole, summary)),
            }
        }
        Err(ApiError::internal("a generation ended without a finish"))
    }
}

impl<S: Stream<Item = Event> + Unpin + Send + 'static> Generation<S> {
    /// The steps as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Step, ApiError>> + Send + 'static {
        futures::stream::unfold(self, |mut generation| {
            async move { generation.next().await.map(|step| (step, generation)) }.boxed()
        })
    }
}

fn undecodable(error: crate::text::TextError) -> ApiError {
    ApiError::internal(format!("the output cannot be decoded: {error}"))
}

/// Times a generation from outside, for the case that a stop string cuts it off before the engine
/// has told how it went.
struct Clock {
    prompt_tokens: usize,
    tokens: usize,
    begun: Instant,
    first: Option<Instant>,
}

impl Clock {
    fn start(prompt_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            tokens: 0,
            begun: Instant::now(),
            first: None,
        }
    }

    fn token(&mut self) {
        self.tokens += 1;
        self.first.get_or_insert_with(Instant::now);
    }

    fn stopped(&self) -> Finish {
        let first = self.first.unwrap_or_else(Instant::now);
        Finish {
            reason: FinishReason::Stop,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: 0,
            completion_tokens: self.tokens,
            timings: Timings {
                prefill: first - self.begun,
                decode: first.elapsed(),
                ..Timings::default()
            },
        }
    }
}
