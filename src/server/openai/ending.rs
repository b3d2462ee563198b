//! When an output may end, and by which tokens: vLLM's `min_tokens`, `stop_token_ids`, `ignore_eos`.

use super::ranges::integer;
use crate::server::error::ApiError;

/// Most stop tokens of one request.
const MAX_STOP_TOKENS: usize = 128;

/// What ends an output beside its stop strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// Tokens before which nothing but the limit, or a grammar that leaves no choice, ends it.
    pub min_tokens: usize,
    /// Further tokens that end it.
    stop_tokens: Vec<u32>,
    /// Whether the model's own are never chosen.
    ignores_eos: bool,
}

/// What that means to the engine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StopTokens {
    /// Tokens that end an output.
    pub ending: Vec<u32>,
    /// Tokens that are not chosen before so many others were.
    pub withheld: Vec<(u32, usize)>,
}

impl Ending {
    /// Checks the request's fields. `vocab` bounds the tokens.
    pub fn checked(
        min_tokens: Option<i64>,
        stop_token_ids: Option<Vec<i64>>,
        ignore_eos: Option<bool>,
        vocab: usize,
    ) -> Result<Self, ApiError> {
        const IDS: &str = "stop_token_ids";
        let ids = stop_token_ids.unwrap_or_default();
        if ids.len() > MAX_STOP_TOKENS {
            let message = format!(
                "`{IDS}` holds {} tokens, at most {MAX_STOP_TOKENS} are taken",
                ids.len()
            );
            return Err(ApiError::invalid(IDS, message));
        }
        let token = |(index, id): (usize, i64)| {
            let known = u32::try_from(id).ok().filter(|&id| (id as usize) < vocab);
            known.ok_or_else(|| {
                let path = format!("{IDS}[{index}]");
                let message = format!("the model has no token {id}; ids go to {}", vocab - 1);
                ApiError::invalid(&path, message)
            })
        };
        let stop_tokens = ids.into_iter().enumerate().map(token);
        Ok(Self {
            min_tokens: min_tokens.map_or(Ok(0), |least| {
                integer("min_tokens", least, 0, i64::from(u32::MAX))
            })?,
            stop_tokens: stop_tokens.collect::<Result<_, _>>()?,
            ignores_eos: ignore_eos.unwrap_or(false),
        })
    }

    /// Refuses a least length that the longest one contradicts.
    pub fn within(&self, max_tokens: Option<usize>) -> Result<(), ApiError> {
        match max_tokens {
            Some(most) if most < self.min_tokens => {
                let message = format!(
                    "`min_tokens` is {}, and no answer is longer than {most} tokens",
                    self.min_tokens
                );
                Err(ApiError::invalid("min_tokens", message))
            }
            _ => Ok(()),
        }
    }

    /// Joins it with the model's own stop tokens.
    pub fn tokens(&self, eos: &[u32]) -> StopTokens {
        let own = if self.ignores_eos { &[][..] } else { eos };
        let mut ending = [own, &self.stop_tokens].concat();
        ending.sort_unstable();
        ending.dedup();
        let never = eos.iter().filter(|id| !ending.contains(id));
        let mut withheld: Vec<_> = never.map(|&id| (id, usize::MAX)).collect();
        if self.min_tokens > 0 {
            withheld.extend(ending.iter().map(|&id| (id, self.min_tokens)));
        }
        StopTokens { ending, withheld }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(min: i64, ids: &[i64], ignore_eos: bool) -> Ending {
        Ending::checked(Some(min), Some(ids.to_vec()), Some(ignore_eos), 100).unwrap()
    }

    #[test]
    fn tokens_end_an_output_and_are_withheld() {
        let never = usize::MAX;
        for (ending, ends, withheld) in [
            (Ending::default(), &[7, 8][..], &[][..]),
            (ending(0, &[3, 7], false), &[3, 7, 8], &[]),
            (
                ending(5, &[3], false),
                &[3, 7, 8],
                &[(3, 5), (7, 5), (8, 5)],
            ),
            (ending(0, &[], true), &[], &[(7, never), (8, never)]),
            // A stop token of the request's own ends it all the same.
            (ending(2, &[8], true), &[8], &[(7, never), (8, 2)]),
        ] {
            let tokens = ending.tokens(&[7, 8]);
            assert_eq!(tokens.ending, ends, "{ending:?}");
            assert_eq!(tokens.withheld, withheld, "{ending:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let checked = |min, ids| Ending::checked(min, ids, None, 100).unwrap_err();
        for (error, param) in [
            (checked(Some(-1), None), "min_tokens"),
            (checked(None, Some(vec![1, 100])), "stop_token_ids[1]"),
            (checked(None, Some(vec![-1])), "stop_token_ids[0]"),
            (checked(None, Some(vec![1; 129])), "stop_token_ids"),
            (
                ending(5, &[], false).within(Some(4)).unwrap_err(),
                "min_tokens",
            ),
        ] {
            assert_eq!(error.param(), Some(param));
        }
        assert!(ending(5, &[], false).within(Some(5)).is_ok());
        assert!(ending(5, &[], false).within(None).is_ok());
    }
}
