//! From the engine's tokens to text: the pipeline that every endpoint stands on.
//!
//! A [`Generation`] detokenizes, finds stop strings and keeps each token's place in the text, so that
//! what an endpoint shows of tokens and of text always agrees. Dropping it cancels the request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};

use super::error::ApiError;
use super::metrics::Tally;
use super::reader::Reader;
use crate::engine::{EngineError, Event, Finish, FinishReason, Timings, Token, TokenLogprobs};
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

/// A prompt that is repeated before its output.
#[derive(Debug, Clone, PartialEq)]
pub struct Echo {
    text: String,
    /// Where their logprobs are asked for.
    tokens: Vec<ShownToken>,
}

impl Echo {
    /// Of the prompt's text alone.
    pub fn of_text(text: String) -> Self {
        let tokens = Vec::new();
        Self { text, tokens }
    }

    /// Of a prompt whose tokens come with logprobs. `text` is what it was encoded from; `None` decodes
    /// the tokens.
    pub fn of_tokens(
        tokenizer: Arc<Tokenizer>,
        tokens: &[u32],
        text: Option<String>,
    ) -> Result<Self, TextError> {
        let mut detokenizer = Detokenizer::new(tokenizer);
        let mut decoded = String::new();
        let mut starts = Vec::with_capacity(tokens.len());
        for &id in tokens {
            starts.push(decoded.len());
            decoded.push_str(&detokenizer.push(id)?);
        }
        decoded.push_str(&detokenizer.finish()?);
        let text = text.unwrap_or(decoded);
        // A tokenizer that normalizes decodes to another text: its places are then only about right.
        let place = |start: usize| {
            let within = start.min(text.len());
            (0..=within).rev().find(|&at| text.is_char_boundary(at))
        };
        let shown = |(&id, start)| ShownToken {
            id,
            start: place(start).unwrap_or(0),
            logprobs: None,
        };
        let tokens = tokens.iter().zip(starts).map(shown).collect();
        Ok(Self { text, tokens })
    }

