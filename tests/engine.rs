//! The engine with the built-in model: the same tokens in any company.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ops::Deref;
use std::path::Path;
use std::time::{Duration, Instant};

use mlxcel::engine::{
    EngineError, EngineHandle, EngineOptions, Event, Finish, FinishReason, Request, SamplingParams,
    Sibling, Token, TokenLogprobs, TokenStream, start,
};
use mlxcel::models::KvFormat;

fn options() -> EngineOptions {
    EngineOptions {
        model_dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny"),
        adapter: None,
        device: None,
        ctx_size: None,
        n_parallel: 4,
        queue_size: 8,
        kv_format: KvFormat::default(),
        max_kv_size: None,
        kv_cache_budget: None,
        prefix_cache: true,
        force: false,
        warmup: false,
    }
}

/// An engine whose thread has ended when the test has: at the end of the process MLX's own state is
/// taken down, and an array freed after that would crash it.
struct Engine(Option<EngineHandle>);

impl Engine {
    fn start(options: EngineOptions) -> Self {
        Self(Some(start(options, |_| {}).unwrap()))
    }
}

impl Deref for Engine {
    type Target = EngineHandle;

    fn deref(&self) -> &EngineHandle {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(engine) = self.0.take() {
            engine.close();
        }
    }
}

fn engine() -> Engine {
    Engine::start(options())
}

/// A prompt of token ids; what it says does not matter here.
fn request(seed: u64, prompt: usize, max_tokens: usize) -> Request {
    let prompt = (0..prompt)
        .map(|i| 40 + ((i as u64 * 7 + seed * 13) % 500) as u32)
        .collect();
    Request {
        prompt,
        max_tokens: Some(max_tokens),
        sampling: SamplingParams {
            seed: Some(seed),
            ..SamplingParams::default()
        },
        logprobs: Some(2),
        prompt_logprobs: None,
        stop_tokens: Vec::new(),
        grammar: None,
        siblings: Vec::new(),
        cache_salt: None,
        deadline: None,
    }
}

