//! Our kernels against MLX's own operations: every bit width, group, type and instruction set that this
//! machine has, over random shapes and layouts in memory.
//!
//! The instruction set belongs to the process: a lock lets one test at a time choose it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Mutex, MutexGuard};

use half::{bf16, f16};
use mlxcel::mlx::kernels::{Isa, set_threads};
use mlxcel::mlx::{Activation, Affine, Array, Device, Dtype, Matrix, fast, gated_product};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
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

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut generator = SmallRng::seed_from_u64(seed);
    (0..len)
        .map(|_| generator.random_range(-1.0..1.0))
        .collect()
}

fn floats(seed: u64, shape: &[i32]) -> Array {
    let len = shape.iter().product::<i32>() as usize;
    Array::from_f32(&random(seed, len), shape).unwrap()
}

/// The same in another type, in memory of its own.
fn typed(seed: u64, shape: &[i32], dtype: Dtype) -> Array {
    let values = random(seed, shape.iter().product::<i32>() as usize);
    let bytes: Vec<u8> = match dtype {
        Dtype::Bfloat16 => values
            .iter()
            .flat_map(|&x| bf16::from_f32(x).to_ne_bytes())
            .collect(),
        Dtype::Float16 => values
            .iter()
            .flat_map(|&x| f16::from_f32(x).to_ne_bytes())
            .collect(),
        _ => values.iter().flat_map(|x| x.to_ne_bytes()).collect(),
    };
    Array::from_bytes(&bytes, shape, dtype).unwrap()
}

/// `[tokens, columns]` whose elements lie in memory as `layout` says.
fn activations(seed: u64, tokens: i32, columns: i32, layout: u8) -> Array {
    match layout {
        0 => floats(seed, &[tokens, columns]),
        // Columns behind one another.
        1 => floats(seed, &[columns, tokens]).transpose(&[1, 0]).unwrap(),
        // A part of something wider.
        _ => floats(seed, &[tokens + 1, columns + 3])
            .slice(&[1, 2], &[tokens + 1, columns + 2])
            .unwrap(),
    }
}

/// Sums of `columns` products of numbers around one differ by their rounding.
fn close(ours: &Array, theirs: &Array, columns: i32) -> TestCaseResult {
    prop_assert_eq!(ours.shape(), theirs.shape());
    let (ours, theirs) = (ours.to_vec_f32().unwrap(), theirs.to_vec_f32().unwrap());
    let bound = 2e-6 * (columns as f32).max(16.0);
    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        prop_assert!((a - b).abs() <= bound, "element {i}: {a} for {b}");
    }
    Ok(())
}

fn same_bits(a: &Array, b: &Array) -> TestCaseResult {
    let bits = |array: &Array| -> Vec<u32> {
        let values = array.to_vec_f32().unwrap();
        values.iter().map(|x| x.to_bits()).collect()
    };
    prop_assert_eq!(bits(a), bits(b));
    Ok(())
}

/// Token `i` of `[tokens, features]`.
fn token(array: &Array, i: i32) -> Array {
    array.slice(&[i, 0], &[i + 1, array.dim(1)]).unwrap()
}

fn a_float_type() -> impl Strategy<Value = Dtype> {
    prop::sample::select(vec![Dtype::Float32, Dtype::Bfloat16, Dtype::Float16])
}

/// Words, scales and biases of a quantized matrix, and how they are packed.
struct Packed {
    words: Array,
    scales: Array,
    biases: Array,
    affine: Affine,
}

impl Packed {
    fn random(seed: u64, rows: i32, columns: i32, affine: Affine, dtype: Dtype) -> Self {
        let mut generator = SmallRng::seed_from_u64(seed);
        let shape = [rows, columns * affine.bits / 32];
        let words: Vec<u32> = (0..shape[0] * shape[1])
            .map(|_| generator.random())
            .collect();
        let groups = [rows, columns / affine.group_size];
        // Integers times scales are numbers around one, whatever the width.
        let small = Array::from_f32(&[1.0 / (1 << affine.bits) as f32], &[1]).unwrap();
        let scales = typed(seed + 1, &groups, dtype).multiply(&small).unwrap();
        Self {
            words: Array::from_u32(&words, &shape).unwrap(),
            scales: scales.astype(dtype).unwrap(),
            biases: typed(seed + 2, &groups, dtype),
            affine,
        }
    }

