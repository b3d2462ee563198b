//! One side of `bench/sampling.py`: reads `rows vocab sampler` lines from stdin, and answers each with
//! the median microseconds of sampling a batch once.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

use std::io::BufRead;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mlxcel::engine::SamplingParams;
use mlxcel::engine::sampler::Sampler;
use mlxcel::engine::sampler::batch::{Turn, sample};
use mlxcel::mlx::Array;

const REPEATS: usize = 21;

fn params(sampler: &str) -> SamplingParams {
    let base = SamplingParams {
        seed: Some(1),
        ..SamplingParams::default()
    };
    match sampler {
        "greedy" => SamplingParams {
            temperature: 0.0,
            ..base
        },
        "temperature" => base,
        "top_k" => SamplingParams { top_k: 40, ..base },
        "top_p" => SamplingParams {
            top_p: 0.95,
            ..base
        },
        "min_p" => SamplingParams {
            min_p: 0.05,
            ..base
        },
        other => panic!("no sampler is called {other}"),
    }
}

/// Bell-shaped logits, the same at each call.
fn logits(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count)
        .map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 3.0)
        .collect()
}

fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [rows, vocab, sampler] = fields[..] else {
            panic!("three fields, not {line:?}");
        };
        let (rows, vocab): (usize, usize) = (rows.parse().unwrap(), vocab.parse().unwrap());
        let values = logits(rows * vocab);
        let logits = Array::from_f32(&values, &[rows as i32, vocab as i32]).unwrap();
        let samplers: Vec<_> = (0..rows)
            .map(|_| Arc::new(Mutex::new(Sampler::new(params(sampler), &[]))))
            .collect();
        let mut times: Vec<f64> = (0..REPEATS)
            .map(|_| {
                let start = Instant::now();
                let turn = |sampler: &Arc<Mutex<Sampler>>| Turn {
                    sampler: sampler.clone(),
                    grammar: None,
                    logprobs: None,
                };
                let picks = sample(&logits, samplers.iter().map(turn).collect()).unwrap();
                picks.wait().unwrap();
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        println!("{}", times[REPEATS / 2]);
    }
}