    /// `logprobs` are those of the tokens from the second on.
    fn told(mut self, logprobs: Vec<TokenLogprobs>) -> Delta {
        for (token, logprobs) in self.tokens.iter_mut().skip(1).zip(logprobs) {
            token.logprobs = Some(logprobs);
        }
        Delta {
            text: self.text,
            tokens: self.tokens,
            ..Delta::default()
        }
    }
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
        self.made = echo.text.len();
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
                    if let Some(echo) = self.echo.take_if(|echo| echo.tokens.is_empty()) {
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
        let shown = ShownToken {
            id: token.id,
            start,
            logprobs: token.logprobs,
        };
        self.held.push_back((shown, self.made));
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

/// Times a generation from outside, for the case that a stop string cuts it off before the engine
/// has told how it went.
struct Clock {
    prompt_tokens: usize,
    cached_tokens: usize,
    tokens: usize,
    queued: Duration,
    begun: Instant,
    first: Option<Instant>,
}

impl Clock {
    fn new(prompt_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            cached_tokens: 0,
            tokens: 0,
            queued: Duration::ZERO,
            begun: Instant::now(),
            first: None,
        }
    }

    fn began(&mut self, queued: Duration, cached_tokens: usize) {
        self.queued = queued;
        self.cached_tokens = cached_tokens;
        self.begun = Instant::now();
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
            cached_tokens: self.cached_tokens,
            completion_tokens: self.tokens,
            timings: Timings {
                queued: self.queued,
                prefill: first - self.begun,
                decode: first.elapsed(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::output::{Functions, OutputParser, ToolFormat};
    use futures::stream::{self, BoxStream};
    use std::path::Path;

    fn tokenizer() -> Arc<Tokenizer> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
        Arc::new(Tokenizer::load(&dir).unwrap())
    }

    fn finish(reason: FinishReason, completion_tokens: usize) -> Finish {
        let timings = Timings::default();
        Finish {
            reason,
            prompt_tokens: 7,
            cached_tokens: 2,
            completion_tokens,
            timings,
        }
    }

    /// The events of an engine that says `text`, a character's bytes apart where tokens have them so.
    fn said(tokenizer: &Tokenizer, text: &str) -> Vec<Event> {
        let ids = tokenizer.encode(text, false).unwrap();
        let logprobs = Some(TokenLogprobs {
            logprob: -1.0,
            top: vec![],
        });
        let token = |id| {
            Event::Token(Token {
                id,
                logprobs: logprobs.clone(),
            })
        };
        let mut events: Vec<Event> = ids.iter().copied().map(token).collect();
        events.push(Event::Finished(finish(FinishReason::Length, ids.len())));
        events
    }

    fn generation(events: Vec<Event>, stops: &[&str]) -> Generation<BoxStream<'static, Event>> {
        let stops = stops.iter().map(|&stop| stop.to_owned()).collect();
        let never = futures::future::pending().boxed();
        Generation::new(stream::iter(events).boxed(), never, tokenizer(), stops, 7)
    }

    fn reader(shown: &[u32], most_calls: usize) -> Reader {
        let parser = OutputParser::new(Some(ToolFormat::Hermes), None, Functions::default());
        Reader::new(parser, shown.into(), most_calls)
    }

    #[tokio::test]
    async fn a_reader_tells_calls_and_ends_the_output_behind_the_last() {
        let call = r#"<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>"#;
        let text = [call, call, "more"].concat();
        let tokens = said(&tokenizer(), &text).len() - 1;
        for (most, calls, reason) in [(1, 1, FinishReason::Stop), (2, 2, FinishReason::Length)] {
            let generation = generation(said(&tokenizer(), &text), &[])
                .with_reader(tokenizer(), reader(&[], most));
            let (whole, summary) = generation.collect().await.unwrap();
            let begun = |piece: &&Piece| matches!(piece, Piece::Call { .. });
            assert_eq!(whole.pieces.iter().filter(begun).count(), calls);
            assert_eq!((summary.calls, summary.finish.reason), (calls, reason));
            assert_eq!(summary.finish.completion_tokens < tokens, most == 1);
        }
    }

    #[tokio::test]
    async fn the_readers_markers_are_shown_and_no_other_special_token() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers/byte-level");
        let tokenizer = Arc::new(Tokenizer::load(&dir).unwrap());
        let id = |token| tokenizer.token_id(token).unwrap();
        let (bos, end) = (id("<|bos|>"), id("<|end|>"));
        let token = |id| Event::Token(Token { id, logprobs: None });
        let events = [
            token(bos),
            token(end),
            Event::Finished(finish(FinishReason::Stop, 2)),
        ];
        let never = futures::future::pending().boxed();
        let events = stream::iter(events).boxed();
        let generation = Generation::new(events, never, tokenizer.clone(), vec![], 1)
            .with_reader(tokenizer.clone(), reader(&[bos], 1));
        let (whole, _) = generation.collect().await.unwrap();
        assert_eq!(whole.pieces, [Piece::Content("<|bos|>".to_owned())]);
    }

    #[tokio::test]
    async fn streamed_and_whole_are_the_same_and_tokens_lie_where_their_text_is() {
        let text = "Grüße 世界 👋🏽 and so on";
        let events = said(&tokenizer(), text);
        let count = events.len() - 1;
        let mut generation = generation(events, &["never"]);
        let (mut streamed, mut tokens) = (String::new(), Vec::new());
        let mut end = None;
        while let Some(step) = generation.next().await {
            match step.unwrap() {
                Step::Delta(delta) => {
                    streamed.push_str(&delta.text);
                    tokens.extend(delta.tokens);
                }
                Step::End(summary) => end = Some(summary),
            }
        }
        assert_eq!(streamed, text);
        assert_eq!(tokens.len(), count);
        assert!(
            tokens
                .iter()
                .all(|token| text.is_char_boundary(token.start))
        );
        assert!(tokens.is_sorted_by_key(|token| token.start));
        let summary = end.unwrap();
        assert_eq!(
            (summary.finish, summary.stop),
            (finish(FinishReason::Length, count), None)
        );
    }

    #[tokio::test]
    async fn a_stop_string_ends_the_output_before_it_and_its_tokens_do_not_show() {
        let text = "one two three four";
        for stop in ["three", "o thr", "e", " ", "one", "e four"] {
            let events = said(&tokenizer(), text);
            let (output, summary) = generation(events, &["never", stop])
                .collect()
                .await
                .unwrap();
            let want = &text[..text.find(stop).unwrap()];
            assert_eq!(output.text, want, "{stop:?}");
            assert_eq!(summary.stop.as_deref(), Some(stop));
            assert_eq!(summary.finish.reason, FinishReason::Stop);
            assert_eq!(summary.finish.prompt_tokens, 7);
            assert!(
                output.tokens.iter().all(|token| token.start < want.len()),
                "{stop:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_only_looked_like_a_stop_string_is_shown_in_the_end() {
        let events = said(&tokenizer(), "one two thr");
        let count = events.len() - 1;
        let (output, summary) = generation(events, &["three"]).collect().await.unwrap();
        assert_eq!(
            (output.text.as_str(), output.tokens.len()),
            ("one two thr", count)
        );
        assert_eq!(summary.stop, None);
    }

    #[tokio::test]
    async fn an_echo_comes_first_and_moves_the_tokens_behind_it() {
        let tokenizer = tokenizer();
        let prompt = "Grüße, stop";
        let ids = tokenizer.encode(prompt, false).unwrap();
        let logprob = |logprob| TokenLogprobs {
            logprob,
            top: vec![],
        };
        let mut events = said(&tokenizer, " and on stop there");
        let known = (1..ids.len()).map(|i| logprob(-(i as f32))).collect();
        events.insert(0, Event::Prompt(known));
        let echo = Echo::of_tokens(tokenizer, &ids, Some(prompt.to_owned())).unwrap();
        let (output, summary) = generation(events, &["stop"])
            .with_echo(echo)
            .collect()
            .await
            .unwrap();
        assert_eq!(output.text, "Grüße, stop and on ");
        assert_eq!(summary.stop.as_deref(), Some("stop"));
        assert_eq!(
            summary.mean_logprob,
            Some(-1.0),
            "the prompt's are not counted"
        );
        assert!(output.tokens.is_sorted_by_key(|token| token.start));
        let (echoed, new) = output.tokens.split_at(ids.len());
        assert_eq!(echoed[0].logprobs, None);
        assert_eq!(echoed[2].logprobs, Some(logprob(-2.0)));
        assert!(echoed.iter().all(|token| token.start < prompt.len()));
        assert_eq!(new[0].start, prompt.len());
    }

    #[tokio::test]
    async fn an_echo_of_text_needs_nothing_of_the_engine_but_its_start() {
        let mut events = said(&tokenizer(), " b");
        events.insert(
            0,
            Event::Started {
                queued: Duration::ZERO,
                cached_tokens: 0,
            },
        );
        let mut generation = generation(events, &[]).with_echo(Echo::of_text("a".to_owned()));
        let Some(Ok(Step::Delta(first))) = generation.next().await else {
            panic!("the echo is the first step");
        };
        assert_eq!((first.text.as_str(), first.tokens.len()), ("a", 0));
        assert_eq!(generation.collect().await.unwrap().0.text, " b");
    }

    #[tokio::test]
    async fn a_failure_comes_through_and_is_the_last_word() {
        let tokenizer = tokenizer();
        let mut events = said(&tokenizer, "one two");
        let last = events.len() - 1;
        events[last] = Event::Failed(EngineError::Compute("out of memory".into()));
        let mut generation = generation(events, &[]);
        for _ in 0..last {
            assert!(matches!(generation.next().await, Some(Ok(Step::Delta(_)))));
        }
        let error = generation.next().await.unwrap().unwrap_err();
        assert!(error.message().contains("out of memory"));
        assert!(generation.next().await.is_none());
    }

    #[tokio::test]
    async fn an_engine_that_says_nothing_more_is_an_error_not_an_end() {
        let mut events = said(&tokenizer(), "one two");
        events.pop();
        assert!(generation(events, &[]).collect().await.is_err());
    }

    #[tokio::test]
    async fn an_abort_ends_what_would_go_on() {
        let abort = tokio::time::sleep(Duration::from_millis(1)).boxed();
        let silent = stream::pending().boxed();
        let mut generation = Generation::new(silent, abort, tokenizer(), vec![], 7);
        let error = generation.next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Some("shutting_down"));
    }
}
