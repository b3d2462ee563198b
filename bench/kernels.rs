//! Our kernels beside what the machine can do: GB/s for one row of activations, GFLOP/s for many, GB/s of
//! keys and values for one query, and the memory's speed and the processor's, all measured in the same run.
//!
//!     cargo bench --bench kernels [products] [attention]

mod attention;
mod machine;

use std::time::Instant;

use machine::{FOOTPRINT, ROUNDS, load, peak, read_bandwidth};
use mlxcel::mlx::kernels::{Isa, set_threads};
use mlxcel::mlx::{Array, Device, Dtype, Matrix, MlxError, Packed, Packing};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Rows and columns of a matrix.
const SIZE: i32 = 2048;

fn main() -> Result<(), MlxError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Device::Cpu.make_default()?;
    set_threads(threads)?;
    println!("{threads} threads, load {}", load());
    println!("memory   {:8.1} GB/s", read_bandwidth(threads));
    println!("fused multiply-adds {:8.1} GFLOP/s", peak(threads));
    let named: Vec<String> = std::env::args().filter(|it| !it.starts_with('-')).collect();
    let wanted = |part: &str| named.len() < 2 || named.iter().any(|it| it == part);
    for isa in Isa::available() {
        isa.choose()?;
        if wanted("products") {
            report_products(isa)?;
        }
        if wanted("attention") {
            attention::report(isa)?;
        }
    }
    println!("memory   {:8.1} GB/s", read_bandwidth(threads));
    Ok(())
}

fn report_products(isa: Isa) -> Result<(), MlxError> {
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        for bits in [2, 3, 4, 5, 6, 8] {
            let packing = Packing::affine(bits, 64);
            report(isa, &format!("{bits}-bit {dtype}"), || {
                packed(packing, dtype)
            })?;
        }
        report(isa, &format!("dense {dtype}"), || dense(dtype))?;
    }
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
