//! Our kernels beside what the machine can do: GB/s for one row of activations, GFLOP/s for many, and
//! the memory's speed and the processor's, all measured in the same run.
//!
//!     cargo bench --bench kernels

use std::hint::black_box;
use std::time::Instant;

use mlxcel::mlx::kernels::{Isa, set_threads};
use mlxcel::mlx::{Array, Device, Dtype, Matrix, MlxError, Packed, Packing};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Rows and columns of a matrix.
const SIZE: i32 = 2048;
/// Bytes of matrices that are gone through in turn: more than caches hold.
const FOOTPRINT: u64 = 128 << 20;
const ROUNDS: usize = 5;

fn main() -> Result<(), MlxError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Device::Cpu.make_default()?;
    set_threads(threads)?;
    println!("{threads} threads, load {}", load());
    println!("memory   {:8.1} GB/s", read_bandwidth(threads));
    println!("fused multiply-adds {:8.1} GFLOP/s", peak(threads));
    for isa in Isa::available() {
        isa.choose()?;
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            for bits in [2, 3, 4, 5, 6, 8] {
                let group_size = 64;
                let packing = Packing::affine(bits, group_size);
                report(isa, &format!("{bits}-bit {dtype}"), || {
                    packed(packing, dtype)
                })?;
            }
            report(isa, &format!("dense {dtype}"), || dense(dtype))?;
        }
    }
    println!("memory   {:8.1} GB/s", read_bandwidth(threads));
    Ok(())
}

/// A matrix, and its bytes.
type Weighed = (Matrix, u64);

fn report(
    isa: Isa,
    name: &str,
    make: impl Fn() -> Result<Weighed, MlxError>,
) -> Result<(), MlxError> {
    let first = make()?;
    let bytes = first.1;
    let mut matrices = vec![first];
    while matrices.len() as u64 * bytes < FOOTPRINT {
        matrices.push(make()?);
    }
    let one = seconds(&matrices, 1)?;
    let many = seconds(&matrices[..2], 512)?;
    let gigabytes = bytes as f64 / one / 1e9;
    let flops = 2.0 * 512.0 * f64::from(SIZE) * f64::from(SIZE) / many / 1e9;
    println!(
        "{:8} {name:16} 1 row {gigabytes:6.1} GB/s   512 rows {flops:7.1} GFLOP/s",
        isa.name()
    );
    Ok(())
}

/// The best time of one product, of several rounds over all matrices.
fn seconds(matrices: &[Weighed], rows: i32) -> Result<f64, MlxError> {
    let x = Array::from_f32(&random((rows * SIZE) as usize), &[rows, SIZE])?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let products = matrices
            .iter()
            .map(|(matrix, _)| matrix.product(&x))
            .collect::<Result<Vec<_>, _>>()?;
        Array::eval_all(&products.iter().collect::<Vec<_>>())?;
        best = best.min(start.elapsed().as_secs_f64() / matrices.len() as f64);
    }
    Ok(best)
}

fn packed(packing: Packing, dtype: Dtype) -> Result<Weighed, MlxError> {
    let mut generator = SmallRng::seed_from_u64(1);
    let words = SIZE * packing.bits / 32;
    let values: Vec<u32> = (0..SIZE * words).map(|_| generator.random()).collect();
    let words = Array::from_u32(&values, &[SIZE, words])?;
    let groups = [SIZE, SIZE / packing.group_size];
    let scales =
        Array::from_f32(&random((groups[0] * groups[1]) as usize), &groups)?.astype(dtype)?;
    let bytes = words.nbytes() + 2 * scales.nbytes();
    let packed = Packed {
        words,
        biases: Some(scales.clone()),
        scales,
        packing,
    };
    Ok((Matrix::quantized(&packed)?, bytes))
}

fn dense(dtype: Dtype) -> Result<Weighed, MlxError> {
    let values = Array::from_f32(&random((SIZE * SIZE) as usize), &[SIZE, SIZE])?.astype(dtype)?;
    Ok((Matrix::dense(&values)?, values.nbytes()))
}

fn random(len: usize) -> Vec<f32> {
    let mut generator = SmallRng::seed_from_u64(2);
    (0..len)
        .map(|_| generator.random_range(-1.0..1.0))
        .collect()
}

/// What all threads together read of memory that no cache holds, in GB/s.
fn read_bandwidth(threads: usize) -> f64 {
    let data = vec![1u64; (FOOTPRINT as usize) / 8 * 2];
    let part = data.len() / threads;
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for share in data.chunks(part) {
                scope.spawn(|| black_box(share.iter().fold(0, |sum: u64, x| sum ^ x)));
            }
        });
        (data.len() * 8) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..ROUNDS).map(|_| pass()).fold(0.0, f64::max)
}

/// What all threads together compute in registers, in GFLOP/s.
fn peak(threads: usize) -> f64 {
    let start = Instant::now();
    let flops: f64 = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(multiply_add)).collect();
        running
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .sum()
    });
    flops / start.elapsed().as_secs_f64() / 1e9
}

const STEPS: usize = 20_000_000;

/// Chains of multiply-adds; how many operations they were.
#[cfg(target_arch = "x86_64")]
fn multiply_add() -> f64 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    const CHAINS: usize = 12;
    #[target_feature(enable = "avx512f")]
    fn wide() {
        let (factor, mut sums) = (_mm512_set1_ps(0.5), [_mm512_set1_ps(1.0); CHAINS]);
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
    #[target_feature(enable = "avx2,fma")]
    fn narrow() {
        let (factor, mut sums) = (_mm256_set1_ps(0.5), [_mm256_set1_ps(1.0); CHAINS]);
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
    let operations = (2 * CHAINS * STEPS) as f64;
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has these instructions.
        unsafe { wide() };
        operations * 16.0
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has these instructions.
        unsafe { narrow() };
        operations * 8.0
    } else {
        0.0
    }
}

/// Chains of multiply-adds; how many operations they were.
#[cfg(target_arch = "aarch64")]
fn multiply_add() -> f64 {
    use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32};
    const CHAINS: usize = 16;
    // SAFETY: every 64-bit Arm has these instructions.
    let sums = unsafe {
        let (factor, mut sums) = (vdupq_n_f32(0.5), [vdupq_n_f32(1.0); CHAINS]);
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = vfmaq_f32(factor, *sum, factor);
            }
        }
        sums
    };
    black_box(sums);
    (2 * CHAINS * STEPS * 4) as f64
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
