//! Attention and copies of the cache.

use mlxcel::mlx::fast::{self, Kept, Scores};
use mlxcel::mlx::kernels::set_threads;
use mlxcel::mlx::{Affine, Array, Dtype, Packed};
use proptest::prelude::*;

use super::{close, floats, on_every_isa, same_bits, typed};

/// `[1, heads, seq, dim]` whose heads lie apart in something longer, as in a cache.
fn cached(seed: u64, heads: i32, seq: i32, dim: i32) -> Array {
    floats(seed, &[1, heads, seq + 5, dim])
        .slice(&[0; 4], &[1, heads, seq, dim])
        .unwrap()
}

fn attend(queries: &Array, keys: &Array, values: &Array) -> Array {
    fast::attention(queries, keys, values, &Scores::plain(queries.dim(3))).unwrap()
}

/// What query `s` of head `h` finds, in double precision.
fn found(queries: &Array, keys: &Array, values: &Array, h: usize, s: usize) -> Vec<f64> {
    let [_, heads, seq, dim] = *queries.shape() else {
        panic!("four dimensions");
    };
    let (heads, seq, dim) = (heads as usize, seq as usize, dim as usize);
    let total = keys.dim(2) as usize;
    let kv = h / (heads / keys.dim(1) as usize);
    let (queries, keys) = (queries.to_vec_f32().unwrap(), keys.to_vec_f32().unwrap());
    let values = values.to_vec_f32().unwrap();
    let row = |all: &[f32], index: usize| -> Vec<f64> {
        let row = &all[index * dim..(index + 1) * dim];
        row.iter().copied().map(f64::from).collect()
    };
    let query = row(&queries, h * seq + s);
    let seen = total - seq + s + 1;
    let scores: Vec<f64> = (0..seen)
        .map(|t| {
            let products = query.iter().zip(row(&keys, kv * total + t));
            products.map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt()
        })
        .collect();
    let most = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut out = vec![0.0; dim];
    for (t, weight) in weights.iter().enumerate() {
        for (out, value) in out.iter_mut().zip(row(&values, kv * total + t)) {
            *out += weight / sum * value;
        }
    }
    out
}

#[test]
fn attention_is_softmax_of_products_and_a_row_never_depends_on_the_others() {
    let shapes = (1..4i32, 1..4i32, 1..40i32, 0..600i32, 1..70i32);
    let strategy = (shapes, any::<u32>(), 1..4usize);
    on_every_isa(30, strategy, |(shape, seed, threads)| {
        let (kv_heads, group, seq, past, dim) = shape;
        set_threads(threads).unwrap();
        let (heads, total, seed) = (kv_heads * group, past + seq, u64::from(seed));
        let queries = floats(seed, &[1, heads, seq, dim]);
        let keys = cached(seed + 1, kv_heads, total, dim);
        let values = cached(seed + 2, kv_heads, total, dim);
        let all = attend(&queries, &keys, &values);
        let numbers = all.to_vec_f32().unwrap();
        for (h, s) in [(0, 0), (heads - 1, seq - 1), (heads / 2, seq / 2)] {
            let at = ((h * seq + s) * dim) as usize;
            let expected = found(&queries, &keys, &values, h as usize, s as usize);
            for (ours, expected) in numbers[at..].iter().zip(expected) {
                let difference = (f64::from(*ours) - expected).abs();
                prop_assert!(difference < 1e-5, "{ours} for {expected}");
            }
        }
        set_threads(4 - threads).unwrap();
        for s in [0, seq / 2, seq - 1] {
            let alone = attend(
                &part(&queries, s, s + 1),
                &part(&keys, 0, past + s + 1),
                &part(&values, 0, past + s + 1),
            );
            same_bits(&alone, &part(&all, s, s + 1))?;
        }
        Ok(())
    });
}

/// Positions `start..stop` of `[1, heads, seq, dim]`.
fn part(array: &Array, start: i32, stop: i32) -> Array {
    array
        .slice(&[0, 0, start, 0], &[1, array.dim(1), stop, array.dim(3)])
        .unwrap()
}

