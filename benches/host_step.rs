//! One side of `bench/host_step.py` and `bench/architectures.py`: loads the model folder that stdin's first
//! line names, and answers each following line: `step` with the median microseconds of building one decode
//! step's graph, sampling included, without computing any of it; `graph FILE` by writing that graph, up to
//! the logits and the state.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

use std::io::BufRead;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mlxcel::engine::SamplingParams;
use mlxcel::engine::sampler::Sampler;
use mlxcel::engine::sampler::batch::{Turn, sample};
use mlxcel::mlx::{Array, Device};
use mlxcel::models::{LoadOptions, Logits, Model, Row, SequenceState, load, token_ids};

const REPEATS: usize = 201;
/// Tokens that the sequence has before the step.
const PAST: usize = 100;

fn forward(model: &dyn Model, state: &mut SequenceState, tokens: &Array, len: usize) -> Array {
    let logits = Logits::Last;
    let row = Row { len, state, logits };
    model.forward(tokens, &mut [row]).unwrap().unwrap()
}

fn main() {
    let mut lines = std::io::stdin().lock().lines();
    let folder = lines.next().unwrap().unwrap();
    let options = LoadOptions {
        adapter: None,
        device: Device::Cpu,
        available_memory: None,
    };
    let model = load(Path::new(&folder), &options, &mut |_| {}).unwrap();
    let vocab = model.info().vocab_size;
    let past: Vec<u32> = (0..PAST as u32).map(|i| i % vocab as u32).collect();
    let mut state = model.new_state();
    let logits = forward(&*model, &mut state, &token_ids(&past, vocab).unwrap(), PAST);
    let mut arrays = state.arrays();
    arrays.push(&logits);
    Array::eval_all(&arrays).unwrap();

    let greedy = SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    };
    let sampler = Arc::new(Mutex::new(Sampler::new(greedy, &past)));
    // As in a running stream: the token is the last step's choice, not yet known.
    let tokens = token_ids(&[1], vocab).unwrap();
    for line in lines {
        if let Some(file) = line.unwrap().strip_prefix("graph ") {
            let mut state = state.clone();
            let logits = forward(&*model, &mut state, &tokens, 1);
            let mut arrays = state.arrays();
            arrays.push(&logits);
            std::fs::write(file, Array::graph(&arrays).unwrap()).unwrap();
            continue;
        }
        let mut times: Vec<f64> = (0..REPEATS)
            .map(|_| {
                let mut state = state.clone();
                let start = Instant::now();
                let turn = Turn {
                    sampler: sampler.clone(),
                    grammar: None,
                    logprobs: None,
                };
                let logits = forward(&*model, &mut state, &tokens, 1);
                let picks = sample(&logits, vec![turn]).unwrap();
                let mut arrays = state.arrays();
                arrays.push(picks.ids());
                let elapsed = start.elapsed();
                assert!(!arrays.is_empty());
                elapsed.as_secs_f64() * 1e6
            })
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        println!("{}", times[REPEATS / 2]);
    }
}