    fn matrix(&self) -> Matrix {
        Matrix::affine(&self.words, &self.scales, &self.biases, self.affine).unwrap()
    }

    /// MLX's own product, in float32.
    fn product(&self, x: &Array) -> Array {
        let scales = self.scales.astype(Dtype::Float32).unwrap();
        let biases = self.biases.astype(Dtype::Float32).unwrap();
        x.quantized_matmul(&self.words, &scales, &biases, self.affine)
            .unwrap()
    }
}

fn a_packing() -> impl Strategy<Value = Affine> {
    let bits = prop::sample::select(vec![2, 3, 4, 5, 6, 8]);
    let group = prop::sample::select(vec![32, 64, 128]);
    (bits, group).prop_map(|(bits, group_size)| Affine { group_size, bits })
}

#[test]
fn quantized_products_are_mlxs_and_a_row_never_depends_on_the_others() {
    let shapes = (1..80i32, 1..9i32, 1..24i32, 0..3u8);
    let strategy = (a_packing(), a_float_type(), shapes, any::<u32>(), 1..4usize);
    on_every_isa(40, strategy, |(affine, dtype, shape, seed, threads)| {
        let (rows, groups, tokens, layout) = shape;
        set_threads(threads).unwrap();
        let (columns, seed) = (groups * affine.group_size, u64::from(seed));
        let packed = Packed::random(seed, rows, columns, affine, dtype);
        let matrix = packed.matrix();
        let x = activations(seed + 3, tokens, columns, layout);
        let product = matrix.product(&x).unwrap();
        close(&product, &packed.product(&x), columns)?;
        for i in [0, tokens / 2, tokens - 1] {
            set_threads(4 - threads).unwrap();
            let alone = matrix.product(&token(&x, i)).unwrap();
            same_bits(&alone, &token(&product, i))?;
        }
        Ok(())
    });
}

#[test]
fn dense_products_are_mlxs_and_a_row_never_depends_on_the_others() {
    let shapes = (1..80i32, 1..300i32, 1..24i32, 0..3u8);
    let strategy = (a_float_type(), shapes, any::<u32>(), any::<bool>());
    on_every_isa(40, strategy, |(dtype, shape, seed, with_bias)| {
        let (rows, columns, tokens, layout) = shape;
        let seed = u64::from(seed);
        let weight = typed(seed, &[rows, columns], dtype);
        let bias = floats(seed + 1, &[rows]);
        let x = activations(seed + 2, tokens, columns, layout);
        let residual = activations(seed + 3, tokens, rows, layout);
        let transposed = weight.astype(Dtype::Float32).unwrap();
        let transposed = transposed.transpose(&[1, 0]).unwrap();
        let mut expected = x.matmul(&transposed).unwrap().add(&residual).unwrap();
        let mut matrix = Matrix::dense(&weight).unwrap();
        if with_bias {
            expected = expected.add(&bias).unwrap();
            matrix = matrix.with_bias(&bias).unwrap();
        }
        let product = matrix.product_add(&x, &residual).unwrap();
        close(&product, &expected, columns)?;
        let i = tokens - 1;
        let alone = matrix
            .product_add(&token(&x, i), &token(&residual, i))
            .unwrap();
        same_bits(&alone, &token(&product, i))
    });
}

#[test]
fn many_rows_of_a_large_matrix_are_each_the_same_as_alone() {
    let strategy = (a_packing(), any::<u32>());
    on_every_isa(2, strategy, |(affine, seed)| {
        let seed = u64::from(seed);
        let matrix = Packed::random(seed, 515, 1024, affine, Dtype::Bfloat16).matrix();
        let x = floats(seed + 3, &[512, 1024]);
        set_threads(3).unwrap();
        let product = matrix.product(&x).unwrap();
        set_threads(1).unwrap();
        for i in [0, 200, 511] {
            same_bits(&matrix.product(&token(&x, i)).unwrap(), &token(&product, i))?;
        }
        Ok(())
    });
}

