//! The decoder of `tokenizer.json`, taken apart so that it can run one token at a time.
//!
//! `tokenizers` decodes whole sequences only, and some of its decoders depend on what came before
//! (the first token loses its space) or on what comes next (a run of byte tokens is text only as a
//! whole). [`Decoder`] is the pipeline, [`DecoderState`] what must be remembered between tokens;
//! fed with all tokens and finished, the pieces join to exactly what the library returns.

mod bytes;
mod clean_up;

use tokenizers::Decoder as _;
use tokenizers::decoders::DecoderWrapper;

use self::bytes::{Utf8Lossy, byte_level, fallback_byte};
pub(super) use self::clean_up::clean_up;
use self::clean_up::{CLEAN_UP, replace};

/// What a decoder does, stage by stage.
#[derive(Debug)]
pub(super) struct Decoder {
    /// From token strings to token strings.
    token_stages: Vec<TokenStage>,
    /// Whether the tokens' strings are bytes in GPT-2's alphabet.
    byte_level: bool,
    /// From text to text, once the tokens are joined.
    text_stages: Vec<TextStage>,
    /// Without a decoder the library puts a space between tokens.
    separator: &'static str,
}

#[derive(Debug)]
enum TokenStage {
    /// Looks at one token, and at whether it is the first.
    Each(DecoderWrapper),
    /// `<0xNN>` tokens; a run that is not UTF-8 as a whole becomes one U+FFFD a token.
    ByteFallback,
}

#[derive(Debug)]
enum TextStage {
    /// Looks at each character by itself.
    EachChar(DecoderWrapper),
    /// Removes up to `count` times `content` from the start of the text.
    StripStart { content: char, count: usize },
    /// Writes one text for another, as Python's `str.replace` does.
    Replace {
        from: &'static str,
        to: &'static str,
    },
}

/// What the tokens so far leave behind for the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct DecoderState {
    tokens: Vec<TokenState>,
    separate: bool,
    utf8: Utf8Lossy,
    /// One entry a text stage.
    texts: Vec<TextState>,
}

#[derive(Debug, Clone, Default)]
struct TextState {
    /// How many characters a `StripStart` may still remove.
    strip: usize,
    /// What may become the text that a `Replace` looks for.
    held: String,
}

#[derive(Debug, Clone, Default)]
struct TokenState {
    started: bool,
    run: Vec<u8>,
}

impl Decoder {
    /// Takes a tokenizer's decoder apart.
    ///
    /// # Errors
    /// Names the decoder that cannot be run token by token.
    pub(super) fn new(decoder: Option<&DecoderWrapper>) -> Result<Self, String> {
        let mut plan = Self {
            token_stages: Vec::new(),
            byte_level: false,
            text_stages: Vec::new(),
            separator: if decoder.is_some() { "" } else { " " },
        };
        let mut joined = false;
        if let Some(decoder) = decoder {
            plan.add(decoder, &mut joined)?;
        }
        Ok(plan)
    }

    /// Takes out the spaces that tokenizers of words leave before punctuation, once all is decoded.
    pub(super) fn clean_up(&mut self) {
        let stages = CLEAN_UP.map(|(from, to)| TextStage::Replace { from, to });
        self.text_stages.extend(stages);
    }

    fn add(&mut self, decoder: &DecoderWrapper, joined: &mut bool) -> Result<(), String> {
        use DecoderWrapper as D;
        match (decoder, *joined) {
            (D::Sequence(sequence), _) => {
                for decoder in sequence.get_decoders() {
                    self.add(decoder, joined)?;
                }
            }
            (D::Fuse(_), _) => *joined = true,
            (D::ByteLevel(_), false) => {
                self.byte_level = true;
                *joined = true;
            }
            (D::ByteFallback(_), false) => self.token_stages.push(TokenStage::ByteFallback),
            (D::Replace(_) | D::Metaspace(_) | D::WordPiece(_), false) => {
                self.token_stages.push(TokenStage::Each(decoder.clone()));
            }
            (D::Strip(strip), _) if strip.stop > 0 => {
                return Err("a Strip decoder with stop > 0".to_owned());
            }
            (D::Strip(_), false) => self.token_stages.push(TokenStage::Each(decoder.clone())),
            (D::Strip(strip), true) => self.text_stages.push(TextStage::StripStart {
                content: strip.content,
                count: strip.start,
            }),
            (D::Replace(_), true) if replaces_one_char(decoder) => {
                self.text_stages.push(TextStage::EachChar(decoder.clone()));
            }
            (other, _) => {
                let json = serde_json::to_value(other).unwrap_or_default();
                return Err(format!("the decoder {} at its place", json["type"]));
            }
        }
        Ok(())
    }

