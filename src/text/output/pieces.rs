//! What an output is made of.

/// A piece of an output. Calls are numbered from 0 in the order in which they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text of the answer.
    Content(String),
    /// Text of the thoughts before it.
    Reasoning(String),
    /// A call begins.
    Call {
        /// Its number.
        index: usize,
        /// The function's name, whole.
        name: String,
    },
    /// More of a call's arguments, verbatim.
    Arguments {
        /// The call's number.
        index: usize,
        /// The next part of them.
        text: String,
    },
}

/// Collects pieces, joining those that belong together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
}

impl Pieces {
    pub fn content(&mut self, more: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Content(text)) => text.push_str(more),
            _ if more.is_empty() => {}
            _ => self.pieces.push(Piece::Content(more.to_owned())),
        }
    }

    pub fn content_char(&mut self, more: char) {
        self.content(more.encode_utf8(&mut [0; 4]));
    }

    pub fn reasoning(&mut self, more: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Reasoning(text)) => text.push_str(more),
            _ if more.is_empty() => {}
            _ => self.pieces.push(Piece::Reasoning(more.to_owned())),
        }
    }

    pub fn call(&mut self, index: usize, name: &str) {
        self.pieces.push(Piece::Call {
            index,
            name: name.to_owned(),
        });
    }

    pub fn arguments(&mut self, call: usize, more: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Arguments { index, text }) if *index == call => text.push_str(more),
            _ if more.is_empty() => {}
            _ => self.pieces.push(Piece::Arguments {
                index: call,
                text: more.to_owned(),
            }),
        }
    }

    pub fn take(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.pieces)
    }
}
