//! DRY's sequence breakers: from strings to the tokens that hold them.
//!
//! A token whose text contains the string breaks a sequence by itself. A token whose text only ends
//! with the string's beginning does so together with the tokens of the string's rest, as in llama.cpp.

use std::sync::{Arc, OnceLock};

use crate::engine::sampler::Breakers;
use crate::text::{TextError, Tokenizer};

/// llama.cpp's: lines, and what separates speakers, quotations and emphasis.
const USUAL: [&str; 4] = ["\n", ":", "\"", "*"];

/// Finds breakers in a model's vocabulary.
#[derive(Default)]
pub struct BreakerIndex {
    /// The text of each token, as far as it has one.
    pieces: OnceLock<Vec<(u32, Vec<u8>)>>,
    usual: OnceLock<Arc<Breakers>>,
}

impl BreakerIndex {
    /// The breakers that `strings` name; `None` is the usual ones. Takes tens of milliseconds for a
    /// large vocabulary, so it is not for a thread that serves connections.
    pub fn find(
        &self,
        tokenizer: &Tokenizer,
        strings: Option<&[String]>,
    ) -> Result<Arc<Breakers>, TextError> {
        if let Some(strings) = strings {
            let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
            return Ok(Arc::new(self.search(tokenizer, &strings)?));
        }
        if let Some(usual) = self.usual.get() {
            return Ok(usual.clone());
        }
        let found = Arc::new(self.search(tokenizer, &USUAL)?);
        Ok(self.usual.get_or_init(|| found).clone())
    }

    fn search(&self, tokenizer: &Tokenizer, strings: &[&str]) -> Result<Breakers, TextError> {
        let mut sequences = Vec::new();
        for &string in strings {
            let heads = self.heads(tokenizer, string);
            // Few rests, each for many tokens: encoded once.
            let mut rests: Vec<Option<Vec<u32>>> = vec![None; string.len() + 1];
            for (id, covered) in heads {
                let rest = match &rests[covered] {
                    Some(rest) => rest.clone(),
                    None => {
                        let rest = match string.get(covered..) {
                            Some("") => Vec::new(),
                            Some(rest) => tokenizer.encode(rest, false)?,
                            // Cut within a character: no text, so no tokens of its own.
                            None => continue,
                        };
                        rests[covered] = Some(rest.clone());
                        rest
                    }
                };
                sequences.push(std::iter::once(id).chain(rest).collect());
            }
        }
        Ok(Breakers::new(sequences))
    }

    /// Tokens that hold `string`, or end with a beginning of it, with how many bytes of it they cover.
    fn heads(&self, tokenizer: &Tokenizer, string: &str) -> Vec<(u32, usize)> {
        let pieces = self.pieces.get_or_init(|| {
            let ids = 0..tokenizer.vocab_size() as u32;
            ids.filter_map(|id| Some((id, tokenizer.token_bytes(id)?)))
                .collect()
        });
        let string = string.as_bytes();
        let mut heads = Vec::new();
        for (id, piece) in pieces {
            let starts = (0..piece.len()).filter(|&start| string.first() == piece.get(start));
            for start in starts {
                let rest = &piece[start..];
                if rest.starts_with(string) {
                    heads.push((*id, string.len()));
                } else if string.starts_with(rest) {
                    heads.push((*id, rest.len()));
                }
            }
        }
        heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sampler::Dry;
    use std::path::Path;

    fn tokenizer() -> Tokenizer {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
        Tokenizer::load(&dir).unwrap()
    }

    /// Whether DRY reaches over `between` with these breakers.
    fn reaches_over(between: &str, breakers: Option<&[&str]>) -> bool {
        let tokenizer = tokenizer();
        let strings: Option<Vec<String>> =
            breakers.map(|list| list.iter().map(|&text| text.to_owned()).collect());
        let breakers = BreakerIndex::default()
            .find(&tokenizer, strings.as_deref())
            .unwrap();
        let encode = |text: &str| tokenizer.encode(text, false).unwrap();
        let (before, after, next) = (encode(" apple"), encode(" tree"), encode(" house")[0]);
        let part = [before, encode(between), after].concat();
        // The end repeats the beginning, and `next` would go on with it.
        let tokens = [&part[..], &[next], &part[..]].concat();
        let dry = Dry {
            multiplier: 1.0,
            base: 1.0,
            allowed_length: part.len(),
            breakers,
            ..Dry::default()
        };
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        dry.apply(&mut logits, &tokens);
        logits[next as usize] < 0.0
    }

    #[test]
    fn the_usual_ones_break_sequences() {
        assert!(reaches_over(" green", None));
        for between in [":", "\n", " \"x\"", " *"] {
            assert!(!reaches_over(between, None), "{between:?}");
            assert!(reaches_over(between, Some(&[])), "{between:?}");
        }
    }

    #[test]
    fn a_breaker_may_span_tokens_or_lie_within_one() {
        let long = "\n### Question";
        assert!(tokenizer().encode(long, false).unwrap().len() > 2);
        assert!(!reaches_over(long, Some(&["### Qu"])));
        assert!(!reaches_over(long, Some(&["\n###"])));
        assert!(reaches_over(long, Some(&["###Qu"])));
    }
}
