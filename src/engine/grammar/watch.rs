//! Looks in a free output for the marker behind which a grammar begins.
//!
//! The output is read as its reader does (`text::output`): tags and markers are what the text spells,
//! whatever tokens it is made of, and a marker within a thought is none.

use std::sync::Arc;

use super::error::GrammarError;
use super::matcher::{Compiled, Grammar};
use super::message::{Answer, Calls, Mark, MessageSpec, Part, Thought};
use crate::text::Tokenizer;

/// What an output is watched for.
#[derive(Debug)]
pub(super) struct Lookout {
    tokenizer: Arc<Tokenizer>,
    /// Special tokens that are part of the text: those of tags and markers.
    shown: Vec<u32>,
    thought: Option<Tags>,
    /// The token that ends a thought, and a mask of it alone, where thoughts have a budget.
    close: Option<(u32, Vec<u32>)>,
    calls: Option<Beginning>,
}

/// How a thought is marked, and whether the output begins within one.
#[derive(Debug)]
struct Tags {
    open: String,
    close: String,
    opened: bool,
    budget: Option<usize>,
}

/// Where a grammar begins.
#[derive(Debug)]
pub(super) struct Beginning {
    marker: String,
    /// For each number of the marker's bytes that the text may end with: what else may come than
    /// tokens that complete it and go on behind it, of which the grammar would not see a part.
    masks: Vec<Option<Vec<u32>>>,
    grammar: Compiled,
    /// Whether the output is free again behind what the grammar holds.
    goes_on: bool,
}

/// The state of one output.
#[derive(Debug)]
pub(super) struct Watch {
    lookout: Arc<Lookout>,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Nothing but white space came, and so many bytes of the tag that begins a thought.
    Start(usize),
    /// In a thought of so many tokens; its end has so many bytes of the tag that ends it.
    Thought { tokens: usize, seen: usize },
    /// In the answer, whose end has so many bytes of the marker.
    Answer(usize),
}

/// Whether a message is free but for calls behind a marker and the length of its thought: it is
/// watched rather than held to a grammar from its beginning.
pub(super) fn is_watched(message: &MessageSpec) -> bool {
    let marked = |calls| behind_marker(calls).is_some();
    message.answer == Some(Answer::Text)
        && message.heading.is_empty()
        && message.calls.as_ref().is_none_or(marked)
        && message.thought.as_ref().is_none_or(|it| tag(it).is_some())
}

/// What begins a thought, if it is one tag.
fn tag(thought: &Thought) -> Option<&str> {
    match (thought.open.as_slice(), thought.behind.as_slice()) {
        ([Part::Marker(open)], []) => Some(open),
        _ => None,
    }
}

/// The marker that calls begin with, and what has to stand behind it: a list of calls, or one call.
pub(super) fn behind_marker(calls: &Calls) -> Option<(&str, MessageSpec)> {
    let Mark::Marker(marker) = &calls.mark else {
        return None;
    };
    let begins = Part::Marker(marker.clone());
    let mut rest = calls.clone();
    if rest.open.is_empty() {
        for call in &mut rest.each {
            if call.first() != Some(&begins) {
                return None;
            }
            call.remove(0);
        }
        rest.between = None;
    } else if rest.open.remove(0) != begins {
        return None;
    }
    let calls = Some(rest);
    Some((
        marker,
        MessageSpec {
            calls,
            ..MessageSpec::default()
        },
    ))
}

impl Lookout {
    /// `vocab_size` is the length of masks in tokens.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] for a budget of thoughts that no single token ends.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        vocab_size: usize,
        thought: Option<&Thought>,
        calls: Option<Beginning>,
    ) -> Result<Self, GrammarError> {
        let thought = thought.as_ref().map(|thought| Tags {
            open: tag(thought).unwrap_or_default().to_owned(),
            close: thought.close.clone(),
            opened: thought.opened,
            budget: thought.budget,
        });
        let tags = thought.iter().flat_map(|it| [&it.open, &it.close]);
        let shown = tags.chain(calls.iter().map(|it| &it.marker));
        let shown = shown.filter_map(|tag| tokenizer.token_id(tag)).collect();
        let close = match &thought {
            Some(thought) if thought.budget.is_some() => {
                let id = tokenizer.token_id(&thought.close).ok_or_else(|| {
                    let reason = format!("the marker {:?} is not one token", thought.close);
                    GrammarError::Vocabulary(reason)
                })?;
                let mut mask = vec![0; vocab_size.div_ceil(32)];
                if let Some(word) = mask.get_mut(id as usize / 32) {
                    *word |= 1 << (id % 32);
                }
                Some((id, mask))
            }
            _ => None,
        };
        Ok(Self {
            tokenizer,
            shown,
            thought,
            close,
            calls,
        })
    }

    /// About what it takes.
    pub fn bytes_taken(&self) -> usize {
        let calls = self.calls.iter();
        let masks = calls.clone().flat_map(|it| it.masks.iter().flatten());
        masks.map(|mask| mask.len() * 4).sum::<usize>()
            + calls.map(|it| it.grammar.bytes()).sum::<usize>()
    }

    fn bytes(&self, token: u32) -> Vec<u8> {
        if self.tokenizer.is_special(token) && !self.shown.contains(&token) {
            return Vec::new();
        }
        self.tokenizer.token_bytes(token).unwrap_or_default()
    }
}