    /// A state before the first token.
    pub(super) fn start(&self) -> DecoderState {
        DecoderState {
            tokens: self
                .token_stages
                .iter()
                .map(|_| TokenState::default())
                .collect(),
            texts: self
                .text_stages
                .iter()
                .map(|stage| TextState {
                    strip: match stage {
                        TextStage::StripStart { count, .. } => *count,
                        TextStage::EachChar(_) | TextStage::Replace { .. } => 0,
                    },
                    held: String::new(),
                })
                .collect(),
            ..DecoderState::default()
        }
    }

    /// Decodes one more token; the text that is certain by now is appended to `out`.
    pub(super) fn push(
        &self,
        state: &mut DecoderState,
        token: String,
        out: &mut String,
    ) -> Result<(), String> {
        self.token_stage(0, state, token, out)
    }

    /// What is still held back: an unfinished character becomes U+FFFD.
    pub(super) fn finish(&self, state: &mut DecoderState, out: &mut String) -> Result<(), String> {
        for index in 0..self.token_stages.len() {
            self.flush_run(index, state, out)?;
        }
        let mut rest = String::new();
        state.utf8.finish(&mut rest);
        self.text(0, state, rest, out)?;
        for index in 0..self.text_stages.len() {
            let held = std::mem::take(&mut state.texts[index].held);
            self.text(index + 1, state, held, out)?;
        }
        Ok(())
    }

    /// The bytes a token adds to a text that does not start with it.
    pub(super) fn bytes(&self, token: String) -> Result<Vec<u8>, String> {
        let mut token = token;
        for stage in &self.token_stages {
            match stage {
                TokenStage::Each(decoder) => token = each(decoder, token, false)?,
                TokenStage::ByteFallback => {
                    if let Some(byte) = fallback_byte(&token) {
                        return Ok(vec![byte]);
                    }
                }
            }
        }
        let mut bytes = if self.byte_level {
            byte_level(&token)
        } else {
            [self.separator, &token].concat().into_bytes()
        };
        for stage in &self.text_stages {
            // Byte-level tokens may be parts of characters, which no character rule touches.
            if let (TextStage::EachChar(decoder), Ok(text)) = (stage, str::from_utf8(&bytes)) {
                bytes = each(decoder, text.to_owned(), false)?.into_bytes();
            }
        }
        Ok(bytes)
    }

    fn token_stage(
        &self,
        index: usize,
        state: &mut DecoderState,
        token: String,
        out: &mut String,
    ) -> Result<(), String> {
        match self.token_stages.get(index) {
            None => {
                let mut text = String::new();
                if self.byte_level {
                    state.utf8.push(&byte_level(&token), &mut text);
                } else {
                    if state.separate {
                        text.push_str(self.separator);
                    }
                    state.separate = true;
                    text.push_str(&token);
                }
                self.text(0, state, text, out)
            }
            Some(TokenStage::Each(decoder)) => {
                let first = !std::mem::replace(&mut state.tokens[index].started, true);
                self.token_stage(index + 1, state, each(decoder, token, first)?, out)
            }
            Some(TokenStage::ByteFallback) => match fallback_byte(&token) {
                Some(byte) => {
                    state.tokens[index].run.push(byte);
                    Ok(())
                }
                None => {
                    self.flush_run(index, state, out)?;
                    self.token_stage(index + 1, state, token, out)
                }
            },
        }
    }

    fn flush_run(
        &self,
        index: usize,
        state: &mut DecoderState,
        out: &mut String,
    ) -> Result<(), String> {
        let run = std::mem::take(&mut state.tokens[index].run);
        if run.is_empty() {
            return Ok(());
        }
        match String::from_utf8(run) {
            Ok(text) => self.token_stage(index + 1, state, text, out),
            Err(error) => error.as_bytes().iter().try_for_each(|_| {
                self.token_stage(index + 1, state, char::REPLACEMENT_CHARACTER.into(), out)
            }),
        }
    }

    /// Runs a text through the stages from the given one on.
    fn text(
        &self,
        from_stage: usize,
        state: &mut DecoderState,
        mut text: String,
        out: &mut String,
    ) -> Result<(), String> {
        let stages = self.text_stages.iter().zip(&mut state.texts);
        for (stage, state) in stages.skip(from_stage) {
            match stage {
                TextStage::EachChar(decoder) => text = each(decoder, text, false)?,
                TextStage::StripStart { content, .. } => {
                    let mut rest = text.as_str();
                    while state.strip > 0 && !rest.is_empty() {
                        match rest.strip_prefix(*content) {
                            Some(stripped) => {
                                rest = stripped;
                                state.strip -= 1;
                            }
                            None => state.strip = 0,
                        }
                    }
                    text = rest.to_owned();
                }
                TextStage::Replace { from, to } => {
                    state.held.push_str(&text);
                    text = replace(&mut state.held, from, to);
                }
            }
        }
        out.push_str(&text);
        Ok(())
    }
}

