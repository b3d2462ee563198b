//! Outputs of an engine that says what the tests want.

use super::*;
use crate::engine::Timings;
use crate::text::output::{Functions, OutputParser, ToolFormat};
use futures::stream::{self, BoxStream};
use std::path::Path;
use std::time::Duration;

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
async fn parts_of_a_character_go_with_what_completes_it() {
    let tokenizer = tokenizer();
    let bytes = |tokens: &[ShownToken]| -> Vec<u8> {
        let bytes = |token: &ShownToken| tokenizer.token_bytes(token.id).unwrap();
        tokens.iter().flat_map(bytes).collect()
    };
    let text = "a日é😀b";
    for (stop, left) in [("😀", "a日é"), ("é", "a日"), ("é😀", "a日"), ("x", text)] {
        let mut generation = generation(said(&tokenizer, text), &[stop]);
        let (mut shown, mut tokens) = (String::new(), Vec::new());
        while let Some(step) = generation.next().await {
            if let Step::Delta(delta) = step.unwrap() {
                shown.push_str(&delta.text);
                tokens.extend(delta.tokens);
                assert_eq!(bytes(&tokens), shown.as_bytes(), "{stop}");
            }
        }
        assert_eq!(shown, left);
    }
    // Where the last character stays a part of one, its tokens are told all the same.
    let mut events = said(&tokenizer, "a😀");
    events.remove(events.len() - 2);
    let (whole, _) = generation(events, &[]).collect().await.unwrap();
    assert_eq!(whole.text, "a\u{fffd}");
    assert_eq!(bytes(&whole.tokens), "a😀".as_bytes()[..4]);
}

#[tokio::test]
async fn a_reader_tells_calls_and_ends_the_output_behind_the_last() {
    let call = r#"<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>"#;
    let text = [call, call, "more"].concat();
    let tokens = said(&tokenizer(), &text).len() - 1;
    for (most, calls, reason) in [(1, 1, FinishReason::Stop), (2, 2, FinishReason::Length)] {
        let generation =
            generation(said(&tokenizer(), &text), &[]).with_reader(tokenizer(), reader(&[], most));
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
