//! Layers with a carried state against the formulas, token by token in double precision: our kernels
//! under every instruction set of this machine, and the graph of MLX's operations that other devices
//! run.
//!
//! The instruction set belongs to the process: a lock lets one test at a time choose it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use mlxcel::mlx::kernels::{Isa, set_threads};
use mlxcel::mlx::recurrent::{Carried, GatedNorm, Recurrence, RecurrentHeads, ShortConv};
use mlxcel::mlx::{Array, Device, Dtype, Memory};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

static TURN: Mutex<()> = Mutex::new(());

/// Calls `check` under every instruction set of this machine with `cases` values of `strategy`.
fn on_every_isa<S: Strategy>(cases: u32, strategy: S, check: impl Fn(S::Value) -> TestCaseResult) {
    let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Device::Cpu.make_default().unwrap();
    for isa in Isa::available() {
        isa.choose().unwrap();
        let mut runner = TestRunner::new(Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        });
        if let Err(error) = runner.run(&strategy, &check) {
            panic!("{}: {error}", isa.name());
        }
    }
    Isa::available()[0].choose().unwrap();
}

/// Numbers that bfloat16 has too, so that both types see the same ones.
fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut generator = SmallRng::seed_from_u64(seed);
    (0..len)
        .map(|_| half::bf16::from_f32(generator.random_range(-1.0..1.0)).to_f32())
        .collect()
}

fn matrix(values: &[f32], rows: usize) -> Array {
    Array::from_f32(values, &[rows as i32, (values.len() / rows) as i32]).unwrap()
}

fn vector(values: &[f32]) -> Array {
    Array::from_f32(values, &[values.len() as i32]).unwrap()
}

fn values(array: &Array) -> Vec<f32> {
    array.to_vec_f32().unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn close(found: &[f32], expected: &[f64], tolerance: f64) -> TestCaseResult {
    prop_assert_eq!(found.len(), expected.len());
    for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let far = (f64::from(found) - expected).abs();
        if far > tolerance * (1.0 + expected.abs()) {
            let message = format!("{found} instead of {expected} at {place}");
            return Err(TestCaseError::fail(message));
        }
    }
    Ok(())
}

/// A layer of the test's own choice: what it computes from the rows' tokens and states.
trait Layer {
    /// Numbers of a token, of all that the layer reads.
    fn width(&self) -> usize;
    /// Shape of a state.
    fn state(&self) -> Vec<i32>;
    /// `tokens` is `[tokens, width]`.
    fn forward(&self, tokens: &Array, carried: Carried<'_>) -> (Array, Vec<Array>);
    /// One sequence from its beginning, `tokens` being `[len, width]`.
    fn expected(&self, tokens: &[f32]) -> Vec<f64>;

    fn zeros(&self) -> Array {
        Array::zeros(&self.state(), Dtype::Float32).unwrap()
    }

    /// Advances each state by the tokens of its own row; what comes out for each.
    fn step(&self, states: &mut [Array], rows: &[&[f32]]) -> Vec<Vec<f32>> {
        let lengths: Vec<i32> = rows
            .iter()
            .map(|row| (row.len() / self.width()) as i32)
            .collect();
        let total: i32 = lengths.iter().sum();
        let tokens = matrix(&rows.concat(), total as usize);
        let before: Vec<&Array> = states.iter().collect();
        let (out, after) = self.forward(
            &tokens,
            Carried {
                states: &before,
                lengths: &lengths,
            },
        );
        states.clone_from_slice(&after);
        let out = values(&out);
        let width = out.len() / total as usize;
        let mut rest = &out[..];
        lengths
            .iter()
            .map(|&length| {
                let (row, others) = rest.split_at(length as usize * width);
                rest = others;
                row.to_vec()
            })
            .collect()
    }
}

/// The features `range` of every token.
fn columns(tokens: &Array, range: Range<usize>) -> Array {
    let (start, stop) = (range.start as i32, range.end as i32);
    tokens.slice(&[0, start], &[tokens.dim(0), stop]).unwrap()
}

#[derive(Debug)]
struct Conv {
    features: usize,
    taps: usize,
    bias: bool,
    silu: bool,
}

impl Conv {
    fn weights(&self) -> Vec<f32> {
        random(1, self.features * self.taps)
    }
}

impl Layer for Conv {
    /// One feature more than are convolved: the layer sees a part of something wider.
    fn width(&self) -> usize {
        self.features + 1
    }

