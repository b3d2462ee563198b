//! Products whose activations are quantized to 8 bits, against a plain reference.

use mlxcel::mlx::kernels::{quantize_activations, set_threads};
use mlxcel::mlx::{Activation, Array, Dtype, Matrix, Packing, gated_mlp, gated_product};
use proptest::prelude::*;

use super::{
    a_float_type, a_packing, activations, close, floats, mlxs_product, on_every_isa, packed,
    same_bits, token,
};

/// Quantizes until it is dropped. One at a time, as `on_every_isa` has it.
struct Quantizing;

impl Quantizing {
    fn start() -> Self {
        quantize_activations(true);
        Self
    }
}

impl Drop for Quantizing {
    fn drop(&mut self) {
        quantize_activations(false);
    }
}

fn integers() -> impl Strategy<Value = Packing> {
    let bits = prop::sample::select(vec![4, 8]);
    let group = prop::sample::select(vec![32, 64, 128]);
    (bits, group).prop_map(|(bits, group)| Packing::affine(bits, group))
}

/// What is left of `x` (`[tokens, columns]`) in 8 bits: 32 neighbours share their largest size over 127.
fn rounded(x: &Array) -> Array {
    let mut values = x.to_vec_f32().unwrap();
    for group in values.chunks_mut(32) {
        let largest = group.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        for x in group {
            *x = (*x * factor).round_ties_even() * (largest / 127.0);
        }
    }
    Array::from_f32(&values, x.shape()).unwrap()
}

#[test]
fn a_product_is_that_of_rounded_activations_and_a_row_never_depends_on_the_others() {
    let shapes = (1..80i32, 1..9i32, 1..24i32, 0..3u8);
    let strategy = (integers(), a_float_type(), shapes, any::<u32>(), 1..4usize);
    on_every_isa(40, strategy, |(packing, dtype, shape, seed, threads)| {
        let (rows, groups, tokens, layout) = shape;
        let (columns, seed) = (groups * packing.group_size, u64::from(seed));
        let packed = packed(seed, &[rows, columns], packing, dtype);
        let x = activations(seed + 3, tokens, columns, layout);
        let expected = mlxs_product(&rounded(&x), &packed);
        let matrix = Matrix::quantized(&packed).unwrap();
        let _quantizing = Quantizing::start();
        set_threads(threads).unwrap();
        let product = matrix.product(&x).unwrap();
        close(&product, &expected, columns)?;
        for i in [0, tokens / 2, tokens - 1] {
            set_threads(4 - threads).unwrap();
            let alone = matrix.product(&token(&x, i)).unwrap();
            same_bits(&alone, &token(&product, i))?;
        }
        Ok(())
    });
}

#[test]
fn matrices_without_such_integers_are_multiplied_as_ever() {
    let strategy = (a_packing(), 1..80i32, 1..4i32, 1..9i32, any::<u32>());
    on_every_isa(30, strategy, |(packing, rows, groups, tokens, seed)| {
        let (columns, seed) = (128 * groups, u64::from(seed));
        let takes_integers = Packing::affine(packing.bits, packing.group_size) == packing
            && [4, 8].contains(&packing.bits);
        prop_assume!(!takes_integers);
        let packed = packed(seed, &[rows, columns], packing, Dtype::Bfloat16);
        let quantized = Matrix::quantized(&packed).unwrap();
        let dense = Matrix::dense(&floats(seed + 5, &[rows, columns])).unwrap();
        let x = floats(seed + 6, &[tokens, columns]);
        for matrix in [&quantized, &dense] {
            let exact = matrix.product(&x).unwrap();
            Array::eval_all(&[&exact]).unwrap();
            let _quantizing = Quantizing::start();
            same_bits(&matrix.product(&x).unwrap(), &exact)?;
        }
        Ok(())
    });
}

#[test]
fn numbers_without_a_size_to_share_are_zeros() {
    on_every_isa(1, Just(()), |()| {
        let packed = packed(1, &[5, 128], Packing::affine(4, 64), Dtype::Float32);
        let matrix = Matrix::quantized(&packed).unwrap();
        let mut values = vec![0.0; 256];
        values[200] = 1e-39;
        let x = Array::from_f32(&values, &[2, 128]).unwrap();
        let _quantizing = Quantizing::start();
        let product = matrix.product(&x).unwrap().to_vec_f32().unwrap();
        prop_assert!(product.iter().all(|x| x.abs() < 1e-30), "{product:?}");
        Ok(())
    });
}

#[test]
fn an_mlp_and_rows_of_the_embedding_hold_together() {
    let strategy = (integers(), integers(), 1..4i32, 1..12i32, any::<u32>());
    on_every_isa(15, strategy, |(open, down, groups, tokens, seed)| {
        let (hidden, inner, seed) = (128 * groups, 256, u64::from(seed));
        let matrix = |seed, shape: &[i32], packing| {
            Matrix::quantized(&packed(seed, shape, packing, Dtype::Float32)).unwrap()
        };
        // The widths of gate and up may differ: then each has activations of its own.
        let gate = matrix(seed, &[inner, hidden], open);
        let up = matrix(seed + 10, &[inner, hidden], down);
        let down = matrix(seed + 20, &[hidden, inner], down);
        let x = floats(seed + 30, &[tokens, hidden]);
        let ids = Array::from_u32(&[0, 3], &[2]).unwrap();
        let exact = gate.rows(&ids, Dtype::Float32).unwrap();
        Array::eval_all(&[&exact]).unwrap();
        let _quantizing = Quantizing::start();
        same_bits(&gate.rows(&ids, Dtype::Float32).unwrap(), &exact)?;
        let at_once = gated_mlp(&x, [&gate, &up, &down], Activation::Silu, Some(&x)).unwrap();
        let opened = gated_product(&x, &gate, &up, Activation::Silu).unwrap();
        let halves = down.product_add(&opened, &x).unwrap();
        same_bits(&at_once, &halves)?;
        let alone = gated_mlp(&token(&x, 0), [&gate, &up, &down], Activation::Silu, None);
        let whole = gated_mlp(&x, [&gate, &up, &down], Activation::Silu, None).unwrap();
        same_bits(&alone.unwrap(), &token(&whole, 0))
    });
}
