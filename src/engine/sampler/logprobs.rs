//! Log-probabilities under the model's own distribution.

use super::SampleError;
use super::candidates::best;
use super::exp::log_sum_exp;
use crate::engine::request::TokenLogprobs;

/// The logprob of `chosen` and of the `top` likeliest tokens, best first, equals by id, from a row of
/// logits (`[vocab]`). `chosen` is below `vocab`.
pub fn logprobs(logits: &[f32], chosen: u32, top: usize) -> TokenLogprobs {
    let norm = log_sum_exp(logits);
    let at = |token: usize| (f64::from(logits[token]) - norm) as f32;
    TokenLogprobs {
        logprob: at(chosen as usize),
        top: best(logits, top)
            .into_iter()
            .map(|token| (token as u32, at(token)))
            .collect(),
    }
}

/// The same for consecutive tokens of a prompt: row `i` of `logits` (`[tokens, vocab]`) is what the
/// model expected at `tokens[i]`.
pub fn prompt_logprobs(
    logits: &[f32],
    tokens: &[u32],
    top: usize,
) -> Result<Vec<TokenLogprobs>, SampleError> {
    let vocab = logits.len().checked_div(tokens.len()).unwrap_or(0).max(1);
    let row = |(row, &token): (&[f32], &u32)| {
        if row.iter().any(|logit| logit.is_nan()) || token as usize >= row.len() {
            return Err(SampleError::NotANumber);
        }
        Ok(logprobs(row, token, top))
    };
    logits.chunks_exact(vocab).zip(tokens).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_models_own() {
        let logits: Vec<f32> = [0.5f32, 0.25, 0.25].iter().map(|p| p.ln() + 3.0).collect();
        let found = logprobs(&logits, 2, 2);
        assert!((found.logprob - 0.25f32.ln()).abs() < 1e-6);
        let ids: Vec<u32> = found.top.iter().map(|top| top.0).collect();
        assert_eq!(ids, [0, 1]);
        assert!((found.top[0].1 - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(logprobs(&logits, 2, 0).top, []);
        assert_eq!(logprobs(&logits, 2, 9).top.len(), 3);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let found = logprobs(&[1e4, 1e4, -1e4], 0, 0);
        assert!((found.logprob + 2f32.ln()).abs() < 1e-6);
        assert_eq!(
            logprobs(&[0.0, f32::NEG_INFINITY], 1, 0).logprob,
            f32::NEG_INFINITY
        );
    }

    #[test]
    fn a_prompts_rows_are_read_one_by_one() {
        let rows = [0.0, 0.0, 0.0, f32::NEG_INFINITY];
        let found = prompt_logprobs(&rows, &[1, 0], 1).unwrap();
        assert!((found[0].logprob - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(
            (found[1].logprob, found[1].top.as_slice()),
            (0.0, &[(0, 0.0)][..])
        );
        let broken = prompt_logprobs(&[0.0, f32::NAN], &[0], 0);
        assert_eq!(broken, Err(SampleError::NotANumber));
        assert_eq!(prompt_logprobs(&[], &[], 0), Ok(vec![]));
    }
}