    fn state(&self) -> Vec<i32> {
        vec![self.taps as i32 - 1, self.features as i32]
    }

    fn forward(&self, tokens: &Array, carried: Carried<'_>) -> (Array, Vec<Array>) {
        let bias = self.bias.then(|| vector(&random(2, self.features)));
        let weights = matrix(&self.weights(), self.features);
        let conv = ShortConv::new(&weights, bias.as_ref(), self.silu).unwrap();
        let x = columns(tokens, 1..self.width());
        let advanced = conv.forward(&x, carried).unwrap();
        (advanced.out, advanced.states)
    }

    fn expected(&self, tokens: &[f32]) -> Vec<f64> {
        let (weights, bias) = (self.weights(), random(2, self.features));
        let len = tokens.len() / self.width();
        let mut out = Vec::new();
        for token in 0..len {
            for feature in 0..self.features {
                let mut sum = if self.bias {
                    f64::from(bias[feature])
                } else {
                    0.0
                };
                for tap in 0..self.taps {
                    if let Some(at) = (token + tap + 1).checked_sub(self.taps) {
                        sum += f64::from(weights[feature * self.taps + tap])
                            * f64::from(tokens[at * self.width() + 1 + feature]);
                    }
                }
                out.push(if self.silu { sum * sigmoid(sum) } else { sum });
            }
        }
        out
    }
}

#[derive(Debug, Clone)]
struct Heads {
    delta: bool,
    keys: usize,
    /// Value heads that share a key head.
    share: usize,
    key_dim: usize,
    value_dim: usize,
}

const LIMITS: (f32, f32) = (0.1, 1.5);

impl Heads {
    fn values(&self) -> usize {
        self.keys * self.share
    }

    fn mixed(&self) -> usize {
        2 * self.keys * self.key_dim + self.values() * self.value_dim
    }
}

impl Layer for Heads {
    fn width(&self) -> usize {
        self.mixed() + self.values() * if self.delta { 2 } else { 1 }
    }

    fn state(&self) -> Vec<i32> {
        [self.values(), self.key_dim, self.value_dim]
            .map(|dim| dim as i32)
            .to_vec()
    }

    fn forward(&self, tokens: &Array, carried: Carried<'_>) -> (Array, Vec<Array>) {
        let [a_log, dt_bias, skip] = [1, 2, 3].map(|seed| vector(&random(seed, self.values())));
        let heads = RecurrentHeads {
            keys: self.keys as i32,
            key_dim: self.key_dim as i32,
            value_dim: self.value_dim as i32,
        };
        let layer = if self.delta {
            Recurrence::delta_rule(&a_log, &dt_bias, heads)
        } else {
            Recurrence::state_space(&a_log, &dt_bias, &skip, LIMITS, heads)
        };
        let (mixed, gates) = (self.mixed(), self.values());
        let gates: Vec<Array> = (mixed..self.width())
            .step_by(gates)
            .map(|start| columns(tokens, start..start + gates))
            .collect();
        let gates: Vec<&Array> = gates.iter().collect();
        let mixed = columns(tokens, 0..mixed);
        let advanced = layer.unwrap().forward(&mixed, &gates, carried).unwrap();
        (advanced.out, advanced.states)
    }

