//! Our kernels against MLX's own operations: every bit width, group, type and instruction set that this
//! machine has, over random shapes and layouts in memory.
//!
//! The instruction set belongs to the process: a lock lets one test at a time choose it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attention;
mod experts;
mod fused;
mod quantizing;

use std::sync::{Mutex, MutexGuard};

use half::{bf16, f16};
use mlxcel::mlx::kernels::{Isa, set_threads};
use mlxcel::mlx::{
    Activation, Array, Device, Dtype, Matrix, Mode, Packed, Packing, fast, gated_product,
};
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

/// A random quantized matrix `[rows, columns]`, or a stack of such.
fn packed(seed: u64, shape: &[i32], packing: Packing, dtype: Dtype) -> Packed {
    let mut generator = SmallRng::seed_from_u64(seed);
    let (outer, columns) = shape.split_at(shape.len() - 1);
    let words = [outer, &[columns[0] / 16 * packing.bits / 2]].concat();
    let groups = [outer, &[columns[0] / packing.group_size]].concat();
    let random: Vec<u32> = (0..words.iter().product::<i32>())
        .map(|_| generator.random())
        // 0x7F and 0xFF are no numbers in E4M3.
        .map(|word: u32| {
            if packing.mode == Mode::Mxfp8 {
                word & 0xF7F7_F7F7
            } else {
                word
            }
        })
        .collect();
    let (scales, biases) = match packing.mode {
        Mode::Affine => {
            // Integers times scales are numbers around one, whatever the width.
            let small = Array::from_f32(&[1.0 / (1 << packing.bits) as f32], &[1]).unwrap();
            let scales = typed(seed + 1, &groups, dtype).multiply(&small).unwrap();
            let biases = typed(seed + 2, &groups, dtype);
            (scales.astype(dtype).unwrap(), Some(biases))
        }
        mode => {
            // Powers of two, or E4M3 numbers, such that the products are around one.
            let (from, to) = match mode {
                Mode::Mxfp8 => (115, 120),
                Mode::Nvfp4 => (16, 48),
                _ => (121, 127),
            };
            let bytes: Vec<u8> = (0..groups.iter().product::<i32>())
                .map(|_| generator.random_range(from..to))
                .collect();
            (
                Array::from_bytes(&bytes, &groups, Dtype::Uint8).unwrap(),
                None,
            )
        }
    };
    Packed {
        words: Array::from_u32(&random, &words).unwrap(),
        scales,
        biases,
        packing,
    }
}

/// MLX's own product, in float32.
fn mlxs_product(x: &Array, packed: &Packed) -> Array {
    let wide = |array: &Array| array.astype(Dtype::Float32).unwrap();
    let affine = packed.packing.mode == Mode::Affine;
    let theirs = Packed {
        words: packed.words.clone(),
        scales: if affine {
            wide(&packed.scales)
        } else {
            packed.scales.clone()
        },
        biases: packed.biases.as_ref().map(wide),
        packing: packed.packing,
    };
    x.quantized_matmul(&theirs).unwrap()
}

fn a_packing() -> impl Strategy<Value = Packing> {
    let bits = prop::sample::select(vec![2, 3, 4, 5, 6, 8]);
    let group = prop::sample::select(vec![32, 64, 128]);
    let affine = (bits, group).prop_map(|(bits, group)| Packing::affine(bits, group));
    let modes = [Mode::Mxfp4, Mode::Nvfp4, Mode::Mxfp8];
    let floats = modes
        .into_iter()
        .filter_map(Mode::packing)
        .collect::<Vec<_>>();
    prop_oneof![3 => affine, 1 => prop::sample::select(floats)]
}

#[test]
fn quantized_products_are_mlxs_and_a_row_never_depends_on_the_others() {
    let shapes = (1..80i32, 1..9i32, 1..24i32, 0..3u8);
    let strategy = (a_packing(), a_float_type(), shapes, any::<u32>(), 1..4usize);
    on_every_isa(40, strategy, |(packing, dtype, shape, seed, threads)| {
        let (rows, groups, tokens, layout) = shape;
        set_threads(threads).unwrap();
        let (columns, seed) = (groups * packing.group_size, u64::from(seed));
        let packed = packed(seed, &[rows, columns], packing, dtype);
        let matrix = Matrix::quantized(&packed).unwrap();
        let x = activations(seed + 3, tokens, columns, layout);
        let product = matrix.product(&x).unwrap();
        close(&product, &mlxs_product(&x, &packed), columns)?;
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
    on_every_isa(2, strategy, |(packing, seed)| {
        let seed = u64::from(seed);
        let matrix = packed(seed, &[515, 1024], packing, Dtype::Bfloat16);
        let matrix = Matrix::quantized(&matrix).unwrap();
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
        let gate = packed(seed, &[rows, columns], gate, dtype);
        let up = packed(seed + 10, &[rows, columns], up, dtype);
        let x = activations(seed + 20, tokens, columns, layout);
        let opened = mlxs_product(&x, &gate);
        let expected = opened.multiply(&opened.sigmoid().unwrap()).unwrap();
        let expected = expected.multiply(&mlxs_product(&x, &up)).unwrap();
        let (gate, up) = (
            Matrix::quantized(&gate).unwrap(),
            Matrix::quantized(&up).unwrap(),
        );
        let ours = gated_product(&x, &gate, &up, Activation::Silu).unwrap();
        // A product of two sums, each as large as the square root of its length.
        close(&ours, &expected, 16 * columns)?;
        let alone = gated_product(&token(&x, 0), &gate, &up, Activation::Silu).unwrap();
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
    on_every_isa(40, strategy, |(packing, dtype, groups, seed, dense)| {
        let (columns, seed) = (groups * packing.group_size, u64::from(seed));
        let identity: Vec<f32> = (0..columns * columns)
            .map(|i| f32::from(u8::from(i % (columns + 1) == 0)))
            .collect();
        let identity = Array::from_f32(&identity, &[columns, columns]).unwrap();
        let (matrix, expected) = if dense {
            let table = typed(seed, &[7, columns], dtype);
            let values = table.astype(Dtype::Float32).unwrap();
            (Matrix::dense(&table).unwrap(), values)
        } else {
            let packed = packed(seed, &[7, columns], packing, dtype);
            let columns_of_all = mlxs_product(&identity, &packed);
            let expected = columns_of_all.transpose(&[1, 0]).unwrap();
            (Matrix::quantized(&packed).unwrap(), expected)
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
    let mut words = Packed {
        words: Array::from_u32(&[0; 6], &[1, 6]).unwrap(),
        scales: floats(1, &[1, 1]),
        biases: Some(floats(1, &[1, 1])),
        packing: Packing::affine(4, 48),
    };
    assert!(Matrix::quantized(&words).is_err());
    words.packing = Packing {
        mode: Mode::Mxfp4,
        ..Packing::affine(4, 32)
    };
    assert!(Matrix::quantized(&words).is_err());
}
