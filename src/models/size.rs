//! How much memory a sequence's state takes: plain numbers, for whoever plans.

use super::{kv_cache, window_cache};

/// Bytes of one sequence's state, by what its layers keep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateSize {
    /// A token, in the layers that keep every position.
    pub per_token: u64,
    /// The layers that keep the last positions only.
    pub windows: Vec<Window>,
    /// The layers whose state does not grow; it is float32 whatever the activations are.
    pub fixed: u64,
}

/// Layers that keep a window of the last positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many they have room for at most.
    pub positions: usize,
    /// Bytes of one, in all these layers together.
    pub per_token: u64,
}

impl StateSize {
    /// Of a model whose layers all keep every position.
    pub fn growing(per_token: u64) -> Self {
        Self {
            per_token,
            ..Self::default()
        }
    }

    /// `factor` times as much of what grows with the tokens.
    pub fn times(self, factor: u64) -> Self {
        let wider = |window: Window| Window {
            per_token: window.per_token * factor,
            ..window
        };
        Self {
            per_token: self.per_token * factor,
            windows: self.windows.into_iter().map(wider).collect(),
            fixed: self.fixed,
        }
    }

    /// Takes `numbers` more a token in a layer whose tokens see `window` positions.
    pub fn add_attention(&mut self, numbers: u64, window: Option<i32>) {
        let Some(window) = window else {
            self.per_token += numbers;
            return;
        };
        let positions = window_cache::most_positions(window);
        match self.windows.iter_mut().find(|it| it.positions == positions) {
            Some(same) => same.per_token += numbers,
            None => self.windows.push(Window {
                positions,
                per_token: numbers,
            }),
        }
    }

    /// What a sequence of `tokens` takes. Buffers grow by steps, so this does too.
    pub fn bytes(&self, tokens: usize) -> u64 {
        let growing = kv_cache::capacity_for(tokens).saturating_mul(self.per_token);
        self.copied_bytes(tokens).saturating_add(growing)
    }

    /// The part of it that does not keep every position, and so exists for the last only.
    pub fn copied_bytes(&self, tokens: usize) -> u64 {
        let windows: u64 = self
            .windows
            .iter()
            .map(|window| {
                let positions = kv_cache::capacity_for(tokens).min(window.positions as u64);
                positions.saturating_mul(window.per_token)
            })
            .sum();
        self.fixed.saturating_add(windows)
    }

    /// The most tokens, `most` at the utmost, that a sequence can have within `bytes`.
    pub fn tokens_within(&self, bytes: u64, most: usize) -> usize {
        let (mut fits, mut beyond) = (0, most.saturating_add(1));
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            if self.bytes(middle) <= bytes {
                fits = middle;
            } else {
                beyond = middle;
            }
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_grows_by_steps_beside_its_windows_and_what_is_fixed() {
        let size = StateSize {
            per_token: 10,
            windows: vec![Window {
                positions: 100,
                per_token: 2,
            }],
            fixed: 7,
        };
        assert_eq!(size.bytes(0), 7);
        assert_eq!(size.bytes(1), 7 + 200 + 2560);
        assert_eq!(size.bytes(256), 7 + 200 + 2560);
        assert_eq!(size.bytes(257), 7 + 200 + 5120);
    }

    #[test]
    fn the_most_tokens_are_found() {
        let size = StateSize::growing(10);
        assert_eq!(size.tokens_within(2559, 5000), 0);
        assert_eq!(size.tokens_within(2560, 5000), 256);
        assert_eq!(size.tokens_within(25_600, 1000), 1000);
        assert_eq!(size.tokens_within(u64::MAX, usize::MAX - 1), usize::MAX - 1);
    }
}
