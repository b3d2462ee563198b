//! From the engine's tokens to text: the pipeline that every endpoint stands on.
//!
//! A [`Generation`] detokenizes, finds stop strings and keeps each token's place in the text, so that
//! what an endpoint shows of tokens and of text always agrees. Dropping it cancels the request.

mod clock;
mod echo;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};

use self::clock::Clock;
pub use self::echo::Echo;
use super::error::ApiError;
use super::metrics::Tally;
use super::reader::Reader;
use crate::engine::{EngineError, Event, Finish, FinishReason, Token, TokenLogprobs};
use crate::text::output::Piece;
use crate::text::{Detokenizer, StopMatcher, StopStep, TextError, Tokenizer};

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
    /// What the text says, where a reader was given.
    pub pieces: Vec<Piece>,
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
    /// Calls that the output makes.
    pub calls: usize,
    /// Tokens of the thought before the answer.
    pub reasoning_tokens: usize,
    /// Mean logprob of the generated tokens; `None` where there are none, or they were not asked for.
    pub mean_logprob: Option<f64>,
}

/// The end of a text that the next token goes on with.
const UNKNOWN: usize = usize::MAX;

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
    /// Tokens in which no stop string is looked for.
    min_tokens: usize,
    reader: Option<Reader>,
    /// Tokens whose text is not shown in full, with the end of their text.
    held: VecDeque<(ShownToken, usize)>,
    /// What is to be shown before anything else.
    echo: Option<Echo>,
    /// Tokens that came before the thought was over.
    reasoning_tokens: usize,
    /// Sum of the tokens' logprobs, and of how many tokens.
    sum_logprobs: f64,
    with_logprobs: usize,
    /// Bytes of text made and shown, an echo's included.
    made: usize,
    shown: usize,
    clock: Clock,
    tally: Option<Tally>,
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
            min_tokens: 0,
            reader: None,
            held: VecDeque::new(),
            echo: None,
            reasoning_tokens: 0,
            sum_logprobs: 0.0,
            with_logprobs: 0,
            made: 0,
            shown: 0,
            clock: Clock::new(prompt_tokens),
            tally: None,
            phase: Phase::Running,
        }
    }

    /// Looks for stop strings only behind so many tokens.
    pub fn with_min_tokens(self, min_tokens: usize) -> Self {
        Self { min_tokens, ..self }
    }

    /// Tells how it ends.
    pub fn with_tally(self, tally: Tally) -> Self {
        Self {
            tally: Some(tally),
            ..self
        }
    }

    /// Repeats the prompt first. Stop strings are not looked for in it.
    pub fn with_echo(mut self, echo: Echo) -> Self {
        self.made = echo.len();
        self.shown = self.made;
        self.echo = Some(echo);
        self
    }

    /// Tells what the text says, too. Stop strings are looked for in the text as it was written,
    /// markers and all.
    pub fn with_reader(mut self, tokenizer: Arc<Tokenizer>, reader: Reader) -> Self {
        self.detokenizer = Detokenizer::showing(tokenizer, reader.shown());
        self.reader = Some(reader);
        self
    }

    /// The next step; `None` after the end or an error.
    pub async fn next(&mut self) -> Option<Result<Step, ApiError>> {
        let step = self.step().await;
        match (&step, &mut self.tally) {
            (Some(Ok(Step::End(summary))), Some(tally)) => tally.end(summary),
            (Some(Err(_)), Some(tally)) => tally.fail(),
            _ => {}
        }
        step
    }

    async fn step(&mut self) -> Option<Result<Step, ApiError>> {
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
                Some(Event::Prompt(logprobs)) => {
                    if let Some(echo) = self.echo.take() {
                        return Ok(Step::Delta(echo.told(logprobs)));
                    }
                }
                Some(Event::Token(token)) => {
                    if let Some(delta) = self.token(token)? {
                        return Ok(Step::Delta(delta));
                    }
                }
                Some(Event::Started {
                    queued,
                    cached_tokens,
                }) => {
                    self.clock.began(queued, cached_tokens);
                    if let Some(echo) = self.echo.take_if(|echo| !echo.has_tokens()) {
                        return Ok(Step::Delta(echo.told(Vec::new())));
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
        if let Some(logprobs) = &token.logprobs {
            self.sum_logprobs += f64::from(logprobs.logprob);
            self.with_logprobs += 1;
        }
        let text = self.detokenizer.push(token.id).map_err(undecodable)?;
        let start = self.made;
        self.made += text.len();
        let end = self.end_of(token.id, &text);
        let shown = ShownToken {
            id: token.id,
            start,
            logprobs: token.logprobs,
        };
        self.held.push_back((shown, end));
        let step = self.stopped(text);
        if let Some(stop) = step.matched {
            let end = self.shown + step.text.len();
            self.held.retain(|(token, _)| token.start < end);
            let delta = self.show(step.text, None);
            self.phase = Phase::Ending(self.summary(self.clock.stopped(), Some(stop)));
            return Ok(delta);
        }
        let end = self.shown + step.text.len();
        let delta = self.show(step.text, Some(end));
        if self.reader.as_ref().is_some_and(Reader::is_thinking) {
            self.reasoning_tokens += 1;
        }
        if self.reader.as_ref().is_some_and(Reader::is_full) {
            self.phase = Phase::Ending(self.summary(self.clock.stopped(), None));
        }
        Ok(delta)
    }

    /// Where the text of the next token ends, once it is known: a part of a character goes with what
    /// completes it.
    fn end_of(&mut self, id: u32, text: &str) -> usize {
        let waits = |(_, end): &(ShownToken, usize)| *end == UNKNOWN;
        if text.is_empty() && (!self.detokenizer.hides(id) || self.held.back().is_some_and(waits)) {
            return UNKNOWN;
        }
        for (_, end) in self.held.iter_mut().rev().take_while(|it| waits(it)) {
            *end = self.made;
        }
        self.made
    }

    /// What of the next piece of text can be shown, and whether a stop string ends it.
    fn stopped(&mut self, text: String) -> StopStep {
        if self.clock.tokens <= self.min_tokens {
            return StopStep {
                text,
                matched: None,
            };
        }
        self.stops.push(&text)
    }

    fn finished(&mut self, finish: Finish) -> Result<Step, ApiError> {
        let rest = self.detokenizer.finish().map_err(undecodable)?;
        self.made += rest.len();
        let last = self.stopped(rest);
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
        let delta = self.show(text, None);
        let summary = self.summary(finish, stop);
        Ok(match delta {
            Some(delta) => {
                self.phase = Phase::Ending(summary);
                Step::Delta(delta)
            }
            None => Step::End(summary),
        })
    }

    fn summary(&self, finish: Finish, stop: Option<String>) -> Summary {
        let sum = self.sum_logprobs;
        Summary {
            finish,
            stop,
            calls: self.reader.as_ref().map_or(0, Reader::calls),
            reasoning_tokens: self.reasoning_tokens,
            mean_logprob: (self.with_logprobs > 0).then(|| sum / self.with_logprobs as f64),
        }
    }

    /// Shows `text` and the held tokens that end by `end`, or all there are if this is the last text;
    /// `None` if there is nothing to show.
    fn show(&mut self, text: String, end: Option<usize>) -> Option<Delta> {
        self.shown += text.len();
        let upto = end.unwrap_or(usize::MAX);
        let count = self.held.partition_point(|(_, end)| *end <= upto);
        let tokens: Vec<_> = self.held.drain(..count).map(|(token, _)| token).collect();
        let mut news = !text.is_empty();
        let mut pieces = Vec::new();
        if let Some(reader) = &mut self.reader {
            pieces = reader.push(&text);
            if end.is_none() {
                pieces.extend(reader.finish());
            }
            news = !pieces.is_empty();
        }
        let worth_telling = news || tokens.iter().any(|token| token.logprobs.is_some());
        worth_telling.then_some(Delta {
            text,
            pieces,
            tokens,
        })
    }

    /// Everything at once.
    pub async fn collect(mut self) -> Result<(Delta, Summary), ApiError> {
        let mut whole = Delta::default();
        while let Some(step) = self.next().await {
            match step? {
                Step::Delta(delta) => {
                    whole.text.push_str(&delta.text);
                    whole.pieces.extend(delta.pieces);
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

fn undecodable(error: TextError) -> ApiError {
    ApiError::internal(format!("the output cannot be decoded: {error}"))
}
