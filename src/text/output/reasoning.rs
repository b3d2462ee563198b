//! Thoughts between tags before the answer, as `<think>…</think>`.

use super::ReasoningTags;
use super::marker::{Found, Markers};
use super::pieces::Pieces;

/// Splits thoughts off. The white space around them is layout and belongs to neither side.
#[derive(Debug)]
pub(super) struct Reasoning {
    place: Place,
    open: Markers,
    close: Markers,
    /// White space that is only told when something follows it.
    space: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but white space came: a thought may begin.
    Start,
    /// In the thought; whether anything of it was told.
    Inside { told: bool },
    /// Behind the thought, in the white space before the answer.
    Behind,
    /// In the answer. Tags in it are the model's own text.
    Answer,
}

impl Reasoning {
    pub fn new(tags: ReasoningTags) -> Self {
        Self {
            place: if tags.opened {
                Place::Inside { told: false }
            } else {
                Place::Start
            },
            open: Markers::new(&[&tags.open]),
            close: Markers::new(&[&tags.close]),
            space: String::new(),
        }
    }

    /// Tells thoughts to `out` and returns what belongs to the answer.
    pub fn step(&mut self, character: char, out: &mut Pieces) -> Vec<char> {
        match self.place {
            Place::Answer => vec![character],
            Place::Behind if character.is_whitespace() => Vec::new(),
            Place::Behind => {
                self.place = Place::Answer;
                vec![character]
            }
            Place::Start => match self.open.step(character) {
                Found::Marker(text, _) if text.trim().is_empty() => {
                    self.space.clear();
                    self.place = Place::Inside { told: false };
                    Vec::new()
                }
                Found::Marker(text, _) => self.answer(text), // not reached: text ended the start
                Found::Text(text) if text.trim().is_empty() => {
                    self.space.push_str(&text);
                    Vec::new()
                }
                Found::Text(text) => self.answer(text),
            },
            Place::Inside { .. } => match self.close.step(character) {
                Found::Text(text) => {
                    self.think(&text, out);
                    Vec::new()
                }
                Found::Marker(text, _) => {
                    self.think(&text, out);
                    self.space.clear();
                    self.place = Place::Behind;
                    Vec::new()
                }
            },
        }
    }

    /// The output ended; what is left for the answer.
    pub fn end(&mut self, out: &mut Pieces) -> Vec<char> {
        match self.place {
            Place::Start => self.answer(String::new()),
            Place::Inside { .. } => {
                let rest = self.close.end();
                self.think(&rest, out);
                Vec::new()
            }
            Place::Behind | Place::Answer => Vec::new(),
        }
    }

    fn answer(&mut self, text: String) -> Vec<char> {
        self.place = Place::Answer;
        let rest = std::mem::take(&mut self.space) + &text + &self.open.end();
        rest.chars().collect()
    }

    fn think(&mut self, text: &str, out: &mut Pieces) {
        for character in text.chars() {
            if character.is_whitespace() {
                self.space.push(character);
                continue;
            }
            if self.place == (Place::Inside { told: true }) {
                out.reasoning(&self.space);
            }
            self.space.clear();
            out.reasoning(character.encode_utf8(&mut [0; 4]));
            self.place = Place::Inside { told: true };
        }
    }
}
