//! The engine with a model of the tests' own: every kind of state, and faults by force.

mod constrained;
mod model;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;

pub(crate) use self::model::FAILS;
use self::model::{Hybrid, PANICS};
use super::start::{StartError, spawn};
use super::worker::Capacity;
use super::{
    CacheSalt, EngineError, EngineHandle, Event, Finish, Request, SamplingParams, TokenStream,
};
use crate::mlx::Device;
use crate::models::Model;

/// What one token and its logprob came to.
type Tokens = Vec<(u32, u32)>;

/// Tokens for longer than a slow machine stalls.
const CONTEXT: usize = 20_000;

struct Setup {
    places: usize,
    kv_bytes: u64,
    prefix_cache: bool,
    /// Counts the model's passes.
    passes: Arc<AtomicUsize>,
    /// While it is locked, no pass begins.
    gate: Arc<Mutex<()>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            places: 4,
            kv_bytes: 1 << 20,
            prefix_cache: true,
            passes: Arc::default(),
            gate: Arc::default(),
        }
    }
}

/// An engine, and the switch that ends its thread at the next request.
fn engine(setup: Setup) -> (EngineHandle, Arc<AtomicBool>) {
    let deadly = Arc::new(AtomicBool::new(false));
    let switch = deadly.clone();
    let load = move || -> Result<(Box<dyn Model>, Capacity), StartError> {
        Device::Cpu.make_default()?;
        let capacity = Capacity {
            device: Device::Cpu,
            context: CONTEXT,
            places: setup.places,
            kv_bytes: setup.kv_bytes,
            prefix_cache: setup.prefix_cache.then_some(setup.kv_bytes),
        };
        Ok((
            Box::new(Hybrid::new(switch, setup.passes, setup.gate)?),
            capacity,
        ))
    };
    (spawn(64, load).unwrap(), deadly)
}

/// An engine, and what makes its thread die.
pub(crate) fn mortal() -> (EngineHandle, impl FnOnce()) {
    let (engine, deadly) = engine(Setup::default());
    let handle = engine.clone();
    let die = move || {
        deadly.store(true, Ordering::Release);
        let request = handle.submit(request(&[1], 1));
        assert!(request.is_ok(), "it is dead already");
    };
    (engine, die)
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens: Some(max_tokens),
        sampling: SamplingParams {
            seed: Some(prompt.len() as u64),
            ..SamplingParams::default()
        },
        logprobs: Some(1),
        prompt_logprobs: None,
        stop_tokens: Vec::new(),
        grammar: None,
        cache_salt: None,
        deadline: None,
        siblings: Vec::new(),
    }
}

/// Tokens that force no fault.
fn prompt(seed: u32, len: u32) -> Vec<u32> {
    (0..len)
        .map(|i| (i * 7 + i * i * seed + seed) % 40)
        .collect()
}

/// The forced faults are not the sampler's to choose.
fn safe(mut request: Request) -> Request {
    request.sampling.logit_bias = vec![(FAILS, -1e9), (PANICS, -1e9)];
    request
}

async fn collect(mut stream: TokenStream) -> Result<(Tokens, Finish), EngineError> {
    let mut tokens = Vec::new();
    while let Some(event) = stream.recv().await {
        match event {
            Event::Started { .. } | Event::Prompt(_) => {}
            Event::Token(token) => {
                let logprob = token.logprobs.unwrap().logprob;
                tokens.push((token.id, logprob.to_bits()));
            }
            Event::Finished(finish) => return Ok((tokens, finish)),
            Event::Failed(error) => return Err(error),
        }
    }
    panic!("the stream ended without an end");
}

async fn run(engine: &EngineHandle, prompt: &[u32], count: usize) -> (Tokens, Finish) {
    collect(engine.submit(safe(request(prompt, count))).unwrap())
        .await
        .unwrap()
}

/// Prompts as clients send them: repeated, continued, parting in the middle, unrelated.
fn dialogue() -> Vec<Vec<u32>> {
    let first = prompt(3, 700);
    let parted = [&first[..300], &prompt(9, 50)].concat();
    let longer = [&first[..], &prompt(5, 40)].concat();
    vec![
        first.clone(),
        first.clone(),
        parted,
        longer.clone(),
        prompt(11, 90),
        [&longer[..], &prompt(6, 300)].concat(),
        first[..1].to_vec(),
    ]
}