async fn collect(mut stream: TokenStream) -> (Vec<(u32, u32)>, Finish) {
    let mut tokens = Vec::new();
    while let Some(event) = stream.recv().await {
        match event {
            Event::Started { .. } | Event::Prompt(_) => assert!(tokens.is_empty()),
            Event::Token(token) => {
                let logprob = token.logprobs.unwrap().logprob;
                tokens.push((token.id, logprob.to_bits()));
            }
            Event::Finished(finish) => return (tokens, finish),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    panic!("the stream ended without an end");
}

/// Waits until the engine has nothing to do.
async fn idle(engine: &EngineHandle) {
    let start = Instant::now();
    while engine.stats().running + engine.stats().waiting > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            engine.stats()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn tokens_and_logprobs_are_the_same_alone_and_in_company() {
    let engine = engine();
    let lengths = [3, 300, 40, 700, 1, 17];
    let mut alone = Vec::new();
    for (seed, &length) in lengths.iter().enumerate() {
        let request = request(seed as u64, length, 24);
        alone.push(collect(engine.submit(request).unwrap()).await.0);
    }
    let streams: Vec<_> = lengths
        .iter()
        .enumerate()
        .map(|(seed, &length)| engine.submit(request(seed as u64, length, 24)).unwrap())
        .collect();
    let together: Vec<_> = futures::future::join_all(streams.into_iter().map(collect)).await;
    for (alone, (tokens, finish)) in alone.iter().zip(&together) {
        assert_eq!(alone, tokens);
        assert_eq!(finish.reason, FinishReason::Length);
        assert_eq!(finish.completion_tokens, 24);
    }
    assert_eq!(together[3].1.prompt_tokens, 700);
}

/// Sixteen requests that share prompts in part, come at their own times and partly leave early,
/// in an engine whose memory does not suffice for all of them.
#[tokio::test]
async fn sixteen_in_company_get_what_each_gets_alone() {
    let bytes_per_token = {
        let info = engine().model().clone();
        info.state.bytes(256) / 256
    };
    let requests: Vec<(u64, usize)> = (0..16).map(|i| (i / 3, 10 + 15 * i as usize)).collect();
    let alone_engine = Engine::start(EngineOptions {
        prefix_cache: false,
        ..options()
    });
    let mut alone = Vec::new();
    for &(seed, length) in &requests {
        let stream = alone_engine.submit(request(seed, length, 10)).unwrap();
        alone.push(collect(stream).await.0);
    }
    assert_eq!(alone_engine.stats().cached_tokens, 0);

    for prefix_cache in [true, false] {
        let engine = Engine::start(EngineOptions {
            n_parallel: 16,
            queue_size: 32,
            ctx_size: Some(512),
            kv_cache_budget: Some(12 * 256 * bytes_per_token),
            prefix_cache,
            ..options()
        });
        let mut company = Vec::new();
        for &(seed, length) in &requests {
            let stream = engine.submit(request(seed, length, 10)).unwrap();
            company.push(tokio::spawn(collect(stream)));
            // Joins, and leaves after a while: a stream that is dropped in the middle.
            let mut leaves = engine.submit(request(seed + 50, 60, 60)).unwrap();
            tokio::spawn(async move {
                for _ in 0..length / 10 {
                    leaves.recv().await;
                }
            });
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        for (stream, alone) in company.into_iter().zip(&alone) {
            assert_eq!(stream.await.unwrap().0, *alone);
        }
        let stats = engine.stats();
        assert_eq!(stats.cached_tokens > 0, prefix_cache, "{stats:?}");
        idle(&engine).await;
    }
}

#[tokio::test]
async fn a_prompt_seen_before_is_not_computed_again() {
    let engine = engine();
    let (first, finish) = collect(engine.submit(request(1, 500, 8)).unwrap()).await;
    assert_eq!((finish.prompt_tokens, finish.cached_tokens), (500, 0));
    assert_eq!(engine.stats().prompt_tokens, 500);
    let mut stream = engine.submit(request(1, 500, 8)).unwrap();
    let Some(Event::Started { cached_tokens, .. }) = stream.recv().await else {
        panic!("it did not start");
    };
    let (again, finish) = collect(stream).await;
    assert_eq!((cached_tokens, finish.cached_tokens), (499, 499));
    assert_eq!(again, first);
    assert_eq!(engine.stats().prompt_tokens, 501);
    assert_eq!(engine.stats().cached_tokens, 499);
}

#[tokio::test]
async fn a_dropped_stream_frees_its_place() {
    let engine = engine();
    let mut stream = engine.submit(request(1, 10, 100_000)).unwrap();
    assert!(matches!(stream.recv().await, Some(Event::Started { .. })));
    assert!(matches!(stream.recv().await, Some(Event::Token(_))));
    assert_eq!(engine.stats().running, 1);
    drop(stream);
    idle(&engine).await;
    let made = engine.stats().completion_tokens;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(engine.stats().completion_tokens, made);
}

#[tokio::test]
async fn a_stop_token_ends_without_being_sent() {
    let engine = engine();
    let (tokens, _) = collect(engine.submit(request(5, 10, 8)).unwrap()).await;
    let stop = tokens[3].0;
    let first = tokens.iter().position(|token| token.0 == stop).unwrap();
    let request = Request {
        stop_tokens: vec![stop],
        ..request(5, 10, 8)
    };
    let (stopped, finish) = collect(engine.submit(request).unwrap()).await;
    assert_eq!(stopped, tokens[..first]);
    assert_eq!(finish.reason, FinishReason::Stop);
    assert_eq!(finish.completion_tokens, first + 1);
}

#[tokio::test]
async fn a_full_queue_and_a_long_prompt_are_refused() {
    let engine = engine();
    let context = engine.context_length();
    let error = engine.submit(request(1, context, 1)).err().unwrap();
    assert_eq!(
        error,
        EngineError::ContextExceeded {
            prompt: context,
            context
        }
    );

    let streams: Vec<_> = (0..12)
        .map(|seed| engine.submit(request(seed, 10, 100_000)).unwrap())
        .collect();
    assert!(matches!(
        engine.submit(request(1, 10, 1)).err(),
        Some(EngineError::QueueFull(_))
    ));
    drop(streams);
    idle(&engine).await;
    collect(engine.submit(request(1, 10, 1)).unwrap()).await;

    engine.drain();
    assert_eq!(
        engine.submit(request(1, 10, 1)).err(),
        Some(EngineError::ShuttingDown)
    );
}

#[tokio::test]
async fn the_context_ends_a_generation() {
    let engine = Engine::start(EngineOptions {
        ctx_size: Some(32),
        ..options()
    });
    let request = Request {
        max_tokens: None,
        ..request(1, 20, 0)
    };
    let (tokens, finish) = collect(engine.submit(request).unwrap()).await;
    assert_eq!(tokens.len(), 12);
    assert_eq!(finish.reason, FinishReason::Length);
}

#[tokio::test]
async fn a_prompt_that_cannot_be_is_refused() {
    let engine = engine();
    let vocab = engine.model().vocab_size;
    let beyond = Request {
        prompt: vec![1, vocab as u32],
        ..request(1, 1, 1)
    };
    let error = engine.submit(beyond).err();
    assert_eq!(
        error,
        Some(EngineError::UnknownToken {
            token: vocab as u32,
            vocab
        })
    );
    assert_eq!(
        engine.submit(request(1, 0, 1)).err(),
        Some(EngineError::EmptyPrompt)
    );
}

/// A request for `count` outputs of one prompt.
fn several(seed: u64, prompt: usize, max_tokens: usize, count: u64) -> Request {
    let base = request(seed, prompt, max_tokens);
    let sibling = |choice| Sibling {
        sampling: SamplingParams {
            choice,
            ..base.sampling.clone()
        },
        grammar: None,
    };
    Request {
        siblings: (1..count).map(sibling).collect(),
        ..request(seed, prompt, max_tokens)
    }
}

#[tokio::test]
async fn outputs_of_one_prompt_share_its_computation_and_are_what_each_would_be_alone() {
    let engine = engine();
    let before = engine.stats().prompt_tokens;
    // More than there are places for.
    let streams = engine.submit_all(several(9, 300, 12, 6)).unwrap();
    let together = futures::future::join_all(streams.into_iter().map(collect)).await;
    assert_eq!(engine.stats().prompt_tokens - before, 300);
    idle(&engine).await;
    assert_eq!(
        (together[0].1.cached_tokens, together[1].1.cached_tokens),
        (0, 300)
    );
    for (choice, (tokens, finish)) in together.iter().enumerate() {
        let mut alone = request(9, 300, 12);
        alone.sampling.choice = choice as u64;
        let (want, _) = collect(engine.submit(alone).unwrap()).await;
        assert_eq!(*tokens, want, "choice {choice}");
        assert_eq!(finish.completion_tokens, 12);
    }
    assert_ne!(together[0].0, together[1].0, "choices are independent");
}

#[tokio::test]
async fn outputs_go_on_when_another_of_the_same_prompt_is_dropped() {
    let engine = engine();
    let want = collect(engine.submit(request(3, 700, 8)).unwrap()).await.0;
    for dropped in [0, 1] {
        let mut request = several(3, 700, 8, 3);
        for sibling in &mut request.siblings {
            sibling.sampling.choice = 0;
        }
        let mut streams = engine.submit_all(request).unwrap();
        drop(streams.remove(dropped));
        for stream in streams {
            assert_eq!(collect(stream).await.0, want);
        }
        idle(&engine).await;
    }
    let streams = engine.submit_all(several(3, 700, 1000, 3)).unwrap();
    drop(streams);
    idle(&engine).await;
}

#[tokio::test]
async fn a_request_for_more_outputs_than_the_queue_holds_never_starts() {
    let engine = engine();
    let error = engine.submit_all(several(1, 10, 1, 13)).err().unwrap();
    assert_eq!(error, EngineError::QueueFull(0));
    assert_eq!(engine.stats().waiting, 0);
    let streams = engine.submit_all(several(1, 10, 1, 12)).unwrap();
    futures::future::join_all(streams.into_iter().map(collect)).await;
    idle(&engine).await;
}

/// The events of an output, by kind.
async fn events(mut stream: TokenStream) -> (Option<Vec<TokenLogprobs>>, Vec<Token>, Finish) {
    let (mut prompt, mut tokens) = (None, Vec::new());
    while let Some(event) = stream.recv().await {
        match event {
            Event::Started { .. } => {}
            Event::Prompt(logprobs) => prompt = Some(logprobs),
            Event::Token(token) => tokens.push(token),
            Event::Finished(finish) => return (prompt, tokens, finish),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    panic!("the stream ended without an end");
}

#[tokio::test]
async fn a_prompts_logprobs_are_what_the_model_expected_as_it_was_generated() {
    let engine = engine();
    let greedy = SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    };
    let first = Request {
        sampling: greedy.clone(),
        ..request(2, 20, 40)
    };
    let mut prompt = first.prompt.clone();
    let (_, generated, _) = events(engine.submit(first).unwrap()).await;
    prompt.extend(generated.iter().map(|token| token.id));
    let again = Request {
        prompt,
        sampling: greedy,
        prompt_logprobs: Some(2),
        siblings: several(2, 1, 1, 2).siblings,
        ..request(2, 1, 1)
    };
    for stream in engine.submit_all(again).unwrap() {
        let (logprobs, _, finish) = events(stream).await;
        let logprobs = logprobs.unwrap();
        assert_eq!(logprobs.len() + 1, finish.prompt_tokens);
        for (token, read) in generated.iter().zip(&logprobs[19..]) {
            let made = token.logprobs.as_ref().unwrap();
            assert!(
                (made.logprob - read.logprob).abs() < 1e-4,
                "{made:?} {read:?}"
            );
            assert_eq!(made.top[0].0, read.top[0].0);
        }
    }
}

#[tokio::test]
async fn a_prompt_alone_can_be_asked_for() {
    let engine = engine();
    let request = Request {
        prompt_logprobs: Some(0),
        ..several(2, 300, 0, 2)
    };
    for stream in engine.submit_all(request).unwrap() {
        let (logprobs, tokens, finish) = events(stream).await;
        assert_eq!((logprobs.unwrap().len(), tokens.len()), (299, 0));
        assert_eq!(finish.reason, FinishReason::Length);
        assert_eq!(finish.completion_tokens, 0);
    }
    let (logprobs, tokens, _) = events(engine.submit(several(2, 1, 0, 1)).unwrap()).await;
    assert_eq!((logprobs, tokens.len()), (None, 0));
    idle(&engine).await;
}
