//! Our kernels for what is not a product, against plain arithmetic in float64, with every instruction
//! set that this machine has. A test of its own, since the instruction set belongs to the process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Mutex, MutexGuard};

use mlxcel::mlx::fast::{Scores, attention, layer_norm};
use mlxcel::mlx::kernels::Isa;
use mlxcel::mlx::{Activation, Array, Device};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

static TURN: Mutex<()> = Mutex::new(());

fn on_every_isa(check: impl Fn()) {
    let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Device::Cpu.make_default().unwrap();
    for isa in Isa::available() {
        isa.choose().unwrap();
        check();
    }
    Isa::available()[0].choose().unwrap();
}

fn random(seed: u64, len: usize, size: f32) -> Vec<f32> {
    let mut generator = SmallRng::seed_from_u64(seed);
    (0..len)
        .map(|_| generator.random_range(-size..size))
        .collect()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], within: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&a, &b)) in found.iter().zip(expected).enumerate() {
        let far = (f64::from(a) - b).abs();
        assert!(far <= within * b.abs().max(1.0), "{i}: {a} is not {b}");
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function, by its series where that is exact enough and else by its limit.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn activations_are_the_functions_they_are_named_for() {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    let functions: [(Activation, &dyn Fn(f64) -> f64); 5] = [
        (Activation::Silu, &|x| x * sigmoid(x)),
        (Activation::Gelu, &|x| {
            x * 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
        }),
        (Activation::GeluTanh, &|x| {
            x * 0.5 * (1.0 + (root * (x + 0.044_715 * x.powi(3))).tanh())
        }),
        (Activation::ReluSquared, &|x| x.max(0.0).powi(2)),
        (Activation::Sigmoid, &sigmoid),
    ];
    on_every_isa(|| {
        let mut x = random(1, 1000, 9.0);
        x.extend([0.0, -0.0, 1e-6, -1e-6, 40.0, -40.0, 200.0, -200.0]);
        let up = random(2, x.len(), 2.0);
        let length = x.len() as i32;
        let array = |values: &[f32]| Array::from_f32(values, &[length]).unwrap();
        for (activation, function) in functions {
            let expected: Vec<f64> = x.iter().map(|&x| function(f64::from(x))).collect();
            let found = array(&x).activate(activation).unwrap();
            assert_close(&found.to_vec_f32().unwrap(), &expected, 1e-6);
            let gated = array(&x).activate_times(activation, &array(&up)).unwrap();
            let expected: Vec<f64> = expected
                .iter()
                .zip(&up)
                .map(|(&opened, &up)| opened * f64::from(up))
                .collect();
            assert_close(&gated.to_vec_f32().unwrap(), &expected, 1e-6);
        }
        let capped = array(&x).soft_cap(30.0).unwrap();
        let expected: Vec<f64> = x
            .iter()
            .map(|&x| 30.0 * (f64::from(x) / 30.0).tanh())
            .collect();
        assert_close(&capped.to_vec_f32().unwrap(), &expected, 4e-6);
    });
}

#[test]
fn layers_are_normalized_by_mean_and_variance() {
    on_every_isa(|| {
        for size in [1, 3, 16, 37, 128, 257] {
            let x: Vec<f32> = random(3, 4 * size, 2.0).iter().map(|x| x + 1.0).collect();
            let (weight, bias) = (random(4, size, 1.0), random(5, size, 1.0));
            let mut expected = Vec::new();
            for row in x.chunks(size) {
                let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
                let mean = row.iter().sum::<f64>() / size as f64;
                let spread = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
                expected.extend((0..size).map(|i| {
                    (row[i] - mean) / (spread + 1e-5).sqrt() * f64::from(weight[i])
                        + f64::from(bias[i])
                }));
            }
            let features = size as i32;
            let weight = Array::from_f32(&weight, &[features]).unwrap();
            let bias = Array::from_f32(&bias, &[features]).unwrap();
            let x = Array::from_f32(&x, &[4, features]).unwrap();
            let found = layer_norm(&x, &weight, Some(&bias), 1e-5).unwrap();
            assert_close(&found.to_vec_f32().unwrap(), &expected, 2e-5);
        }
    });
}

/// `[1, heads, seq, dim]` by the definition.
fn attend(case: &Case, q: &[f32], k: &[f32], v: &[f32], sinks: Option<&[f32]>) -> Vec<f64> {
    let Case {
        heads,
        kv_heads,
        seq,
        total,
        dim,
        window,
        cap,
    } = *case;
    let mut out = Vec::new();
    for head in 0..heads {
        let kv = head / (heads / kv_heads);
        for s in 0..seq {
            let place = total - seq + s;
            let first = window.map_or(0, |window| (place + 1).saturating_sub(window));
            let query = &q[(head * seq + s) * dim..][..dim];
            let score = |t: usize| {
                let key = &k[(kv * total + t) * dim..][..dim];
                let dot: f64 = query
                    .iter()
                    .zip(key)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum();
                let score = dot / (dim as f64).sqrt();
                cap.map_or(score, |cap: f32| {
                    f64::from(cap) * (score / f64::from(cap)).tanh()
                })
            };
            let weights: Vec<f64> = (first..=place).map(|t| score(t).exp()).collect();
            let sink = sinks.map_or(0.0, |sinks| f64::from(sinks[head]).exp());
            let all = weights.iter().sum::<f64>() + sink;
            out.extend((0..dim).map(|d| {
                let value =
                    |(i, w): (usize, &f64)| w * f64::from(v[(kv * total + first + i) * dim + d]);
                weights.iter().enumerate().map(value).sum::<f64>() / all
            }));
        }
    }
    out
}

#[derive(Clone, Copy)]
struct Case {
    heads: usize,
    kv_heads: usize,
    seq: usize,
    total: usize,
    dim: usize,
    window: Option<usize>,
    cap: Option<f32>,
}

#[test]
fn attention_sees_its_window_under_a_cap_and_beside_a_sink() {
    on_every_isa(|| {
        let mut seed = 10;
        for (seq, total) in [(1, 1), (1, 300), (5, 5), (40, 700), (300, 300)] {
            for window in [None, Some(1), Some(7), Some(256), Some(400)] {
                for (cap, sunk) in [(None, false), (Some(2.0), false), (None, true)] {
                    let case = Case {
                        heads: 4,
                        kv_heads: 2,
                        seq,
                        total,
                        dim: 20,
                        window,
                        cap,
                    };
                    seed += 4;
                    let shape = |heads: usize, length: usize| {
                        [1, heads as i32, length as i32, case.dim as i32]
                    };
                    let q = random(seed, 4 * seq * case.dim, 3.0);
                    let k = random(seed + 1, 2 * total * case.dim, 3.0);
                    let v = random(seed + 2, 2 * total * case.dim, 1.0);
                    let sinks = random(seed + 3, 4, 3.0);
                    let sinks = sunk.then_some(sinks.as_slice());
                    let scores = Scores {
                        soft_cap: cap,
                        window: window.map(|window| window as i32),
                        sinks: sinks.map(|sinks| Array::from_f32(sinks, &[4]).unwrap()),
                        ..Scores::plain(case.dim as i32)
                    };
                    let found = attention(
                        &Array::from_f32(&q, &shape(4, seq)).unwrap(),
                        &Array::from_f32(&k, &shape(2, total)).unwrap(),
                        &Array::from_f32(&v, &shape(2, total)).unwrap(),
                        &scores,
                    );
                    let expected = attend(&case, &q, &k, &v, sinks);
                    assert_close(&found.unwrap().to_vec_f32().unwrap(), &expected, 2e-5);
                }
            }
        }
    });
}