#[tokio::test]
async fn a_hit_gives_the_tokens_of_a_miss_whatever_the_layers_keep() {
    let (cold, _) = engine(Setup {
        prefix_cache: false,
        ..Setup::default()
    });
    let (warm, _) = engine(Setup::default());
    let mut cached = Vec::new();
    for prompt in dialogue() {
        let (expected, finish) = run(&cold, &prompt, 20).await;
        assert_eq!(finish.cached_tokens, 0);
        let (found, finish) = run(&warm, &prompt, 20).await;
        assert_eq!(found, expected, "a prompt of {}", prompt.len());
        cached.push(finish.cached_tokens);
    }
    // At the last mark before the end; at a regular one; at the end of the prompt.
    assert_eq!(cached, [0, 672, 256, 700, 0, 740, 0]);
    let stats = warm.stats();
    assert_eq!(stats.cached_tokens, cached.iter().sum::<usize>() as u64);
    assert!(stats.cache_bytes > 0 && stats.cache_bytes <= stats.kv_budget);
    assert_eq!(cold.stats().cache_bytes, 0);
}

#[tokio::test]
async fn where_prompts_part_the_third_goes_on() {
    let (engine, _) = engine(Setup::default());
    let beginning = prompt(3, 1000);
    let mut cached = Vec::new();
    for seed in 4..8 {
        let prompt = [&beginning[..], &prompt(seed, 60)].concat();
        cached.push(run(&engine, &prompt, 3).await.1.cached_tokens);
    }
    // At a regular mark; from then on at the place where the first two parted.
    let shared = 1000;
    assert_eq!(cached, [0, 768, shared, shared]);
}

#[tokio::test]
async fn an_answer_can_be_continued_from_the_cache() {
    let (engine, _) = engine(Setup::default());
    let first = prompt(3, 100);
    let (answer, _) = run(&engine, &first, 30).await;
    let answer = answer.iter().map(|(id, _)| *id);
    let next: Vec<u32> = first
        .iter()
        .copied()
        .chain(answer)
        .chain(prompt(4, 10))
        .collect();
    // The last token of the answer was never computed.
    assert_eq!(run(&engine, &next, 5).await.1.cached_tokens, 129);
}

#[tokio::test]
async fn salts_keep_requests_apart() {
    let (engine, _) = engine(Setup::default());
    let salted = |salt: Option<CacheSalt>| {
        let mut request = safe(request(&prompt(3, 200), 3));
        request.cache_salt = salt;
        engine.submit(request).unwrap()
    };
    for (salt, cached) in [
        (None, 0),
        (Some([1; 32]), 0),
        (Some([2; 32]), 0),
        (Some([1; 32]), 192),
        (None, 192),
    ] {
        let (_, finish) = collect(salted(salt)).await.unwrap();
        assert_eq!(finish.cached_tokens, cached, "{salt:?}");
    }
}

#[tokio::test]
async fn requests_that_begin_alike_compute_it_once() {
    let (engine, _) = engine(Setup::default());
    let prompt = prompt(3, 900);
    let streams: Vec<_> = (0..4)
        .map(|_| engine.submit(safe(request(&prompt, 10))).unwrap())
        .collect();
    let all = futures::future::join_all(streams.into_iter().map(collect)).await;
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert!(all.iter().all(|(tokens, _)| *tokens == all[0].0));
    let cached: Vec<_> = all.iter().map(|(_, finish)| finish.cached_tokens).collect();
    assert_eq!(cached, [0, 864, 864, 864]);
    assert_eq!(engine.stats().prompt_tokens, 900 + 3 * 36);
}

#[tokio::test]
async fn a_place_is_given_to_the_next_before_its_end_is_told() {
    let gate = Arc::new(Mutex::new(()));
    let (engine, _) = engine(Setup {
        places: 2,
        gate: gate.clone(),
        ..Setup::default()
    });
    let closed = gate.lock().unwrap();
    let submit = |seed, count| engine.submit(safe(request(&prompt(seed, 5), count)));
    let _stays = submit(1, 1000).unwrap();
    let ends = submit(2, 20).unwrap();
    let mut waits = submit(3, 10).unwrap();
    drop(closed);
    collect(ends).await.unwrap();
    let first = waits.recv().now_or_never().flatten();
    assert!(matches!(first, Some(Event::Started { .. })), "{first:?}");
}