#[test]
fn arrays_are_put_behind_one_another_whatever_their_layout() {
    let shape = (1..4i32, 1..5i32, 1..300i32, 1..9i32);
    let types = prop::sample::select(vec![Dtype::Float32, Dtype::Bfloat16]);
    let strategy = (shape, types, 0..4usize, 0..3i32, any::<u32>());
    on_every_isa(20, strategy, |(shape, dtype, axis, room, seed)| {
        let (a, b, c, d) = shape;
        let seed = u64::from(seed);
        let mut whole = typed(seed, &[a, b, c, d], dtype);
        if seed % 2 == 0 {
            whole = whole.transpose(&[0, 2, 1, 3]).unwrap();
        }
        if seed % 3 == 0 {
            whole = whole.transpose(&[3, 1, 2, 0]).unwrap();
        }
        let length = whole.shape()[axis];
        let cut = |from: i32, to: i32| {
            let (mut start, mut stop) = ([0; 4], whole.shape().to_vec());
            (start[axis], stop[axis]) = (from, to);
            whole.slice(&start, &stop).unwrap()
        };
        let middle = length / 2;
        let parts = [cut(0, middle), cut(middle, length)];
        let parts: Vec<&Array> = parts.iter().collect();
        let joined = Array::concatenate_with_room(&parts, axis as i32, room).unwrap();
        let mut shape = whole.shape().to_vec();
        shape[axis] += room;
        prop_assert_eq!(joined.shape(), &shape[..]);
        let mut stop = shape.clone();
        stop[axis] = length;
        same_bits(&joined.slice(&[0; 4], &stop).unwrap(), &whole)?;
        let mut start = [0; 4];
        start[axis] = length;
        let rest = joined.slice(&start, &shape).unwrap().to_vec_f32().unwrap();
        prop_assert!(rest.iter().all(|&x| x == 0.0));
        Ok(())
    });
}

#[test]
fn positions_that_are_kept_are_seen_beside_the_window() {
    let strategy = (
        1..3i32,
        1..20i32,
        0..900i32,
        1..300i32,
        0..6i32,
        any::<u32>(),
    );
    on_every_isa(30, strategy, |(heads, seq, past, window, keep, seed)| {
        let (total, dim, seed) = (past + seq, 24, u64::from(seed));
        let queries = floats(seed, &[1, heads, seq, dim]);
        let keys = floats(seed + 1, &[1, heads, total, dim]);
        let values = floats(seed + 2, &[1, heads, total, dim]);
        let scores = Scores {
            window: Some(window),
            keep,
            ..Scores::plain(dim)
        };
        let all = fast::attention(&queries, &keys, &values, &scores).unwrap();
        for s in [0, seq / 2, seq - 1] {
            let end = past + s + 1;
            let first = (end - window).max(0);
            let seen = |x: &Array| match first.min(keep) {
                0 => part(x, first, end),
                kept => Array::concatenate(&[&part(x, 0, kept), &part(x, first, end)], 2).unwrap(),
            };
            let query = part(&queries, s, s + 1);
            close(
                &part(&all, s, s + 1),
                &attend(&query, &seen(&keys), &seen(&values)),
                1,
            )?;
            // Alone, and where what nobody sees between is gone in whole blocks.
            let between = ((first - 256).max(0)) / 256 * 256;
            let held = |x: &Array| match between {
                0 => part(x, 0, end),
                gone => {
                    Array::concatenate(&[&part(x, 0, 256), &part(x, 256 + gone, end)], 2).unwrap()
                }
            };
            let alone = fast::attention(&query, &held(&keys), &held(&values), &scores).unwrap();
            same_bits(&alone, &part(&all, s, s + 1))?;
        }
        Ok(())
    });
}

