//! Random numbers by counting, and the token that one of them names.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::exp::{BLOCK, block_sum, exp};

/// Where a request's random numbers come from. ChaCha is a function of key, stream and block: the
/// seed is the key, the choice's index the stream, and each generated token has its own block. So
/// a number does not depend on how many were asked for before.
pub struct Key {
    rng: ChaCha12Rng,
}

/// The random numbers of one position, uniform in `[0, 1)`.
pub struct Draws {
    /// Chooses the token.
    pub token: f64,
    /// Decides whether XTC acts.
    pub xtc: f64,
}

impl Key {
    /// Of the choice with the index `choice` of a request with this seed.
    pub fn new(seed: u64, choice: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha12Rng::from_seed(key);
        rng.set_stream(choice);
        Self { rng }
    }

    /// The numbers for the token after `position` generated ones.
    pub fn at(&self, position: u64) -> Draws {
        /// 32-bit words of a block.
        const WORDS: u128 = 16;
        let mut rng = self.rng.clone();
        rng.set_word_pos(u128::from(position) * WORDS);
        // 53 bits, as many as a float64 holds below 1.
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        Draws {
            token: uniform(),
            xtc: uniform(),
        }
    }
}

/// The index in `logits` that `draw` names under the softmax at this temperature, by inverting the
/// cumulative distribution in the order of the indices. `largest` is the largest logit, finite.
pub fn pick(logits: &[f32], largest: f32, temperature: f32, draw: f64) -> usize {
    let scale = 1.0 / temperature;
    // A denormal temperature: all the weight is on the largest.
    let scale = if scale.is_finite() { scale } else { f32::MAX };
    let sums: Vec<f64> = logits
        .chunks(BLOCK)
        .map(|block| block_sum(block, largest, scale))
        .collect();
    let mut left = draw * sums.iter().sum::<f64>();
    let mut last = 0;
    for (index, (block, sum)) in logits.chunks(BLOCK).zip(&sums).enumerate() {
        if *sum == 0.0 {
            continue;
        }
        if left >= *sum {
            left -= sum;
            last = index;
            continue;
        }
        return index * BLOCK + pick_in(block, largest, scale, left);
    }
    // Rounding left a crumb beyond the last block with any weight: its last token with any.
    let block = &logits[last * BLOCK..logits.len().min((last + 1) * BLOCK)];
    last * BLOCK + pick_in(block, largest, scale, f64::INFINITY)
}

/// Within one block; beyond its weight it is the last with any.
fn pick_in(block: &[f32], largest: f32, scale: f32, mut left: f64) -> usize {
    let mut last = 0;
    for (index, &logit) in block.iter().enumerate() {
        let weight = f64::from(exp((logit - largest) * scale));
        if weight > 0.0 {
            if left < weight {
                return index;
            }
            left -= weight;
            last = index;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_seed_choice_and_position_and_on_nothing_else() {
        let key = Key::new(7, 0);
        let far = key.at(1_000_000).token;
        let near = key.at(3).token;
        assert_eq!(Key::new(7, 0).at(3).token, near);
        assert_eq!(key.at(1_000_000).token, far);
        for other in [Key::new(7, 1), Key::new(8, 0)] {
            assert_ne!(other.at(3).token, near);
        }
        assert_ne!(key.at(3).xtc, near);
        assert_ne!(far, near);
    }

    /// These are the promise that a seed means the same after an update.
    #[test]
    fn the_numbers_are_fixed() {
        let at = |seed, choice, position| Key::new(seed, choice).at(position).token;
        // The first is the beginning of ChaCha12's published stream for a key of zeros.
        for (found, want) in [
            (at(0, 0, 0), 0.328_023),
            (at(1, 0, 0), 0.963_628),
            (at(1, 2, 0), 0.017_525),
            (at(1, 0, 5), 0.650_958),
            (at(u64::MAX, 0, 1), 0.288_070),
        ] {
            assert!((found - want).abs() < 1e-6, "{found} is not {want}");
        }
    }

    #[test]
    fn draws_are_uniform() {
        // Chi-square with 63 degrees of freedom; the seed is fixed, so this cannot flake.
        let key = Key::new(11, 0);
        let mut seen = [0u32; 64];
        let count = 64_000;
        for position in 0..count {
            seen[(key.at(position).token * 64.0) as usize] += 1;
        }
        let expected = count as f64 / 64.0;
        let chi: f64 = seen
            .iter()
            .map(|&n| (f64::from(n) - expected).powi(2) / expected)
            .sum();
        // The 0.1 % and 99.9 % quantiles.
        assert!((34.0..103.4).contains(&chi), "{chi}");
    }

    #[test]
    fn the_ends_of_the_unit_interval_name_tokens_with_weight() {
        let mut logits = vec![f32::NEG_INFINITY; 3 * BLOCK];
        logits[BLOCK + 3] = 1.0;
        logits[BLOCK + 9] = 1.0;
        let almost = 1.0 - f64::EPSILON / 2.0;
        assert_eq!(pick(&logits, 1.0, 1.0, 0.0), BLOCK + 3);
        assert_eq!(pick(&logits, 1.0, 1.0, almost), BLOCK + 9);
        assert_eq!(pick(&logits, 1.0, f32::MIN_POSITIVE, almost), BLOCK + 9);
        assert_eq!(pick(&[0.0, -1.0], 0.0, 1e-45, almost), 0);
    }
}