#[tokio::test]
async fn with_little_memory_requests_wait_or_start_again_and_nobody_can_tell() {
    let (plenty, _) = engine(Setup {
        places: 1,
        prefix_cache: false,
        ..Setup::default()
    });
    let prompts: Vec<Vec<u32>> = (0..10).map(|seed| prompt(seed, 200 + 20 * seed)).collect();
    let mut alone = Vec::new();
    for prompt in &prompts {
        alone.push(run(&plenty, prompt, 300).await.0);
    }
    for prefix_cache in [false, true] {
        // Room for about three of them at their ends.
        let (tight, _) = engine(Setup {
            places: 8,
            kv_bytes: 10 * 256 * 32,
            prefix_cache,
            ..Setup::default()
        });
        let streams: Vec<_> = prompts
            .iter()
            .map(|prompt| tight.submit(safe(request(prompt, 300))).unwrap())
            .collect();
        let watch = tight.clone();
        let watch = tokio::spawn(async move {
            while watch.stats().running + watch.stats().waiting > 0 {
                let stats = watch.stats();
                assert!(stats.kv_bytes <= stats.kv_budget, "{stats:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let together = futures::future::join_all(streams.into_iter().map(collect)).await;
        for (together, alone) in together.into_iter().zip(&alone) {
            assert_eq!(together.unwrap().0, *alone);
        }
        assert!(tight.stats().preemptions > 0, "nobody was preempted");
        watch.await.unwrap();
    }
}

#[tokio::test]
async fn a_fault_fails_its_step_and_the_engine_goes_on() {
    for fault in [FAILS, PANICS] {
        let (engine, _) = engine(Setup::default());
        let before = run(&engine, &prompt(3, 50), 8).await.0;
        let mut company = engine
            .submit(safe(request(&prompt(8, 10), CONTEXT)))
            .unwrap();
        assert!(matches!(company.recv().await, Some(Event::Started { .. })));
        let faulty = collect(engine.submit(request(&[1, fault, 2], 5)).unwrap()).await;
        let error = faulty.unwrap_err();
        assert!(matches!(error, EngineError::Compute(_)), "{error:?}");
        // It was in the same step.
        assert_eq!(collect(company).await.unwrap_err(), error);
        assert_eq!(run(&engine, &prompt(3, 50), 8).await.0, before);
        assert_eq!(engine.stats().running, 0);
    }
}

#[tokio::test]
async fn the_end_of_the_thread_is_told() {
    let (engine, deadly) = engine(Setup::default());
    let mut running = engine
        .submit(safe(request(&prompt(8, 10), CONTEXT)))
        .unwrap();
    assert!(matches!(running.recv().await, Some(Event::Started { .. })));
    deadly.store(true, Ordering::Release);
    let last = engine.submit(request(&[1], 1)).unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(20), engine.closed()).await;
    assert!(reason.unwrap().contains("panicked"));
    // Nobody waits for ever.
    for mut stream in [running, last] {
        while stream.recv().await.is_some() {}
    }
    assert_eq!(
        engine.submit(request(&[1], 1)).err(),
        Some(EngineError::ShuttingDown)
    );
}

#[tokio::test]
async fn a_deadline_ends_a_request_that_runs_or_waits() {
    let (engine, _) = engine(Setup {
        places: 1,
        ..Setup::default()
    });
    let until = |millis| {
        let mut request = safe(request(&prompt(8, 10), CONTEXT));
        request.deadline = Some(Instant::now() + Duration::from_millis(millis));
        request
    };
    let running = engine.submit(until(200)).unwrap();
    let waiting = engine.submit(until(100)).unwrap();
    for stream in [waiting, running] {
        assert_eq!(
            collect(stream).await.unwrap_err(),
            EngineError::DeadlineExceeded
        );
    }
    assert_eq!(run(&engine, &prompt(3, 50), 3).await.0.len(), 3);
}