#[test]
fn a_cache_in_fewer_bits_is_read_as_the_numbers_it_stands_for() {
    let shapes = (1..4i32, 1..4i32, 1..20i32, 0..600i32, 1..5i32);
    let bits = prop::sample::select(vec![16, 8, 4]);
    let groups = prop::sample::select(vec![32, 64, 128]);
    let strategy = (shapes, bits, groups, any::<u32>());
    on_every_isa(30, strategy, |(shape, bits, group_size, seed)| {
        let (kv_heads, group, seq, past, groups) = shape;
        let (heads, total, dim) = (kv_heads * group, past + seq, groups * group_size);
        let seed = u64::from(seed);
        let queries = floats(seed, &[1, heads, seq, dim]);
        let keys = floats(seed + 1, &[1, kv_heads, total, dim]);
        let values = floats(seed + 2, &[1, kv_heads, total, dim]);
        let scores = Scores::plain(dim);
        let affine = Affine { group_size, bits };
        let kept = |x: &Array| match bits {
            16 => vec![x.astype(Dtype::Float16).unwrap()],
            _ => x.quantize(affine).unwrap().into(),
        };
        let read = |kept: &[Array]| match kept {
            [half] => half.astype(Dtype::Float32).unwrap(),
            // One at each feature in turn: the rows that products with them give are the numbers.
            [words, scales, biases] => {
                let flat = |x: &Array| x.reshape(&[kv_heads * total, -1]).unwrap();
                let one = |i: i32| f32::from(u8::from(i % (dim + 1) == 0));
                let ones: Vec<f32> = (0..dim * dim).map(one).collect();
                let ones = Array::from_f32(&ones, &[dim, dim]).unwrap();
                let (words, scales, biases) = (flat(words), flat(scales), flat(biases));
                let matrix = Packed {
                    words,
                    scales,
                    biases: Some(biases),
                    packing: affine.into(),
                };
                let rows = ones
                    .quantized_matmul(&matrix)
                    .unwrap()
                    .transpose(&[1, 0])
                    .unwrap();
                let rows = Array::concatenate(&[&rows], 0).unwrap();
                rows.reshape(&[1, kv_heads, total, dim]).unwrap()
            }
            _ => panic!("one array or three"),
        };
        let (kept_keys, kept_values) = (kept(&keys), kept(&values));
        let expected = attend(&queries, &read(&kept_keys), &read(&kept_values));
        let packed = (bits < 16).then_some(affine);
        let (k, v) = (each(&kept_keys), each(&kept_values));
        let all = fast::attention_over(&queries, &k, &v, packed, &scores).unwrap();
        close(&all, &expected, 1)?;
        let s = seq / 2;
        let cut = |kept: &[Array]| -> Vec<Array> {
            kept.iter().map(|it| part(it, 0, past + s + 1)).collect()
        };
        let (k, v) = (cut(&kept_keys), cut(&kept_values));
        let (k, v) = (each(&k), each(&v));
        let alone = part(&queries, s, s + 1);
        let alone = fast::attention_over(&alone, &k, &v, packed, &scores).unwrap();
        same_bits(&alone, &part(&all, s, s + 1))
    });
}

/// Keys or values whose groups are awkward: some of one number, one of zeros, one of huge numbers, one of
/// tiny ones.
fn awkward(seed: u64, shape: &[i32]) -> Array {
    let mut numbers = floats(seed, shape).to_vec_f32().unwrap();
    for (index, group) in numbers.chunks_mut(32).enumerate() {
        match (index as u64 + seed) % 7 {
            0 => group.fill(0.0),
            1 => group.fill(seed as f32 % 5.0 - 2.0),
            2 => group.iter_mut().for_each(|x| *x *= 1e5),
            3 => group.iter_mut().for_each(|x| *x *= 3e-6),
            4 => group.iter_mut().for_each(|x| *x += 1.0),
            _ => {}
        }
    }
    Array::from_f32(&numbers, shape).unwrap()
}

/// A sequence in a step: what it asks, the keys and values that it has then, as they are kept, and the buffers
/// that it begins with.
struct Sequence {
    queries: Array,
    new: [Array; 2],
    expected: Vec<Array>,
    buffers: Vec<Array>,
    filled: i32,
    added: i32,
    own: bool,
}