    fn expected(&self, tokens: &[f32]) -> Vec<f64> {
        let [a_log, dt_bias, skip] = [1, 2, 3].map(|seed| random(seed, self.values()));
        let (keys, values) = (self.keys * self.key_dim, self.values() * self.value_dim);
        let mut states = vec![vec![0.0; self.key_dim * self.value_dim]; self.values()];
        let mut out = Vec::new();
        for token in tokens.chunks(self.width()) {
            let token: Vec<f64> = token.iter().map(|&x| f64::from(x)).collect();
            let part = |start: usize, dim: usize, head: usize| {
                token[start + head * dim..start + (head + 1) * dim].to_vec()
            };
            for (h, state) in states.iter_mut().enumerate() {
                let gate = |which: usize| token[self.mixed() + which * self.values() + h];
                let softplus = |x: f64| x.exp().ln_1p();
                let mut step = softplus(gate(0) + f64::from(dt_bias[h]));
                if !self.delta {
                    step = step.clamp(f64::from(LIMITS.0), f64::from(LIMITS.1));
                }
                let decay = (-f64::from(a_log[h]).exp() * step).exp();
                let k = h / self.share;
                let (mut query, mut key, value) = match self.delta {
                    true => (
                        part(0, self.key_dim, k),
                        part(keys, self.key_dim, k),
                        part(2 * keys, self.value_dim, h),
                    ),
                    false => (
                        part(values + keys, self.key_dim, k),
                        part(values, self.key_dim, k),
                        part(0, self.value_dim, h),
                    ),
                };
                let rate = if self.delta {
                    for (vector, length) in [(&mut query, self.key_dim as f64), (&mut key, 1.0)] {
                        let squares: f64 = vector.iter().map(|x| x * x).sum();
                        let scale = 1.0 / ((squares + 1e-6) * length).sqrt();
                        vector.iter_mut().for_each(|x| *x *= scale);
                    }
                    sigmoid(gate(1))
                } else {
                    step
                };
                state.iter_mut().for_each(|x| *x *= decay);
                for (v, &value) in value.iter().enumerate() {
                    let of = |state: &[f64], with: &[f64]| -> f64 {
                        let column = state.iter().skip(v).step_by(self.value_dim);
                        column.zip(with).map(|(s, w)| s * w).sum()
                    };
                    let known = if self.delta { of(state, &key) } else { 0.0 };
                    let change = rate * (value - known);
                    for (k, key) in key.iter().enumerate() {
                        state[k * self.value_dim + v] += key * change;
                    }
                    let past = if self.delta {
                        0.0
                    } else {
                        f64::from(skip[h]) * value
                    };
                    out.push(of(state, &query) + past);
                }
            }
        }
        out
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn convs() -> impl Strategy<Value = Conv> {
    (1usize..70, 2usize..6, any::<bool>(), any::<bool>()).prop_map(
        |(features, taps, bias, silu)| Conv {
            features,
            taps,
            bias,
            silu,
        },
    )
}

fn heads() -> impl Strategy<Value = Heads> {
    (any::<bool>(), 1usize..4, 1usize..4, 1usize..40, 1usize..90).prop_map(
        |(delta, keys, share, key_dim, value_dim)| Heads {
            delta,
            keys,
            share,
            key_dim,
            value_dim,
        },
    )
}

/// Some sequences, and into which chunks each is cut.
fn sequences() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((1usize..20, 1usize..20), 1..5)
}

/// The sequences' tokens.
fn tokens_of(layer: &impl Layer, sequences: &[(usize, usize)]) -> Vec<Vec<f32>> {
    let width = layer.width();
    let row = |(i, &(len, _)): (usize, &(usize, usize))| random(10 + i as u64, len * width);
    sequences.iter().enumerate().map(row).collect()
}

/// All sequences in one step give what the formula says, and the same bits as each of them alone, in
/// chunks, whether or not others still hold the state.
fn follows_the_formula(layer: &impl Layer, sequences: &[(usize, usize)]) -> TestCaseResult {
    let rows = tokens_of(layer, sequences);
    let mut states = vec![layer.zeros(); rows.len()];
    let shares: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let together = layer.step(&mut states, &shares);
    for (row, out) in rows.iter().zip(&together) {
        close(out, &layer.expected(row), 2e-5)?;
    }
    for (((row, &(_, chunk)), out), state) in rows.iter().zip(sequences).zip(&together).zip(&states)
    {
        let mut own = [layer.zeros()];
        let mut alone = Vec::new();
        for (i, chunk) in row.chunks(chunk * layer.width()).enumerate() {
            let held = (i % 2 == 0).then(|| own[0].clone());
            let before = held.as_ref().map(values);
            alone.extend(layer.step(&mut own, &[chunk]).remove(0));
            let after = held.as_ref().map(values);
            prop_assert_eq!(after, before, "a copy has changed");
        }
        prop_assert_eq!(bits(&alone), bits(out));
        prop_assert_eq!(bits(&values(&own[0])), bits(&values(state)));
    }
    Ok(())
}

#[test]
fn convolutions_follow_the_formula_whatever_the_chunks_and_the_company() {
    on_every_isa(40, (convs(), sequences()), |(conv, sequences)| {
        follows_the_formula(&conv, &sequences)
    });
}

#[test]
fn recurrences_follow_the_formula_whatever_the_chunks_and_the_company() {
    on_every_isa(40, (heads(), sequences()), |(heads, sequences)| {
        follows_the_formula(&heads, &sequences)
    });
}

#[test]
fn a_state_that_nobody_else_holds_is_advanced_where_it_lies() {
    let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Device::Cpu.make_default().unwrap();
    // Much more than the other tests of this process ever have.
    let heads = Heads {
        delta: true,
        keys: 8,
        share: 4,
        key_dim: 128,
        value_dim: 1024,
    };
    let mut state = [heads.zeros()];
    for seed in 0..2 {
        heads.step(&mut state, &[&random(seed, heads.width())]);
    }
    let memory = Memory::now();
    assert!(
        memory.peak < memory.active + state[0].nbytes() / 2,
        "{memory:?}, {} of it the state",
        state[0].nbytes()
    );
}

/// All sequences from their beginning in bfloat16; what comes out, and the states.
fn in_bfloat16(layer: &dyn Layer, rows: &[Vec<f32>]) -> (Vec<f32>, Vec<Array>) {
    let width = layer.width();
    let lengths: Vec<i32> = rows.iter().map(|row| (row.len() / width) as i32).collect();
    let tokens = matrix(&rows.concat(), lengths.iter().sum::<i32>() as usize);
    let zeros = layer.zeros();
    let carried = Carried {
        states: &vec![&zeros; rows.len()],
        lengths: &lengths,
    };
    let (out, states) = layer.forward(&tokens.astype(Dtype::Bfloat16).unwrap(), carried);
    assert_eq!(out.dtype().unwrap(), Dtype::Bfloat16);
    (values(&out), states)
}

/// The types of a GPU go through MLX's operations, on any device.
#[test]
fn the_graph_of_operations_follows_the_formula() {
    let strategy = (convs(), heads(), sequences());
    on_every_isa(10, strategy, |(conv, heads, mut sequences)| {
        for single in [false, true] {
            if single {
                sequences.iter_mut().for_each(|(len, _)| *len = 1);
            }
            let rows = tokens_of(&conv, &sequences);
            let (out, states) = in_bfloat16(&conv, &rows);
            let expected: Vec<f64> = rows.iter().flat_map(|row| conv.expected(row)).collect();
            close(&out, &expected, 2e-2)?;
            prop_assert_eq!(states.len(), rows.len());

            let rows = tokens_of(&heads, &sequences);
            let (out, states) = in_bfloat16(&heads, &rows);
            let expected: Vec<f64> = rows.iter().flat_map(|row| heads.expected(row)).collect();
            close(&out, &expected, 2e-2)?;
            // Nothing of a state is rounded away.
            prop_assert_eq!(states[0].dtype().unwrap(), Dtype::Float32);
            let mut kernels = vec![heads.zeros(); rows.len()];
            let shares: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            heads.step(&mut kernels, &shares);
            for (graph, kernel) in states.iter().zip(&kernels) {
                let kernel: Vec<f64> = values(kernel).into_iter().map(f64::from).collect();
                close(&values(graph), &kernel, 1e-5)?;
            }
        }
        Ok(())
    });
}

#[test]
fn the_number_of_threads_does_not_show() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Device::Cpu.make_default().unwrap();
    let heads = Heads {
        delta: true,
        keys: 4,
        share: 2,
        key_dim: 64,
        value_dim: 130,
    };
    let conv = Conv {
        features: 5000,
        taps: 4,
        bias: true,
        silu: true,
    };
    let with = |threads: usize| {
        set_threads(threads).unwrap();
        let sequences = [(40, 1), (1, 1), (7, 1)];
        let of = |out: Vec<Vec<f32>>| bits(&out.concat());
        let rows = tokens_of(&heads, &sequences);
        let shares: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let first = of(heads.step(&mut vec![heads.zeros(); 3], &shares));
        let rows = tokens_of(&conv, &sequences);
        let shares: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        (first, of(conv.step(&mut vec![conv.zeros(); 3], &shares)))
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn a_gated_normalization_follows_the_formula() {
    let strategy = (
        1usize..6,
        1usize..5,
        1usize..70,
        any::<bool>(),
        any::<bool>(),
    );
    on_every_isa(
        40,
        strategy,
        |(tokens, groups, group, shared, gate_first)| {
            let width = groups * group;
            let [x, gate] = [1, 2].map(|seed| random(seed, tokens * width));
            let weight = random(3, if shared { group } else { width });
            let mut expected = Vec::new();
            for start in (0..tokens * width).step_by(group) {
                let open = |i: usize| f64::from(gate[i]) * sigmoid(f64::from(gate[i]));
                let mut row: Vec<f64> = (start..start + group)
                    .map(|i| f64::from(x[i]) * if gate_first { open(i) } else { 1.0 })
                    .collect();
                let mean = row.iter().map(|x| x * x).sum::<f64>() / group as f64;
                for (i, x) in row.iter_mut().enumerate() {
                    let place = (start % width + i) % weight.len();
                    *x *= f64::from(weight[place]) / (mean + 1e-5).sqrt();
                    *x *= if gate_first { 1.0 } else { open(start + i) };
                }
                expected.extend(row);
            }
            let norm = GatedNorm::new(&vector(&weight), 1e-5, group as i32, gate_first).unwrap();
            let [x, gate] = [x, gate].map(|values| matrix(&values, tokens));
            let found = norm.forward(&x, &gate).unwrap();
            close(&values(&found), &expected, 2e-5)?;
            let half = |array: Array| array.astype(Dtype::Bfloat16).unwrap();
            let found = norm.forward(&half(x), &half(gate)).unwrap();
            prop_assert_eq!(found.dtype().unwrap(), Dtype::Bfloat16);
            close(&values(&found), &expected, 2e-2)
        },
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = matrix(&random(1, 12), 3);
    let weight = matrix(&random(2, 16), 4);
    let conv = ShortConv::new(&weight, None, false).unwrap();
    let state = Array::zeros(&[3, 4], Dtype::Float32).unwrap();
    let forward = |states: &[&Array], lengths: &[i32]| {
        conv.forward(&x, Carried { states, lengths }).map(|_| ())
    };
    assert!(forward(&[&state], &[3]).is_ok());
    assert!(forward(&[&state], &[2]).is_err());
    assert!(forward(&[&state, &state], &[3, 0]).is_err());
    assert!(forward(&[&state], &[1, 2]).is_err());
    assert!(forward(&[&weight], &[3]).is_err());
    assert!(ShortConv::new(&vector(&[1.0]), None, false).is_err());

    let heads = RecurrentHeads {
        keys: 2,
        key_dim: 2,
        value_dim: 2,
    };
    let three = vector(&[0.1, 0.2, 0.3]);
    assert!(Recurrence::delta_rule(&three, &three, heads).is_err());
    assert!(GatedNorm::new(&three, 1e-5, 2, true).is_err());
}
