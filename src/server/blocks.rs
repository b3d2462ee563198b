//! An output as a list of blocks, each a thought, a text or a call: how the newer APIs see it.

use crate::text::output::Piece;

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A thought.
    Reasoning,
    /// A part of the answer.
    Text,
    /// A call of the function with this name; its text is the arguments.
    Call(String),
}

/// What happens to the blocks. They come one after the other, numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A block begins.
    Begin(usize, Kind),
    /// More of its text.
    More(usize, String),
    /// It is over.
    End(usize),
}

/// Turns pieces into changes.
#[derive(Debug, Default)]
pub struct Blocks {
    count: usize,
    open: Option<Kind>,
}

impl Blocks {
    /// The block that more would go to.
    pub fn open(&self) -> Option<&Kind> {
        self.open.as_ref()
    }

    /// Takes the next pieces.
    pub fn push(&mut self, pieces: Vec<Piece>) -> Vec<Change> {
        let mut changes = Vec::new();
        for piece in pieces {
            let text = match piece {
                Piece::Reasoning(text) => {
                    self.ensure(Kind::Reasoning, &mut changes);
                    text
                }
                Piece::Content(text) => {
                    self.ensure(Kind::Text, &mut changes);
                    text
                }
                Piece::Call { name, .. } => {
                    self.begin(Kind::Call(name), &mut changes);
                    continue;
                }
                // Calls are written one after the other: these are the last one's.
                Piece::Arguments { text, .. } => text,
            };
            changes.push(Change::More(self.count.saturating_sub(1), text));
        }
        changes
    }

    /// The output is over.
    pub fn finish(&mut self) -> Option<Change> {
        self.open.take().map(|_| Change::End(self.count - 1))
    }

    fn ensure(&mut self, kind: Kind, changes: &mut Vec<Change>) {
        if self.open.as_ref() != Some(&kind) {
            self.begin(kind, changes);
        }
    }

    fn begin(&mut self, kind: Kind, changes: &mut Vec<Change>) {
        changes.extend(self.finish());
        changes.push(Change::Begin(self.count, kind.clone()));
        self.open = Some(kind);
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_one_another() {
        let call = |index, name: &str| Piece::Call {
            index,
            name: name.to_owned(),
        };
        let arguments = |index, text: &str| Piece::Arguments {
            index,
            text: text.to_owned(),
        };
        let pieces = [
            vec![Piece::Reasoning("a".into())],
            vec![Piece::Reasoning("b".into()), Piece::Content("c".into())],
            vec![call(0, "f"), arguments(0, "{")],
            vec![arguments(0, "}"), call(1, "f")],
        ];
        let mut blocks = Blocks::default();
        let mut changes: Vec<Change> = pieces
            .into_iter()
            .flat_map(|pieces| blocks.push(pieces))
            .collect();
        assert_eq!(blocks.open(), Some(&Kind::Call("f".into())));
        changes.extend(blocks.finish());
        assert_eq!(blocks.finish(), None);
        let more = |at, text: &str| Change::More(at, text.to_owned());
        let want = [
            Change::Begin(0, Kind::Reasoning),
            more(0, "a"),
            more(0, "b"),
            Change::End(0),
            Change::Begin(1, Kind::Text),
            more(1, "c"),
            Change::End(1),
            Change::Begin(2, Kind::Call("f".into())),
            more(2, "{"),
            more(2, "}"),
            Change::End(2),
            Change::Begin(3, Kind::Call("f".into())),
            Change::End(3),
        ];
        assert_eq!(changes, want);
    }
}
