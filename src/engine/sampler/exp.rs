//! Exponentials of a row: one way to compute them, the same on every machine, that the compiler
//! vectorizes. A system's libm would be slower and round differently from the next one's.

/// Elements whose sum is taken together. Sums of sums lose less, and a draw can skip a block.
pub const BLOCK: usize = 256;

/// Independent partial sums of a block, as many as fit a vector register.
const LANES: usize = 8;

/// `e^x` for `x ≤ 0`, to about one part in 10⁷; 0 below -87, where float32 ends.
///
/// After Cephes' `expf`: `x = n·ln 2 + r`, a polynomial for `e^r`, and `2^n` by its exponent bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding and subtracting it rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let scale = f32::from_bits((((n as i32) + 127) << 23) as u32);
    if x > -87.0 { value * scale } else { 0.0 }
}

/// The largest of the values; negative infinity where there are none.
pub fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// Σ e^((v - largest)·scale) of a block of at most [`BLOCK`] values.
pub fn block_sum(block: &[f32], largest: f32, scale: f32) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let chunks = block.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += exp((value - largest) * scale);
        }
    }
    let rest: f64 = rest
        .iter()
        .map(|&value| f64::from(exp((value - largest) * scale)))
        .sum();
    lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + rest
}

/// Σ e^(v - largest) of all values.
pub fn sum(values: &[f32], largest: f32) -> f64 {
    values
        .chunks(BLOCK)
        .map(|block| block_sum(block, largest, 1.0))
        .sum()
}

/// ln Σ e^v, stably.
pub fn log_sum_exp(values: &[f32]) -> f64 {
    let largest = largest(values);
    f64::from(largest) + sum(values, largest).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_exponential() {
        for i in 0..=86_900 {
            let x = -(i as f32) / 1000.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
    }

    #[test]
    fn sums_of_long_rows_are_exact_enough() {
        let row: Vec<f32> = (0..150_001)
            .map(|i| ((i * 37) % 1000) as f32 / 50.0)
            .collect();
        let want: f64 = row.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln();
        assert!((log_sum_exp(&row) - want).abs() < 1e-6);
        assert_eq!(log_sum_exp(&[5.0]), 5.0);
        assert_eq!(log_sum_exp(&[5.0, f32::NEG_INFINITY]), 5.0);
    }

    #[test]
    fn the_largest_is_found_wherever_it_is() {
        for at in 0..20 {
            let mut row = vec![-3.0f32; 20];
            row[at] = 2.0;
            assert_eq!(largest(&row), 2.0);
        }
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
    }
}
