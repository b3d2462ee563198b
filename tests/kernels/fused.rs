//! What one primitive computes in several steps has the bits of the steps one by one.

use mlxcel::mlx::fast::{self, RopeAngles, RopeParams};
use mlxcel::mlx::{
    Activation, Array, HeadNorms, Matrix, Packing, Projections, gated_mlp, gated_product,
};
use proptest::prelude::*;

use super::{a_float_type, a_packing, activations, floats, on_every_isa, packed, same_bits, token};

fn a_matrix(seed: u64, shape: &[i32], packing: Packing, dtype: mlxcel::mlx::Dtype) -> Matrix {
    Matrix::quantized(&packed(seed, shape, packing, dtype)).unwrap()
}

/// The same without a past: nothing that made it can become part of what reads it.
fn made(array: Array) -> Array {
    Array::eval_all(&[&array]).unwrap();
    array
}

#[test]
fn a_norm_is_the_same_as_a_step_of_the_product_behind_it() {
    let shapes = (1..80i32, 1..5i32, 1..40i32, 0..3u8);
    let strategy = (a_packing(), a_float_type(), shapes, any::<u32>());
    on_every_isa(20, strategy, |(packing, dtype, shape, seed)| {
        let (rows, groups, tokens, layout) = shape;
        let (columns, seed) = (groups * packing.group_size, u64::from(seed));
        let matrix = a_matrix(seed, &[rows, columns], packing, dtype);
        let x = activations(seed + 3, tokens, columns, layout);
        let weight = floats(seed + 4, &[columns]);
        let rms = || fast::rms_norm(&x, &weight, 1e-5).unwrap();
        let layer = || fast::layer_norm(&x, &weight, Some(&weight), 1e-5).unwrap();
        let residual = floats(seed + 5, &[tokens, rows]);
        for norm in [&rms as &dyn Fn() -> Array, &layer] {
            let product = matrix.product_add(&norm(), &residual).unwrap();
            let alone = matrix.product_add(&made(norm()), &residual).unwrap();
            same_bits(&product, &alone)?;
            let opened = gated_product(&norm(), &matrix, &matrix, Activation::Silu).unwrap();
            let alone = gated_product(&made(norm()), &matrix, &matrix, Activation::Silu).unwrap();
            same_bits(&opened, &alone)?;
        }
        // A norm with another reader, and one that was computed before.
        let normed = rms();
        let both = normed.add(&normed).unwrap();
        let product = matrix.product(&normed).unwrap();
        same_bits(&both, &normed.add(&made(rms())).unwrap())?;
        same_bits(&product, &matrix.product(&normed).unwrap())
    });
}

#[test]
fn an_mlp_is_its_two_halves() {
    let shapes = (1..5i32, 1..4i32, 1..20i32, 0..3u8);
    let strategy = (a_packing(), a_packing(), shapes, any::<u32>());
    on_every_isa(20, strategy, |(open, down, shape, seed)| {
        let (hidden, inner, tokens, layout) = shape;
        let (hidden, inner, seed) = (128 * hidden, 128 * inner, u64::from(seed));
        let dtype = mlxcel::mlx::Dtype::Bfloat16;
        let gate = a_matrix(seed, &[inner, hidden], open, dtype);
        let up = a_matrix(seed + 10, &[inner, hidden], open, dtype);
        let down = a_matrix(seed + 20, &[hidden, inner], down, dtype);
        let x = activations(seed + 30, tokens, hidden, layout);
        let weight = floats(seed + 31, &[hidden]);
        let normed = fast::rms_norm(&x, &weight, 1e-5).unwrap();
        let matrices = [&gate, &up, &down];
        let at_once = gated_mlp(&normed, matrices, Activation::GeluTanh, Some(&x)).unwrap();
        let opened = gated_product(&made(normed), &gate, &up, Activation::GeluTanh).unwrap();
        let opened = made(opened);
        same_bits(&at_once, &down.product_add(&opened, &x).unwrap())?;
        let at_once = gated_mlp(&token(&x, 0), matrices, Activation::Silu, None).unwrap();
        let opened = gated_product(&token(&x, 0), &gate, &up, Activation::Silu).unwrap();
        same_bits(&at_once, &down.product(&made(opened)).unwrap())
    });
}

