//! Mixtures of experts: a pair of a token and an expert has the bits that a dense layer gives, in any
//! company; and what MLX composes gives the same up to its rounding.

use mlxcel::mlx::kernels::set_threads;
use mlxcel::mlx::{
    Activation, Array, Dtype, Experts, Gate, Matrix, Mode, Packed, Packing, Routing, Scoring,
    gated_experts, gated_product, route,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{
    a_float_type, a_packing, activations, close, floats, on_every_isa, packed, same_bits, token,
    typed,
};

const EXPERTS: i32 = 5;

/// The matrix of one expert.
fn one(stack: &Packed, expert: i32) -> Matrix {
    let of = |array: &Array| {
        let [_, rows, columns] = *array.shape() else {
            panic!("not a stack");
        };
        let one = array.slice(&[expert, 0, 0], &[expert + 1, rows, columns]);
        one.unwrap().reshape(&[rows, columns]).unwrap()
    };
    Matrix::quantized(&Packed {
        words: of(&stack.words),
        scales: of(&stack.scales),
        biases: stack.biases.as_ref().map(of),
        packing: stack.packing,
    })
    .unwrap()
}

fn choices(seed: u64, tokens: i32, each: i32) -> (Vec<u32>, Array) {
    let mut generator = SmallRng::seed_from_u64(seed);
    let chosen: Vec<u32> = (0..tokens * each)
        .map(|_| generator.random_range(0..EXPERTS as u32))
        .collect();
    let array = Array::from_u32(&chosen, &[tokens, each]).unwrap();
    (chosen, array)
}

#[test]
fn a_gathered_product_is_the_one_of_its_expert_alone() {
    let shapes = (1..40i32, 1..4i32, 1..30i32, 1..4i32, 0..3u8);
    let strategy = (a_packing(), a_float_type(), shapes, any::<u32>(), 1..4usize);
    on_every_isa(25, strategy, |(packing, dtype, shape, seed, threads)| {
        let (rows, groups, tokens, each, layout) = shape;
        let (columns, seed) = (groups * packing.group_size, u64::from(seed));
        set_threads(threads).unwrap();
        let stack = packed(seed, &[EXPERTS, rows, columns], packing, dtype);
        let bias = floats(seed + 4, &[EXPERTS, rows]);
        let experts = Experts::quantized(&stack)
            .unwrap()
            .with_bias(&bias)
            .unwrap();
        let x = activations(seed + 5, tokens, columns, layout);
        let (chosen, array) = choices(seed, tokens, each);
        let product = experts.product(&x, &array).unwrap();
        for (pair, &expert) in chosen.iter().enumerate() {
            let bias = token(&bias, expert as i32).reshape(&[rows]).unwrap();
            let alone = one(&stack, expert as i32).with_bias(&bias).unwrap();
            let alone = alone.product(&token(&x, pair as i32 / each)).unwrap();
            same_bits(&token(&product, pair as i32), &alone)?;
        }
        Ok(())
    });
}

#[test]
fn a_gate_and_a_sum_are_those_of_the_experts_alone() {
    let shapes = (1..40i32, 1..3i32, 1..12i32, 1..4i32);
    let strategy = (a_packing(), a_packing(), a_packing(), shapes, any::<u32>());
    on_every_isa(15, strategy, |(gate, up, down, shape, seed)| {
        let (inner, groups, tokens, each) = shape;
        let (hidden, inner, seed) = (128 * groups, 128 * inner.min(3), u64::from(seed));
        let stack = |seed, rows, columns, packing| {
            packed(seed, &[EXPERTS, rows, columns], packing, Dtype::Float16)
        };
        let (gate, up) = (
            stack(seed, inner, hidden, gate),
            stack(seed + 10, inner, hidden, up),
        );
        let down = stack(seed + 20, hidden, inner, down);
        let x = floats(seed + 30, &[tokens, hidden]);
        let weights = floats(seed + 31, &[tokens, each]);
        let residual = floats(seed + 32, &[tokens, hidden]);
        let (chosen, array) = choices(seed, tokens, each);

        let opened = gated_experts(
            &x,
            &Experts::quantized(&gate).unwrap(),
            &Experts::quantized(&up).unwrap(),
            &array,
            Gate::Plain(Activation::Silu),
        )
        .unwrap();
        let experts = Experts::quantized(&down).unwrap();
        let sum = experts
            .weighted_sum(&opened, &array, &weights, Some(&residual))
            .unwrap();
        let mut expected = residual.to_vec_f32().unwrap();
        let weight = weights.to_vec_f32().unwrap();
        for (pair, &expert) in chosen.iter().enumerate() {
            let (pair, expert, place) = (pair as i32, expert as i32, pair / each as usize);
            let alone = gated_product(
                &token(&x, place as i32),
                &one(&gate, expert),
                &one(&up, expert),
                Activation::Silu,
            );
            let alone = alone.unwrap();
            same_bits(&token(&opened, pair), &alone)?;
            let product = one(&down, expert)
                .product(&alone)
                .unwrap()
                .to_vec_f32()
                .unwrap();
            for (total, value) in expected[place * hidden as usize..].iter_mut().zip(product) {
                *total += weight[pair as usize] * value;
            }
        }
        let size = expected
            .iter()
            .fold(1.0f32, |size, value| size.max(value.abs()));
        for (a, b) in sum.to_vec_f32().unwrap().iter().zip(&expected) {
            prop_assert!((a - b).abs() <= 1e-5 * size, "{a} for {b}");
        }
        // A token alone has the bits of a token among others.
        let alone = |array: &Array| token(array, tokens - 1);
        let last = array.slice(&[tokens - 1, 0], &[tokens, each]).unwrap();
        let pairs = opened
            .slice(&[(tokens - 1) * each, 0], &[tokens * each, inner])
            .unwrap();
        let again = experts
            .weighted_sum(&pairs, &last, &alone(&weights), Some(&alone(&residual)))
            .unwrap();
        same_bits(&again, &alone(&sum))
    });
}

/// Half precision goes through MLX's operations, as everything does on a GPU.
#[test]
fn mlxs_operations_give_the_same_up_to_their_rounding() {
    // On the CPU, MLX multiplies dense experts in float32 only.
    let packings = vec![Packing::affine(4, 32), Mode::Mxfp4.packing().unwrap()];
    let packing = prop::sample::select(packings);
    let strategy = (packing, 1..60i32, 1..4i32, any::<u32>(), any::<bool>());
    on_every_isa(6, strategy, |(packing, tokens, each, seed, clamped)| {
        let seed = u64::from(seed);
        let (hidden, inner) = (64, 96);
        let stack = |seed, rows, columns| {
            let shape = [EXPERTS, rows, columns];
            Experts::quantized(&packed(seed, &shape, packing, Dtype::Bfloat16)).unwrap()
        };
        let (gate, up) = (stack(seed, inner, hidden), stack(seed + 10, inner, hidden));
        let down = stack(seed + 20, hidden, inner);
        let small = Array::from_f32(&[0.25], &[1]).unwrap();
        let x = floats(seed + 30, &[tokens, hidden])
            .multiply(&small)
            .unwrap();
        let x = x.astype(Dtype::Bfloat16).unwrap();
        let weights = typed(seed + 31, &[tokens, each], Dtype::Bfloat16);
        let (_, array) = choices(seed, tokens, each);
        let opening = match clamped {
            true => Gate::ClampedSilu {
                alpha: 1.702,
                limit: 0.5,
            },
            false => Gate::Plain(Activation::Silu),
        };
        let through = |dtype| {
            let x = x.astype(dtype).unwrap();
            let weights = weights.astype(dtype).unwrap();
            let opened = gated_experts(&x, &gate, &up, &array, opening).unwrap();
            let sum = down
                .weighted_sum(&opened, &array, &weights, Some(&x))
                .unwrap();
            sum.astype(Dtype::Float32).unwrap()
        };
        let (ours, theirs) = (through(Dtype::Float32), through(Dtype::Bfloat16));
        let (ours, theirs) = (ours.to_vec_f32().unwrap(), theirs.to_vec_f32().unwrap());
        // MLX sums in half precision: single numbers may be far off, all together are not.
        let apart: f32 = ours
            .iter()
            .zip(&theirs)
            .map(|(a, b)| (a - b) * (a - b))
            .sum();
        let size: f32 = ours.iter().map(|value| value * value).sum();
        prop_assert!(apart <= 0.15 * 0.15 * size, "{apart} of {size}");
        Ok(())
    });
}

fn a_routing() -> impl Strategy<Value = Routing> {
    let scoring = vec![Scoring::Softmax, Scoring::SoftmaxOfChosen, Scoring::Sigmoid];
    let groups = prop::sample::select(vec![(1, 1), (4, 2), (4, 4)]);
    (
        prop::sample::select(scoring),
        1..5i32,
        any::<bool>(),
        groups,
    )
        .prop_map(
            |(scoring, choices, normalize, (groups, kept_groups))| Routing {
                scoring,
                choices,
                normalize,
                scale: 2.5,
                // Dropped groups count as zero, which only scores above it lose to.
                groups: if scoring == Scoring::SoftmaxOfChosen {
                    1
                } else {
                    groups
                },
                kept_groups: if scoring == Scoring::SoftmaxOfChosen {
                    1
                } else {
                    kept_groups
                },
            },
        )
}

/// Logits of 16 experts that are far enough apart to survive half precision.
fn distinct(seed: u64, tokens: i32) -> Array {
    let mut generator = SmallRng::seed_from_u64(seed);
    let rows = (0..tokens).flat_map(|_| {
        let mut row: Vec<f32> = (0..16).map(|i| i as f32 * 0.25 - 2.0).collect();
        for i in 0..16 {
            row.swap(i, generator.random_range(i..16));
        }
        row
    });
    Array::from_f32(&rows.collect::<Vec<_>>(), &[tokens, 16]).unwrap()
}

fn routed(logits: &Array, correction: Option<&Array>, routing: Routing) -> (Vec<f32>, Array) {
    let (chosen, weights) = route(logits, correction, routing).unwrap();
    let weights = weights.astype(Dtype::Float32).unwrap();
    (chosen.to_vec_f32().unwrap(), weights)
}

#[test]
fn routes_are_those_that_mlx_composes() {
    let strategy = (a_routing(), 1..20i32, any::<u32>(), any::<bool>());
    on_every_isa(20, strategy, |(routing, tokens, seed, corrected)| {
        let logits = distinct(seed.into(), tokens);
        let correction: Vec<f32> = (0..16).map(|i| (i % 4) as f32 / 64.0).collect();
        let correction = Array::from_f32(&correction, &[16]).unwrap();
        let correction = corrected.then_some(&correction);
        let half = logits.astype(Dtype::Bfloat16).unwrap();
        let (ours, weights) = routed(&logits, correction, routing);
        let (theirs, their_weights) = routed(&half, correction, routing);
        prop_assert_eq!(ours, theirs);
        compare(&weights, &their_weights)?;
        let alone = token(&logits, tokens / 2);
        let (_, alone) = routed(&alone, correction, routing);
        same_bits(&alone, &token(&weights, tokens / 2))
    });
}

fn compare(ours: &Array, theirs: &Array) -> TestCaseResult {
    let (ours, theirs) = (ours.to_vec_f32().unwrap(), theirs.to_vec_f32().unwrap());
    for (a, b) in ours.iter().zip(&theirs) {
        prop_assert!((a - b).abs() <= 0.01 * a.abs().max(0.01), "{a} for {b}");
    }
    Ok(())
}

#[test]
fn a_route_by_hand() {
    let _turn = super::TURN
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    mlxcel::mlx::Device::Cpu.make_default().unwrap();
    let logits = Array::from_f32(&[0.0, 2.0, f32::NAN, 1.0], &[1, 4]).unwrap();
    let routing = Routing {
        scoring: Scoring::SoftmaxOfChosen,
        choices: 2,
        normalize: false,
        scale: 1.0,
        groups: 1,
        kept_groups: 1,
    };
    let (chosen, weights) = routed(&logits, None, routing);
    assert_eq!(chosen, [1.0, 3.0]);
    let e = 1f32.exp();
    let expected = Array::from_f32(&[e / (1.0 + e), 1.0 / (1.0 + e)], &[1, 2]).unwrap();
    close(&weights, &expected, 1).unwrap();
    let impossible = |routing| assert!(route(&logits, None, routing).is_err());
    impossible(Routing {
        choices: 5,
        ..routing
    });
    impossible(Routing {
        choices: 0,
        ..routing
    });
    impossible(Routing {
        groups: 3,
        ..routing
    });
    impossible(Routing {
        groups: 4,
        ..routing
    });
    impossible(Routing {
        groups: 2,
        kept_groups: 3,
        ..routing
    });
}

/// MLX has these on a GPU only, so there is nothing to compare with but the arithmetic.
#[test]
fn a_factor_of_an_expert_goes_on_its_products_before_the_bias() {
    let strategy = (1..40i32, 1..9i32, any::<u32>());
    on_every_isa(8, strategy, |(rows, tokens, seed)| {
        let seed = u64::from(seed);
        let packing = Mode::Nvfp4.packing().unwrap();
        let stack = packed(seed, &[EXPERTS, rows, 64], packing, Dtype::Float32);
        let plain = Experts::quantized(&stack).unwrap();
        let (factors, bias) = (
            floats(seed + 1, &[EXPERTS]),
            floats(seed + 2, &[EXPERTS, rows]),
        );
        let scaled = Experts::quantized(&stack).unwrap();
        let scaled = scaled
            .with_factors(&factors)
            .unwrap()
            .with_bias(&bias)
            .unwrap();
        let x = floats(seed + 3, &[tokens, 64]);
        let (chosen, array) = choices(seed, tokens, 2);
        let product = plain.product(&x, &array).unwrap();
        let given = scaled.product(&x, &array).unwrap();
        for (pair, &expert) in chosen.iter().enumerate() {
            let factor = factors
                .slice(&[expert as i32], &[expert as i32 + 1])
                .unwrap();
            let expected = token(&product, pair as i32).multiply(&factor).unwrap();
            let expected = expected.add(&token(&bias, expert as i32)).unwrap();
            same_bits(&token(&given, pair as i32), &expected)?;
        }
        Ok(())
    });
}