/// Runs one of the library's decoders over one token, as the first or as a later one.
fn each(decoder: &DecoderWrapper, token: String, first: bool) -> Result<String, String> {
    let mut tokens = if first {
        vec![token]
    } else {
        vec![String::new(), token]
    };
    tokens = decoder
        .decode_chain(tokens)
        .map_err(|error| error.to_string())?;
    tokens
        .pop()
        .ok_or_else(|| "the decoder returned nothing".to_owned())
}

fn replaces_one_char(decoder: &DecoderWrapper) -> bool {
    serde_json::to_value(decoder).is_ok_and(|json| {
        json["pattern"]["String"]
            .as_str()
            .is_some_and(|p| p.chars().count() == 1)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The decoders of tokenizer.json files that are around, and some that stress the order.
    fn decoders() -> Vec<Value> {
        let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let bytes = json!({"type": "ByteFallback"});
        let fuse = json!({"type": "Fuse"});
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                           "use_regex": true});
        let piece = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        let sequence = |stages: Vec<&Value>| json!({"type": "Sequence", "decoders": stages});
        vec![
            level.clone(),
            metaspace("always"),
            metaspace("never"),
            piece,
            sequence(vec![&replace, &bytes, &fuse, &strip]),
            sequence(vec![&replace, &bytes, &fuse]),
            sequence(vec![&bytes, &metaspace("first")]),
            sequence(vec![&bytes, &fuse, &replace, &strip]),
            sequence(vec![&strip, &replace]),
            sequence(vec![&level, &strip]),
            sequence(vec![
                &bytes,
                &fuse,
                &json!({"type": "Strip", "content": "a", "start": 3, "stop": 0}),
            ]),
        ]
    }

    const TOKENS: [&str; 16] = [
        "▁", "▁a", "a", "##b", "<0xE2>", "<0x82>", "<0xAC>", "<0x41>", "<0xzz>", "", " ", " .",
        "é", "ĠÃ", "©", "日",
    ];

    proptest! {
        #[test]
        fn one_by_one_equals_all_at_once(
            which in 0..11usize,
            picks in prop::collection::vec(0..TOKENS.len(), 0..12),
        ) {
            let decoder: DecoderWrapper = serde_json::from_value(decoders().remove(which)).unwrap();
            let tokens: Vec<String> = picks.iter().map(|pick| TOKENS[*pick].to_owned()).collect();
            let plan = Decoder::new(Some(&decoder)).unwrap();
            let (mut state, mut text) = (plan.start(), String::new());
            for token in tokens.clone() {
                plan.push(&mut state, token, &mut text).unwrap();
            }
            plan.finish(&mut state, &mut text).unwrap();
            prop_assert_eq!(text, decoder.decode(tokens).unwrap());
        }
    }

    proptest! {
        #[test]
        fn cleaning_up_piece_by_piece_equals_all_at_once(pieces: Vec<String>, some in "[ .?!,'nmstvre]{0,24}") {
            let mut plan = Decoder::new(Some(&serde_json::from_value(json!({"type": "Fuse"})).unwrap())).unwrap();
            plan.clean_up();
            let (mut state, mut text) = (plan.start(), String::new());
            let tokens: Vec<String> = pieces.into_iter().chain(some.chars().map(String::from)).collect();
            for token in tokens.clone() {
                plan.push(&mut state, token, &mut text).unwrap();
            }
            plan.finish(&mut state, &mut text).unwrap();
            prop_assert_eq!(text, clean_up(tokens.concat()));
        }
    }

    #[test]
    fn what_cannot_be_streamed_is_refused_by_name() {
        for (decoder, name) in [
            (
                json!({"type": "BPEDecoder", "suffix": "</w>"}),
                "BPEDecoder",
            ),
            (
                json!({"type": "Strip", "content": " ", "start": 0, "stop": 1}),
                "Strip",
            ),
            (
                json!({"type": "Sequence", "decoders": [
                    {"type": "Fuse"},
                    {"type": "Replace", "pattern": {"String": "ab"}, "content": ""},
                ]}),
                "Replace",
            ),
        ] {
            let decoder: DecoderWrapper = serde_json::from_value(decoder).unwrap();
            assert!(Decoder::new(Some(&decoder)).unwrap_err().contains(name));
        }
    }
}
