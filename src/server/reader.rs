//! A chat message out of an output's text: thoughts, an answer, calls of tools.

use std::sync::Arc;

use crate::text::output::{OutputParser, Piece};

/// Where thoughts are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Telling {
    /// As pieces of their own.
    #[default]
    Apart,
    /// In the answer, as the model writes them.
    InContent,
    /// Not at all.
    Not,
}

/// Reads one output as it streams.
pub struct Reader {
    parser: OutputParser,
    shown: Arc<[u32]>,
    most_calls: usize,
    calls: usize,
    full: bool,
    thinking: bool,
    silent: bool,
}

impl Reader {
    /// `shown` are the special tokens that the parser has to see. Calls beyond `most_calls` are not
    /// told: the output is over when the next one begins.
    pub fn new(parser: OutputParser, shown: Arc<[u32]>, most_calls: usize) -> Self {
        Self {
            parser,
            shown,
            most_calls,
            calls: 0,
            full: false,
            thinking: false,
            silent: false,
        }
    }

    /// One whose output begins within a thought.
    pub fn within_thought(self) -> Self {
        Self {
            thinking: true,
            ..self
        }
    }

    /// One that keeps thoughts to itself.
    pub fn silent(self) -> Self {
        Self {
            silent: true,
            ..self
        }
    }

    /// Special tokens whose text the reader needs.
    pub fn shown(&self) -> Arc<[u32]> {
        Arc::clone(&self.shown)
    }

    /// Takes the next piece of text; what became certain with it.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        if self.full {
            return Vec::new();
        }
        let pieces = self.parser.push(text);
        self.bounded(pieces)
    }

    /// The text ended: what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        if self.full {
            return Vec::new();
        }
        let pieces = self.parser.finish();
        self.bounded(pieces)
    }

    /// Whether nothing more will be told.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether the thought goes on, as far as can be told.
    pub fn is_thinking(&self) -> bool {
        self.thinking
    }

    /// Calls that were told so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    fn bounded(&mut self, mut pieces: Vec<Piece>) -> Vec<Piece> {
        let beyond =
            |piece: &Piece| matches!(piece, Piece::Call { index, .. } if *index >= self.most_calls);
        if let Some(end) = pieces.iter().position(beyond) {
            pieces.truncate(end);
            self.full = true;
        }
        if let Some(last) = pieces.last() {
            self.thinking = matches!(last, Piece::Reasoning(_));
        }
        let begun = pieces
            .iter()
            .filter(|piece| matches!(piece, Piece::Call { .. }));
        self.calls += begun.count();
        if self.silent {
            pieces.retain(|piece| !matches!(piece, Piece::Reasoning(_)));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::output::{Functions, ToolFormat};

    const CALL: &str = r#"<tool_call>{"name": "f", "arguments": {}}</tool_call>"#;

    fn read(most_calls: usize, parts: &[&str]) -> (Vec<Piece>, Reader) {
        let parser = OutputParser::new(Some(ToolFormat::Hermes), None, Functions::default());
        let mut reader = Reader::new(parser, Arc::new([]), most_calls);
        let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| reader.push(part)).collect();
        pieces.extend(reader.finish());
        (pieces, reader)
    }

    #[test]
    fn calls_beyond_the_most_are_the_end() {
        let twice = [CALL, "\n", CALL, "more"];
        let (pieces, reader) = read(1, &twice);
        assert_eq!(pieces.len(), 2, "{pieces:?}");
        assert!(reader.is_full());
        assert_eq!(reader.calls(), 1);
        let (pieces, reader) = read(1, &[&twice.concat()]);
        assert_eq!(pieces.len(), 2, "{pieces:?}");
        assert!(reader.is_full());
        let (_, reader) = read(usize::MAX, &twice);
        assert!(!reader.is_full());
        assert_eq!(reader.calls(), 2);
    }
}
