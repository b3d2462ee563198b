//! One query over a long cache.

use std::time::Instant;

use mlxcel::mlx::fast::{Scores, attention_over};
use mlxcel::mlx::kernels::Isa;
use mlxcel::mlx::{Affine, Array, Dtype, MlxError};

use super::machine::{FOOTPRINT, ROUNDS};
use super::random;

/// Key heads, queries for each, their features, and positions held.
const SHAPES: [(i32, i32, i32, i32); 2] = [(4, 3, 64, 8192), (8, 4, 128, 8192)];

/// Prints what attention reads of a cache in each format.
pub fn report(isa: Isa) -> Result<(), MlxError> {
    for shape in SHAPES {
        for bits in [32, 16, 8, 4] {
            let gigabytes = speed(shape, bits)?;
            let (heads, group, dim, positions) = shape;
            println!(
                "{:8} {bits:2}-bit cache, {heads} heads of {dim} with {group} queries each, {positions} \
                 positions {gigabytes:6.1} GB/s",
                isa.name()
            );
        }
    }
    Ok(())
}

/// The arrays that keys, or values, are kept in.
fn kept(x: &Array, bits: i32) -> Result<Vec<Array>, MlxError> {
    match bits {
        32 => Ok(vec![x.clone()]),
        16 => Ok(vec![x.astype(Dtype::Float16)?]),
        _ => Ok(x.quantize(affine(bits))?.into()),
    }
}

fn affine(bits: i32) -> Affine {
    let group_size = 64;
    Affine { group_size, bits }
}

/// GB/s of the best of several rounds over caches that no cache of the processor holds together.
fn speed(shape: (i32, i32, i32, i32), bits: i32) -> Result<f64, MlxError> {
    let (heads, group, dim, positions) = shape;
    let query = Array::from_f32(
        &random((heads * group * dim) as usize),
        &[1, heads * group, 1, dim],
    )?;
    let numbers = Array::from_f32(
        &random((heads * positions * dim) as usize),
        &[1, heads, positions, dim],
    )?;
    let mut caches = Vec::new();
    let mut bytes = 0;
    while bytes < FOOTPRINT {
        let cache: Vec<Vec<Array>> = (0..2)
            .map(|_| {
                let copy = Array::concatenate(&[&numbers], 2)?;
                kept(&copy, bits)
            })
            .collect::<Result<_, _>>()?;
        let arrays: Vec<&Array> = cache.iter().flatten().collect();
        Array::eval_all(&arrays)?;
        bytes += arrays.iter().map(|array| array.nbytes()).sum::<u64>();
        caches.push(cache);
    }
    let packed = (bits < 16).then(|| affine(bits));
    let scores = Scores::plain(dim);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let found = caches
            .iter()
            .map(|cache| {
                let [keys, values] = [0, 1].map(|side| cache[side].iter().collect::<Vec<_>>());
                attention_over(&query, &keys, &values, packed, &scores)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Array::eval_all(&found.iter().collect::<Vec<_>>())?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(bytes as f64 / best / 1e9)
}
