//! Grammars in the engine: what a token is must not depend on how it came about.

use serde_json::json;

use super::model::VOCAB;
use super::*;
use crate::engine::grammar::{GrammarCompiler, GrammarSpec};
use crate::engine::{FinishReason, Sibling};
use crate::text::Tokenizer;

/// Behind the letters.
const STOP: u32 = 44;
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz{}[]:,\"0123456789 ";

/// A tokenizer with a token for each character.
fn compiler() -> GrammarCompiler {
    let dir = tempfile::tempdir().unwrap();
    let mut vocab = serde_json::Map::new();
    for (letter, id) in LETTERS.chars().zip(0..) {
        vocab.insert(letter.to_string(), json!(id));
    }
    assert_eq!(vocab.len(), STOP as usize);
    let stop = json!({"id": STOP, "content": "<end>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true});
    let json = json!({
        "version": "1.0",
        "added_tokens": [stop],
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "decoder": {"type": "Fuse"},
    });
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    GrammarCompiler::new(Arc::new(tokenizer), VOCAB, &[STOP]).unwrap()
}

fn text(ids: &[u32]) -> String {
    let letter = |id: &u32| LETTERS.chars().nth(*id as usize).unwrap();
    ids.iter().map(letter).collect()
}

/// Much of it has no alternative, at its beginning, in its middle and at its end.
fn schema() -> GrammarSpec {
    GrammarSpec::JsonSchema(json!({
        "type": "object",
        "properties": {
            "identifier": {"enum": ["alpha", "beta"]},
            "description": {"type": "string", "pattern": "^[xyz]{1,4}$"},
            "constant": {"const": "one long text"},
        },
        "required": ["identifier", "description", "constant"],
        "additionalProperties": false,
    }))
}

fn constrained(compiler: &GrammarCompiler, seed: u64, logprobs: Option<usize>) -> Request {
    let mut request = safe(request(&prompt(seed as u32, 20 + seed as u32), 300));
    request.sampling.seed = Some(seed);
    request.logprobs = logprobs;
    request.stop_tokens = vec![STOP];
    request.grammar = Some(compiler.compile(&schema()).unwrap());
    request
}

async fn ids(mut stream: TokenStream) -> (Vec<u32>, Finish) {
    let mut ids = Vec::new();
    loop {
        match stream.recv().await.unwrap() {
            Event::Started { .. } | Event::Prompt(_) => {}
            Event::Token(token) => ids.push(token.id),
            Event::Finished(finish) => return (ids, finish),
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn forced_tokens_take_no_pass_each_and_are_those_that_would_be_chosen() {
    let compiler = compiler();
    let setup = Setup::default();
    let passes = setup.passes.clone();
    let (engine, _) = engine(setup);
    let taken = || passes.swap(0, Ordering::AcqRel);
    let mut tokens = 0;
    for seed in 0..8 {
        // With logprobs every token is chosen.
        let slow = engine
            .submit(constrained(&compiler, seed, Some(0)))
            .unwrap();
        let (expected, finish) = ids(slow).await;
        let slow = taken();
        let fast = engine.submit(constrained(&compiler, seed, None)).unwrap();
        let (found, fast_finish) = ids(fast).await;
        let fast = taken();
        assert_eq!(found, expected);
        assert_eq!(fast_finish.reason, FinishReason::Stop);
        assert_eq!(fast_finish.completion_tokens, finish.completion_tokens);
        assert_eq!(finish.completion_tokens, found.len());
        tokens += 2 * found.len() as u64;
        let value: serde_json::Value = serde_json::from_str(&text(&found)).unwrap();
        assert_eq!(value["constant"], "one long text");
        assert!(slow >= found.len(), "{slow} passes");
        assert!(fast * 3 < slow, "{fast} passes instead of {slow}");
    }
    assert_eq!(engine.stats().completion_tokens, tokens);
}

#[tokio::test]
async fn company_changes_no_token_of_a_constrained_output() {
    let compiler = compiler();
    let (alone, _) = engine(Setup::default());
    let mut expected = Vec::new();
    for seed in 0..12 {
        let stream = alone.submit(constrained(&compiler, seed, None)).unwrap();
        expected.push(ids(stream).await.0);
    }
    // Too little memory for all of them, and free outputs beside them.
    let (tight, _) = engine(Setup {
        places: 6,
        kv_bytes: 4 * 256 * 32,
        ..Setup::default()
    });
    let mut streams = Vec::new();
    let mut free = Vec::new();
    for seed in 0..12 {
        streams.push(tight.submit(constrained(&compiler, seed, None)).unwrap());
        let mut request = safe(request(&prompt(5, 30), 100));
        request.logprobs = None;
        free.push(tight.submit(request).unwrap());
    }
    let found = futures::future::join_all(streams.into_iter().map(ids)).await;
    for ((found, _), expected) in found.into_iter().zip(expected) {
        assert_eq!(text(&found), text(&expected));
    }
    let free = futures::future::join_all(free.into_iter().map(ids)).await;
    assert!(free.iter().all(|(ids, _)| *ids == free[0].0));
}

#[tokio::test]
async fn max_tokens_ends_an_output_within_what_is_forced() {
    let compiler = compiler();
    let (engine, _) = engine(Setup::default());
    let whole = engine.submit(constrained(&compiler, 1, None)).unwrap();
    let (whole, _) = ids(whole).await;
    for most in [1, 5, 16, whole.len() - 1, whole.len(), whole.len() + 1] {
        let mut request = constrained(&compiler, 1, None);
        request.max_tokens = Some(most);
        let (found, finish) = ids(engine.submit(request).unwrap()).await;
        assert_eq!(found, whole[..most.min(whole.len())]);
        assert_eq!(finish.completion_tokens, found.len());
        let cut = most < whole.len();
        let reason = if cut {
            FinishReason::Length
        } else {
            FinishReason::Stop
        };
        assert_eq!(finish.reason, reason, "{most} of {}", whole.len());
    }
}

#[tokio::test]
async fn outputs_of_one_prompt_are_constrained_each_on_its_own() {
    let compiler = compiler();
    let (engine, _) = engine(Setup {
        places: 2,
        ..Setup::default()
    });
    let of = |choice| {
        let mut request = constrained(&compiler, 2, None);
        request.sampling.choice = choice;
        request
    };
    let mut expected = Vec::new();
    for choice in 0..4 {
        expected.push(ids(engine.submit(of(choice)).unwrap()).await.0);
    }
    let mut request = of(0);
    request.siblings = (1..4)
        .map(|choice| {
            let Request {
                sampling, grammar, ..
            } = of(choice);
            Sibling { sampling, grammar }
        })
        .collect();
    let streams = engine.submit_all(request).unwrap();
    let found = futures::future::join_all(streams.into_iter().map(ids)).await;
    let found: Vec<_> = found.into_iter().map(|(ids, _)| ids).collect();
    assert_eq!(found, expected);
    assert!(
        found.iter().any(|ids| *ids != found[0]),
        "they are all alike"
    );
}

#[tokio::test]
async fn a_dropped_constrained_output_leaves_the_engine_at_rest() {
    let compiler = compiler();
    let (engine, _) = engine(Setup::default());
    for _ in 0..10 {
        let mut stream = engine.submit(constrained(&compiler, 3, None)).unwrap();
        assert!(matches!(stream.recv().await, Some(Event::Started { .. })));
        drop(stream);
    }
    let stream = engine.submit(constrained(&compiler, 3, None)).unwrap();
    assert_eq!(ids(stream).await.1.reason, FinishReason::Stop);
    assert_eq!(engine.stats().running, 0);
}