#[test]
fn gated_products_are_mlxs() {
    let shapes = (1..80i32, 1..5i32, 1..20i32, 0..3u8);
    let strategy = (
        a_packing(),
        a_packing(),
        a_float_type(),
        shapes,
        any::<u32>(),
    );
    on_every_isa(25, strategy, |(gate, up, dtype, shape, seed)| {
        let (rows, groups, tokens, layout) = shape;
        // Columns that both groups divide; the widths may differ.
        let (columns, seed) = (128 * groups, u64::from(seed));
        let gate = Packed::random(seed, rows, columns, gate, dtype);
        let up = Packed::random(seed + 10, rows, columns, up, dtype);
        let x = activations(seed + 20, tokens, columns, layout);
        let opened = gate.product(&x);
        let expected = opened.multiply(&opened.sigmoid().unwrap()).unwrap();
        let expected = expected.multiply(&up.product(&x)).unwrap();
        let ours = gated_product(&x, &gate.matrix(), &up.matrix(), Activation::Silu).unwrap();
        // A product of two sums, each as large as the square root of its length.
        close(&ours, &expected, 16 * columns)?;
        let alone = gated_product(
            &token(&x, 0),
            &gate.matrix(),
            &up.matrix(),
            Activation::Silu,
        )
        .unwrap();
        same_bits(&alone, &token(&ours, 0))
    });
}

#[test]
fn rows_are_looked_up_in_every_format() {
    let strategy = (
        a_packing(),
        a_float_type(),
        1..9i32,
        any::<u32>(),
        any::<bool>(),
    );
    on_every_isa(40, strategy, |(affine, dtype, groups, seed, dense)| {
        let (columns, seed) = (groups * affine.group_size, u64::from(seed));
        let identity: Vec<f32> = (0..columns * columns)
            .map(|i| f32::from(u8::from(i % (columns + 1) == 0)))
            .collect();
        let identity = Array::from_f32(&identity, &[columns, columns]).unwrap();
        let (matrix, expected) = if dense {
            let table = typed(seed, &[7, columns], dtype);
            let values = table.astype(Dtype::Float32).unwrap();
            (Matrix::dense(&table).unwrap(), values)
        } else {
            let packed = Packed::random(seed, 7, columns, affine, dtype);
            let columns_of_all = packed.product(&identity);
            (packed.matrix(), columns_of_all.transpose(&[1, 0]).unwrap())
        };
        let ids = Array::from_u32(&[6, 0, 3, 3], &[4]).unwrap();
        let rows = matrix.rows(&ids, Dtype::Float32).unwrap();
        close(&rows, &expected.take(&ids, 0).unwrap(), 1)
    });
}

#[test]
fn normalization_is_by_the_root_mean_square() {
    let strategy = (1..9i32, 1..300i32, 0..3u8, any::<u32>());
    on_every_isa(40, strategy, |(tokens, features, layout, seed)| {
        let seed = u64::from(seed);
        let x = activations(seed, tokens, features, layout);
        let weight = floats(seed + 1, &[features]);
        let ours = fast::rms_norm(&x, &weight, 1e-5).unwrap();
        let (values, weights) = (x.to_vec_f32().unwrap(), weight.to_vec_f32().unwrap());
        let expected: Vec<f32> = values
            .chunks(features as usize)
            .flat_map(|row| {
                let mean = row.iter().map(|x| x * x).sum::<f32>() / features as f32;
                let factor = 1.0 / (mean + 1e-5).sqrt();
                row.iter().zip(&weights).map(move |(x, w)| x * factor * w)
            })
            .collect();
        let expected = Array::from_f32(&expected, &[tokens, features]).unwrap();
        close(&ours, &expected, 1)
    });
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Device::Cpu.make_default().unwrap();
    let matrix = Matrix::dense(&floats(1, &[4, 6])).unwrap();
    assert!(matrix.product(&floats(2, &[3, 5])).is_err());
    assert!(
        matrix
            .product_add(&floats(2, &[3, 6]), &floats(3, &[3, 5]))
            .is_err()
    );
    assert!(Matrix::dense(&floats(1, &[4])).is_err());
    assert!(matrix.with_bias(&floats(2, &[5])).is_err());
    let affine = Affine {
        group_size: 48,
        bits: 4,
    };
    let words = Array::from_u32(&[0; 6], &[1, 6]).unwrap();
    let scale = floats(1, &[1, 1]);
    assert!(Matrix::affine(&words, &scale, &scale, affine).is_err());
}