impl Beginning {
    /// `vocab_size` is the length of masks in tokens.
    pub fn new(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        marker: &str,
        grammar: Compiled,
        goes_on: bool,
    ) -> Self {
        let pattern = marker.as_bytes();
        let last = pattern.last().copied();
        let ids = 0..u32::try_from(vocab_size).unwrap_or(u32::MAX);
        let suspects: Vec<(u32, Vec<u8>)> = ids
            .filter_map(|id| Some((id, tokenizer.token_bytes(id)?)))
            .filter(|(_, bytes)| {
                let inner = bytes.split_last().map_or(&[][..], |(_, inner)| inner);
                inner.iter().any(|byte| Some(*byte) == last)
            })
            .collect();
        let mask = |seen: usize| {
            let completes = |bytes: &[u8]| {
                let mut seen = seen;
                bytes.iter().position(|byte| {
                    seen = found(pattern, seen, *byte);
                    seen == pattern.len()
                })
            };
            let barred = suspects.iter().filter(|(_, bytes)| {
                completes(bytes).is_some_and(|position| position + 1 < bytes.len())
            });
            let mut barred = barred.peekable();
            barred.peek()?;
            let mut mask = vec![u32::MAX; vocab_size.div_ceil(32)];
            barred.for_each(|(id, _)| mask[*id as usize / 32] &= !(1 << (id % 32)));
            Some(mask)
        };
        Self {
            masks: (0..pattern.len()).map(mask).collect(),
            marker: marker.to_owned(),
            grammar,
            goes_on,
        }
    }
}

impl Watch {
    pub fn new(lookout: Arc<Lookout>) -> Self {
        let place = match &lookout.thought {
            Some(thought) if thought.opened => Place::Thought { tokens: 0, seen: 0 },
            Some(_) => Place::Start(0),
            None => Place::Answer(0),
        };
        Self { lookout, place }
    }

    /// Reads a token; the grammar that begins behind it, if one does.
    pub fn step(&mut self, token: u32) -> Option<Grammar> {
        let lookout = Arc::clone(&self.lookout);
        if let Place::Thought { tokens, .. } = &mut self.place {
            *tokens += 1;
        }
        let mut begins = None;
        for byte in lookout.bytes(token) {
            begins = self.byte(&lookout, byte);
        }
        begins.map(|beginning| beginning.grammar.start())
    }

    fn byte<'a>(&mut self, lookout: &'a Lookout, byte: u8) -> Option<&'a Beginning> {
        match (self.place, &lookout.thought) {
            (Place::Start(seen), Some(tags)) => {
                let open = tags.open.as_bytes();
                let begins = open.get(seen) == Some(&byte);
                if begins && seen + 1 == open.len() {
                    self.place = Place::Thought { tokens: 0, seen: 0 };
                } else if begins {
                    self.place = Place::Start(seen + 1);
                } else if seen > 0 || !byte.is_ascii_whitespace() {
                    // It was the answer's beginning.
                    self.place = Place::Answer(0);
                    let read = open[..seen].iter().chain([&byte]);
                    return read.fold(None, |_, byte| self.byte(lookout, *byte));
                }
                None
            }
            (Place::Thought { tokens, seen }, Some(tags)) => {
                let close = tags.close.as_bytes();
                let seen = found(close, seen, byte);
                self.place = match seen == close.len() {
                    true => Place::Answer(0),
                    false => Place::Thought { tokens, seen },
                };
                None
            }
            (Place::Answer(seen), _) => {
                let beginning = lookout.calls.as_ref()?;
                let seen = found(beginning.marker.as_bytes(), seen, byte);
                let complete = seen == beginning.marker.len();
                self.place = Place::Answer(if complete { 0 } else { seen });
                complete.then_some(beginning)
            }
            (_, None) => None,
        }
    }

    /// What may come next; `None` is anything.
    pub fn mask(&self) -> Option<&[u32]> {
        match self.place {
            Place::Answer(seen) => self.lookout.calls.as_ref()?.masks.get(seen)?.as_deref(),
            _ => self.end_of_thought().map(|(_, mask)| mask.as_slice()),
        }
    }

    /// The token that has to come next.
    pub fn forced(&self) -> Option<u32> {
        self.end_of_thought().map(|(id, _)| *id)
    }

    /// What ends a thought whose budget is spent.
    fn end_of_thought(&self) -> Option<&(u32, Vec<u32>)> {
        let budget = self.lookout.thought.as_ref()?.budget?;
        match self.place {
            Place::Thought { tokens, .. } if tokens >= budget => self.lookout.close.as_ref(),
            _ => None,
        }
    }

    /// Whether the output is free again behind what the grammar held.
    pub fn goes_on(&self) -> bool {
        let calls = self.lookout.calls.as_ref();
        calls.is_some_and(|beginning| beginning.goes_on)
    }
}

/// How many bytes of the pattern a text ends with, if it ended with `seen` of them before `byte`.
fn found(pattern: &[u8], seen: usize, byte: u8) -> usize {
    let mut seen = seen;
    loop {
        if pattern.get(seen) == Some(&byte) {
            return seen + 1;
        }
        if seen == 0 {
            return 0;
        }
        // The longest shorter beginning of the pattern that its first `seen` bytes end with.
        let ends = |&shorter: &usize| pattern[..seen].ends_with(&pattern[..shorter]);
        seen = (0..seen).rev().find(ends).unwrap_or(0);
    }
}