#[test]
fn heads_are_projected_normalized_and_turned_as_one_by_one() {
    let shapes = (1..6i32, 1..4i32, 1..20i32, 0..3u8);
    let head = (prop::sample::select(vec![8, 24, 64]), 0..5i32);
    let options = (any::<bool>(), any::<bool>(), any::<bool>());
    let strategy = (
        a_packing(),
        a_packing(),
        shapes,
        head,
        options,
        any::<u32>(),
    );
    on_every_isa(
        25,
        strategy,
        |(packing, of_values, shape, head, options, seed)| {
            let (heads, groups, tokens, layout) = shape;
            let (head_dim, kv_heads) = (head.0, 1 + head.1 % heads);
            let (normalizes, turns, traditional) = options;
            let (columns, seed) = (128 * groups, u64::from(seed));
            let dtype = mlxcel::mlx::Dtype::Float32;
            let queries = a_matrix(seed, &[heads * head_dim, columns], packing, dtype);
            let keys = a_matrix(seed + 10, &[kv_heads * head_dim, columns], packing, dtype);
            let bias = floats(seed + 15, &[kv_heads * head_dim]);
            let keys = keys.with_bias(&bias).unwrap();
            let values = a_matrix(seed + 20, &[kv_heads * head_dim, columns], of_values, dtype);
            let (q_norm, k_norm) = (
                floats(seed + 30, &[head_dim]),
                floats(seed + 31, &[head_dim]),
            );
            let pairs = if traditional {
                head_dim / 4
            } else {
                head_dim / 2
            };
            let rope = RopeParams {
                dims: 2 * pairs,
                traditional,
                angles: RopeAngles::Base {
                    base: 1e4,
                    scale: 1.0,
                },
                frequencies: floats(seed + 32, &[pairs]),
                amplitude: 1.25,
            };
            let x = activations(seed + 40, tokens, columns, layout);
            let positions: Vec<i32> = (0..tokens).map(|i| 3 * i).collect();
            let positions = Array::from_i32(&positions, &[tokens]).unwrap();
            let projections = Projections {
                matrices: [&queries, &keys, &values],
                head_dim,
                norms: normalizes.then_some(HeadNorms {
                    queries: &q_norm,
                    keys: &k_norm,
                    eps: 1e-5,
                }),
                rope: turns.then_some(&rope),
            };
            let [q, k, v] = projections.of(&x, &positions).unwrap();
            let one = |matrix: &Matrix, norm: Option<&Array>| {
                let product = matrix.product(&x).unwrap();
                let mut heads = product.reshape(&[tokens, -1, 1, head_dim]).unwrap();
                if let (Some(norm), true) = (norm, normalizes) {
                    heads = fast::rms_norm(&heads, norm, 1e-5).unwrap();
                }
                match norm {
                    Some(_) if turns => fast::rope(&heads, &rope, &positions).unwrap(),
                    _ => heads,
                }
            };
            prop_assert_eq!(q.shape(), &[tokens, heads, 1, head_dim]);
            same_bits(&q, &one(&queries, Some(&q_norm)))?;
            same_bits(&k, &one(&keys, Some(&k_norm)))?;
            same_bits(&v, &one(&values, None))?;
            let last = Array::from_i32(&[3 * (tokens - 1)], &[1]).unwrap();
            let [alone, ..] = projections.of(&token(&x, tokens - 1), &last).unwrap();
            let from = [tokens - 1, 0, 0, 0];
            let row = q.slice(&from, &[tokens, heads, 1, head_dim]).unwrap();
            same_bits(&alone, &row)
        },
    );
}
