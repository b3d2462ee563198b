//! Looks in a free output for where a grammar begins.
//!
//! The output is read as its reader does (`text::output`): tags and markers are what the text spells,
//! whatever tokens it is made of, and a marker within a thought is none.

use std::borrow::Cow;
use std::sync::Arc;

use super::beginning::{Beginning, Nearing, found};
use super::error::GrammarError;
use super::matcher::Grammar;
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
    /// What of the functions' schemas is not enforced.
    unenforced: Vec<String>,
}

/// How a thought is marked, and whether the output begins within one.
#[derive(Debug)]
struct Tags {
    open: String,
    close: String,
    opened: bool,
    budget: Option<usize>,
}

/// The state of one output.
#[derive(Debug)]
pub(super) struct Watch {
    lookout: Arc<Lookout>,
    place: Place,
    /// How far the answer is towards a call.
    nearing: Option<Nearing>,
    /// The last mask that was made.
    mask: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Nothing but white space came, and so many bytes of the tag that begins a thought.
    Start(usize),
    /// In a thought of so many tokens; its end has so many bytes of the tag that ends it.
    Thought { tokens: usize, seen: usize },
    /// In the answer.
    Answer,
}

/// Whether a message is free but for calls that begin somewhere in it and the length of its thought: it
/// is watched rather than held to a grammar from its beginning.
pub(super) fn is_watched(message: &MessageSpec) -> bool {
    let found = |calls: &Calls| match &calls.mark {
        Mark::Read(_) => true,
        Mark::Marker(_) => behind_marker(calls).is_some(),
        Mark::Text => false,
    };
    message.answer == Some(Answer::Text)
        && message.heading.is_empty()
        && message.calls.as_ref().is_none_or(found)
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
pub(super) fn behind_marker(calls: &Calls) -> Option<(&str, Calls)> {
    let Mark::Marker(marker) = &calls.mark else {
        return None;
    };
    let begins = Part::Marker(marker.clone());
    let mut rest = calls.clone();
    if rest.open.is_empty() {
        for call in &mut rest.each {
            if call.parts.first() != Some(&begins) {
                return None;
            }
            call.parts.remove(0);
        }
        rest.between = None;
    } else if rest.open.remove(0) != begins {
        return None;
    }
    Some((marker, rest))
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
        unenforced: Vec<String>,
    ) -> Result<Self, GrammarError> {
        let thought = thought.as_ref().map(|thought| Tags {
            open: tag(thought).unwrap_or_default().to_owned(),
            close: thought.close.clone(),
            opened: thought.opened,
            budget: thought.budget,
        });
        let tags = thought.iter().flat_map(|it| [&it.open, &it.close]);
        let markers = calls.iter().flat_map(Beginning::markers);
        let shown = tags.map(String::as_str).chain(markers);
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
            unenforced,
        })
    }

    /// About what it takes.
    pub fn bytes_taken(&self) -> usize {
        self.calls.as_ref().map_or(0, Beginning::bytes_taken)
    }

    fn bytes(&self, token: u32) -> Vec<u8> {
        if self.tokenizer.is_special(token) && !self.shown.contains(&token) {
            return Vec::new();
        }
        self.tokenizer.token_bytes(token).unwrap_or_default()
    }
}

impl Watch {
    pub fn new(lookout: Arc<Lookout>) -> Self {
        let place = match &lookout.thought {
            Some(thought) if thought.opened => Place::Thought { tokens: 0, seen: 0 },
            Some(_) => Place::Start(0),
            None => Place::Answer,
        };
        let nearing = lookout.calls.as_ref().map(Beginning::nearing);
        Self {
            lookout,
            place,
            nearing,
            mask: Vec::new(),
        }
    }

    /// What of the functions' schemas is not enforced: `function.keyword`.
    pub fn unenforced(&self) -> &[String] {
        &self.lookout.unenforced
    }

    /// Reads a token; the grammar that begins in it or behind it, if one does.
    ///
    /// # Errors
    /// [`GrammarError::Failed`] for one that begins a call and does not go on as one.
    pub fn step(&mut self, token: u32) -> Result<Option<Grammar>, GrammarError> {
        let lookout = Arc::clone(&self.lookout);
        if let Place::Thought { tokens, .. } = &mut self.place {
            *tokens += 1;
        }
        let bytes = lookout.bytes(token);
        let begins = bytes.iter().position(|byte| self.byte(&lookout, *byte));
        let (Some(at), Some(calls), Some(nearing)) = (begins, &lookout.calls, &mut self.nearing)
        else {
            return Ok(None);
        };
        let behind = &bytes[at + 1..];
        let grammar = calls.grammar(nearing, behind)?;
        nearing.follow(behind);
        Ok(Some(grammar))
    }

    /// Reads a token that a grammar held.
    pub fn follow(&mut self, token: u32) {
        if let Some(nearing) = &mut self.nearing {
            nearing.follow(&self.lookout.bytes(token));
        }
    }

    /// Whether a call has begun.
    fn byte(&mut self, lookout: &Lookout, byte: u8) -> bool {
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
                    self.place = Place::Answer;
                    let read = open[..seen].iter().chain([&byte]);
                    return read.fold(false, |_, byte| self.byte(lookout, *byte));
                }
                false
            }
            (Place::Thought { tokens, seen }, Some(tags)) => {
                let close = tags.close.as_bytes();
                let seen = found(close, seen, byte);
                self.place = match seen == close.len() {
                    true => Place::Answer,
                    false => Place::Thought { tokens, seen },
                };
                false
            }
            (Place::Answer, _) => match (&lookout.calls, &mut self.nearing) {
                (Some(calls), Some(nearing)) => calls.push(nearing, byte),
                _ => false,
            },
            (_, None) => false,
        }
    }

    /// What may come next; `None` is anything.
    pub fn mask(&mut self) -> Option<&[u32]> {
        if !matches!(self.place, Place::Answer) {
            return self.end_of_thought().map(|(_, mask)| mask.as_slice());
        }
        let calls = self.lookout.calls.as_ref()?;
        Some(match calls.mask(self.nearing.as_ref()?)? {
            Cow::Borrowed(mask) => mask,
            Cow::Owned(mask) => {
                self.mask = mask;
                &self.mask
            }
        })
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
