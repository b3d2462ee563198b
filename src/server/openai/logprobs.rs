//! Log-probabilities, in the two shapes of OpenAI's API.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::server::generate::{Delta, ShownToken};
use crate::server::model::Piece;

/// Most `top_logprobs` of chat and `logprobs` of completions.
pub const MAX_TOP: i64 = 20;

/// Of a chat choice.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// One entry a token.
    pub content: Vec<ChatToken>,
    /// Never: there is no separate refusal text.
    #[schema(value_type = Option<String>)]
    pub refusal: Option<()>,
}

/// A token and those that could have been in its place.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatToken {
    #[serde(flatten)]
    chosen: Candidate,
    top_logprobs: Vec<Candidate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct Candidate {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// Of a completion: lists of one length, one entry a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    /// The first token of an echoed prompt has none.
    token_logprobs: Vec<Option<f32>>,
    #[schema(value_type = Option<Vec<Option<std::collections::HashMap<String, f32>>>>)]
    top_logprobs: Option<Vec<Option<Likeliest>>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

/// Tokens by their text, written as an object in this order.
#[derive(Debug, Clone, Default, PartialEq)]
struct Likeliest(Vec<(String, f32)>);

impl Likeliest {
    /// Two tokens may read the same; the likelier one stays.
    fn add(&mut self, text: String, logprob: f32) {
        if !self.0.iter().any(|(other, _)| *other == text) {
            self.0.push((text, logprob));
        }
    }
}

impl Serialize for Likeliest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

/// The chat shape of the tokens of `delta`.
pub fn chat(delta: &Delta, piece: impl Fn(u32) -> Piece) -> ChatLogprobs {
    let candidate = |id: u32, logprob: f32| {
        let piece = piece(id);
        Candidate {
            token: piece.lossy(),
            logprob: finite(logprob),
            bytes: piece.0,
        }
    };
    let content = delta.tokens.iter().filter_map(|token| {
        let logprobs = token.logprobs.as_ref()?;
        let top = logprobs
            .top
            .iter()
            .map(|&(id, logprob)| candidate(id, logprob))
            .collect();
        Some(ChatToken {
            chosen: candidate(token.id, logprobs.logprob),
            top_logprobs: top,
        })
    });
    ChatLogprobs {
        content: content.collect(),
        refusal: None,
    }
}

/// Makes completions' shape piece by piece: offsets count the characters of the whole output.
#[derive(Debug, Default)]
pub struct CompletionOffsets {
    /// The output so far, from the first token that is not shown yet.
    bytes: usize,
    characters: usize,
    pending: String,
}

impl CompletionOffsets {
    /// The shape of the tokens of `delta`; `top` is what the request asked for.
    pub fn logprobs(
        &mut self,
        delta: &Delta,
        top: usize,
        piece: impl Fn(u32) -> Piece,
    ) -> CompletionLogprobs {
        self.pending.push_str(&delta.text);
        let mut out = CompletionLogprobs::default();
        let mut tops = Vec::new();
        for token in &delta.tokens {
            out.tokens.push(piece(token.id).escaped());
            out.text_offset.push(self.offset(token));
            let Some(logprobs) = &token.logprobs else {
                out.token_logprobs.push(None);
                tops.push(None);
                continue;
            };
            out.token_logprobs.push(Some(finite(logprobs.logprob)));
            let mut likeliest = Likeliest::default();
            // The chosen token is listed even when it is not among the likeliest.
            let chosen = (token.id, logprobs.logprob);
            for (id, logprob) in logprobs.top.iter().copied().chain([chosen]) {
                likeliest.add(piece(id).escaped(), finite(logprob));
            }
            tops.push(Some(likeliest));
        }
        out.top_logprobs = (top > 0).then_some(tops);
        out
    }

    fn offset(&mut self, token: &ShownToken) -> usize {
        let ahead = token
            .start
            .saturating_sub(self.bytes)
            .min(self.pending.len());
        // Tokens begin where characters do, so that this never cuts one.
        self.characters += self
            .pending
            .get(..ahead)
            .map_or(0, |text| text.chars().count());
        self.pending = self.pending.split_off(ahead);
        self.bytes += ahead;
        self.characters
    }
}

/// JSON has no infinity; a token that the model gives no chance reads −9999, as it does in OpenAI's
/// own answers and in vLLM's.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TokenLogprobs;

    fn token(id: u32, start: usize, logprob: f32, top: &[(u32, f32)]) -> ShownToken {
        let logprobs = Some(TokenLogprobs {
            logprob,
            top: top.to_vec(),
        });
        ShownToken {
            id,
            start,
            logprobs,
        }
    }

    fn piece(id: u32) -> Piece {
        Piece(match id {
            0 => "ä".as_bytes().to_vec(),
            1 => vec![0xe2, 0x82],
            2 => vec![0xac],
            other => vec![other as u8],
        })
    }

    #[test]
    fn chat_shape() {
        let delta = Delta {
            text: "ä".into(),
            pieces: vec![],
            tokens: vec![token(0, 0, -0.5, &[(0, -0.5), (98, f32::NEG_INFINITY)])],
        };
        insta::assert_snapshot!(serde_json::to_string(&chat(&delta, piece)).unwrap(), @r#"{"content":[{"token":"ä","logprob":-0.5,"bytes":[195,164],"top_logprobs":[{"token":"ä","logprob":-0.5,"bytes":[195,164]},{"token":"b","logprob":-9999.0,"bytes":[98]}]}],"refusal":null}"#);
    }

    #[test]
    fn the_first_token_of_a_prompt_has_no_logprob() {
        let first = ShownToken {
            id: 97,
            start: 0,
            logprobs: None,
        };
        let delta = Delta {
            text: "ab".into(),
            pieces: vec![],
            tokens: vec![first, token(98, 1, -0.5, &[(98, -0.5)])],
        };
        let shape = CompletionOffsets::default().logprobs(&delta, 1, piece);
        insta::assert_snapshot!(serde_json::to_string(&shape).unwrap(), @r#"{"tokens":["a","b"],"token_logprobs":[null,-0.5],"top_logprobs":[null,{"b":-0.5}],"text_offset":[0,1]}"#);
    }

    #[test]
    fn completion_shape_counts_characters_over_all_pieces() {
        let mut offsets = CompletionOffsets::default();
        let first = Delta {
            text: "äb".into(),
            pieces: vec![],
            tokens: vec![
                token(0, 0, -0.5, &[(97, -0.25)]),
                token(98, 2, -1.0, &[(98, -1.0)]),
            ],
        };
        let second = Delta {
            text: "€c".into(),
            pieces: vec![],
            tokens: vec![
                token(1, 3, -2.0, &[]),
                token(2, 3, -3.0, &[]),
                token(99, 6, -4.0, &[]),
            ],
        };
        let json = |shape: CompletionLogprobs| serde_json::to_string(&shape).unwrap();
        insta::assert_snapshot!(json(offsets.logprobs(&first, 1, piece)), @r#"{"tokens":["ä","b"],"token_logprobs":[-0.5,-1.0],"top_logprobs":[{"a":-0.25,"ä":-0.5},{"b":-1.0}],"text_offset":[0,1]}"#);
        insta::assert_snapshot!(json(offsets.logprobs(&second, 0, piece)), @r#"{"tokens":["bytes:\\xe2\\x82","bytes:\\xac","c"],"token_logprobs":[-2.0,-3.0,-4.0],"top_logprobs":null,"text_offset":[2,2,3]}"#);
    }
}
