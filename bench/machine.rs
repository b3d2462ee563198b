//! What the machine can do, and what else it is doing.

use std::hint::black_box;
use std::time::Instant;

/// Bytes that are gone through in turn: more than caches hold.
pub const FOOTPRINT: u64 = 128 << 20;
/// How often each thing is measured; the best counts.
pub const ROUNDS: usize = 5;

/// What all threads together read of memory that no cache holds, in GB/s.
pub fn read_bandwidth(threads: usize) -> f64 {
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
pub fn peak(threads: usize) -> f64 {
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

/// Chains of multiply-adds; how many operations they were. Where they begin is hidden: the compiler would
/// make one of those that it knows to be equal.
#[cfg(target_arch = "x86_64")]
fn multiply_add() -> f64 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    const CHAINS: usize = 12;
    #[target_feature(enable = "avx512f")]
    fn wide() {
        let factor = _mm512_set1_ps(black_box(0.5));
        let mut sums = [_mm512_set1_ps(0.0); CHAINS];
        for sum in &mut sums {
            *sum = _mm512_set1_ps(black_box(1.0));
        }
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
    #[target_feature(enable = "avx2,fma")]
    fn narrow() {
        let factor = _mm256_set1_ps(black_box(0.5));
        let mut sums = [_mm256_set1_ps(0.0); CHAINS];
        for sum in &mut sums {
            *sum = _mm256_set1_ps(black_box(1.0));
        }
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
        let factor = vdupq_n_f32(black_box(0.5));
        let mut sums = [vdupq_n_f32(0.0); CHAINS];
        for sum in &mut sums {
            *sum = vdupq_n_f32(black_box(1.0));
        }
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

/// Of the last minute, as the kernel tells it.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