#[test]
fn what_is_written_with_attention_has_the_bits_of_the_operations_one_by_one() {
    let shapes = (1..4i32, 1..4i32, 1..4i32);
    let sequences = prop::collection::vec((1..20i32, 0..600i32, any::<bool>()), 1..4);
    let bits = prop::sample::select(vec![32, 16, 8, 4]);
    let groups = prop::sample::select(vec![32, 64, 128]);
    let strategy = (shapes, sequences, bits, groups, any::<u32>());
    on_every_isa(
        30,
        strategy,
        |(shape, sequences, bits, group_size, seed)| {
            let (kv_heads, group, groups) = shape;
            let dim = match bits {
                32 | 16 => groups * 20 + seed as i32 % 7,
                _ => groups * group_size,
            };
            let affine = Affine { group_size, bits };
            let kept = |x: &Array| match bits {
                32 => vec![x.clone()],
                16 => vec![x.astype(Dtype::Float16).unwrap()],
                _ => x.quantize(affine).unwrap().into(),
            };
            let sequence = |(index, (added, filled, own)): (usize, (i32, i32, bool))| {
                let seed = u64::from(seed) % 1000 + 10 * index as u64;
                let total = filled + added;
                let both = [1, 2].map(|side| awkward(seed + side, &[1, kv_heads, total, dim]));
                let expected: Vec<Array> = both.iter().flat_map(kept).collect();
                let begun = |all: &Array| match filled {
                    0 => {
                        let shape = [1, kv_heads, added + 3, all.dim(3)];
                        Array::zeros(&shape, all.dtype().unwrap()).unwrap()
                    }
                    _ => Array::concatenate_with_room(&[&part(all, 0, filled)], 2, added + 3)
                        .unwrap(),
                };
                Sequence {
                    queries: floats(seed, &[1, kv_heads * group, added, dim]),
                    new: both.map(|all| part(&all, filled, total)),
                    buffers: expected.iter().map(begun).collect(),
                    expected,
                    filled,
                    added,
                    own,
                }
            };
            let all: Vec<Sequence> = sequences.into_iter().enumerate().map(sequence).collect();
            let tokens = |of: &dyn Fn(&Sequence) -> &Array| {
                let parts: Vec<Array> = all
                    .iter()
                    .map(|it| of(it).transpose(&[2, 1, 0, 3]).unwrap())
                    .collect();
                Array::concatenate(&each(&parts), 0).unwrap()
            };
            let rows: Vec<Kept<'_>> = all
                .iter()
                .map(|it| Kept {
                    buffers: &it.buffers,
                    filled: it.filled,
                    added: it.added,
                    own: it.own,
                })
                .collect();
            let packed = (bits < 16).then_some(affine);
            let scores = Scores::plain(dim);
            let (found, after) = fast::attend_and_keep(
                &tokens(&|it| &it.queries),
                &tokens(&|it| &it.new[0]),
                &tokens(&|it| &it.new[1]),
                &rows,
                packed,
                &scores,
            )
            .unwrap();
            let mut first = 0;
            for (it, after) in all.iter().zip(&after) {
                let (k, v) = it.expected.split_at(it.expected.len() / 2);
                let alone = fast::attention_over(&it.queries, &each(k), &each(v), packed, &scores);
                let joined = alone
                    .and_then(|it| it.transpose(&[0, 2, 1, 3]))
                    .and_then(|alone| alone.reshape(&[it.added, -1]));
                let stop = first + it.added;
                let own = found.slice(&[first, 0], &[stop, found.dim(1)]).unwrap();
                same_bits(&own, &joined.unwrap())?;
                first = stop;
                let total = it.filled + it.added;
                for (after, expected) in after.iter().zip(&it.expected) {
                    prop_assert_eq!(after.dim(2), total + 3);
                    // Bytes, as a float32 has no room for every word.
                    let bytes = |x: &Array| {
                        let copy = Array::concatenate(&[x], 2).unwrap();
                        copy.view(Dtype::Uint8).unwrap()
                    };
                    same_bits(&bytes(&part(after, 0, total)), &bytes(expected))?;
                }
            }
            Ok(())
        },
    );
}

fn each(arrays: &[Array]) -> Vec<&Array> {
    arrays.iter().collect()
}
