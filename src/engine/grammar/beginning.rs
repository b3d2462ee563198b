//! Where in a free answer a call begins, and the grammar that holds it from there.

use std::borrow::Cow;
use std::collections::HashMap;

use super::error::GrammarError;
use super::matcher::{Compiled, Grammar};
use crate::text::Tokenizer;
use crate::text::output::CallReader;

/// Where a grammar begins.
#[derive(Debug)]
pub(super) struct Beginning {
    sign: Sign,
    vocab_size: usize,
    grammar: Compiled,
    /// Whether the output is free again behind what the grammar holds.
    pub goes_on: bool,
}

/// How a beginning is told from text.
#[derive(Debug)]
enum Sign {
    /// By a marker.
    Marker {
        marker: String,
        /// For each number of the marker's bytes that the text may end with: what else may come than
        /// tokens that complete it and go on behind it as the grammar does not.
        masks: Vec<Option<Vec<u32>>>,
    },
    /// By reading the text.
    Read {
        reader: CallReader,
        /// Tokens that may begin a call and go on behind that.
        suspects: Vec<(u32, Vec<u8>)>,
    },
}

/// How far an answer is towards a call.
#[derive(Debug, Clone)]
pub(super) enum Nearing {
    /// So many bytes of the marker are its end.
    Marker(usize),
    Read(CallReader),
}

impl Beginning {
    /// By a marker, behind which the grammar begins. `vocab_size` is the length of masks in tokens.
    pub fn at_marker(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        marker: &str,
        grammar: Compiled,
        goes_on: bool,
    ) -> Self {
        let pattern = marker.as_bytes();
        let suspects = pattern.last().map_or_else(Vec::new, |last| {
            going_on_behind(*last, tokenizer, vocab_size)
        });
        let mut probe = grammar.start();
        let mut known = HashMap::new();
        let mut mask = |seen: usize| {
            let completes = |bytes: &[u8]| {
                let mut seen = seen;
                bytes.iter().position(|byte| {
                    seen = found(pattern, seen, *byte);
                    seen == pattern.len()
                })
            };
            let barred = suspects.iter().filter(|(_, bytes)| {
                let behind = completes(bytes).map_or(&[][..], |at| &bytes[at + 1..]);
                let allowed = || behind.is_empty() || probe.may_spell(behind);
                !*known.entry(behind).or_insert_with(allowed)
            });
            all_but(barred.map(|(id, _)| *id), vocab_size)
        };
        let masks = (0..pattern.len()).map(&mut mask).collect();
        let marker = marker.to_owned();
        Self {
            sign: Sign::Marker { marker, masks },
            vocab_size,
            grammar,
            goes_on,
        }
    }

    /// By reading the text. The grammar begins with the function's name, if that is known by then, and
    /// what the beginning ends with.
    pub fn read(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        reader: CallReader,
        grammar: Compiled,
        goes_on: bool,
    ) -> Self {
        let suspects = going_on_behind(reader.trigger(), tokenizer, vocab_size);
        Self {
            sign: Sign::Read { reader, suspects },
            vocab_size,
            grammar,
            goes_on,
        }
    }

    /// What has to be seen of the text although it may be special tokens.
    pub fn markers(&self) -> Vec<&str> {
        match &self.sign {
            Sign::Marker { marker, .. } => vec![marker],
            Sign::Read { reader, .. } => reader.markers().to_vec(),
        }
    }

    /// About what it takes.
    pub fn bytes_taken(&self) -> usize {
        let sign: usize = match &self.sign {
            Sign::Marker { masks, .. } => masks.iter().flatten().map(|mask| mask.len() * 4).sum(),
            Sign::Read { suspects, .. } => suspects.iter().map(|(_, bytes)| 32 + bytes.len()).sum(),
        };
        self.grammar.bytes() + sign
    }

    /// An answer of which nothing came.
    pub fn nearing(&self) -> Nearing {
        match &self.sign {
            Sign::Marker { .. } => Nearing::Marker(0),
            Sign::Read { reader, .. } => Nearing::Read(reader.clone()),
        }
    }

    /// Reads a byte of the answer; whether a call has begun.
    pub fn push(&self, nearing: &mut Nearing, byte: u8) -> bool {
        match (nearing, &self.sign) {
            (Nearing::Marker(seen), Sign::Marker { marker, .. }) => {
                *seen = found(marker.as_bytes(), *seen, byte);
                let complete = *seen == marker.len();
                if complete {
                    *seen = 0;
                }
                complete
            }
            (Nearing::Read(reader), _) => {
                reader.push(byte);
                reader.begun().is_some()
            }
            (Nearing::Marker(_), Sign::Read { .. }) => false,
        }
    }

    /// The grammar of a call that has begun, `behind` its beginning.
    ///
    /// # Errors
    /// [`GrammarError::Failed`] where what is behind it is none of its arguments.
    pub fn grammar(&self, nearing: &Nearing, behind: &[u8]) -> Result<Grammar, GrammarError> {
        let mut grammar = self.grammar.start();
        if let Nearing::Read(reader) = nearing {
            grammar.spell(head(reader).as_bytes())?;
        }
        grammar.spell(behind)?;
        Ok(grammar)
    }

    /// What may come next, of all that begins no call which the grammar does not allow; `None` is
    /// anything.
    pub fn mask(&self, nearing: &Nearing) -> Option<Cow<'_, [u32]>> {
        match (nearing, &self.sign) {
            (Nearing::Marker(seen), Sign::Marker { masks, .. }) => {
                masks.get(*seen)?.as_deref().map(Cow::Borrowed)
            }
            (Nearing::Read(reader), Sign::Read { suspects, .. }) if reader.may_begin() => {
                let mut calls = Probes::default();
                let barred = suspects
                    .iter()
                    .filter(|(_, bytes)| self.is_barred(reader, bytes, &mut calls));
                all_but(barred.map(|(id, _)| *id), self.vocab_size).map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// Whether a token begins a call and goes on as no call does.
    fn is_barred(&self, reader: &CallReader, bytes: &[u8], calls: &mut Probes) -> bool {
        let mut reader = reader.clone();
        for (at, byte) in bytes.iter().enumerate() {
            reader.push(*byte);
            if reader.begun().is_some() {
                let behind = &bytes[at + 1..];
                return !behind.is_empty() && !calls.allow(self, head(&reader), behind);
            }
        }
        false
    }
}

impl Nearing {
    /// Reads what a grammar holds.
    pub fn follow(&mut self, bytes: &[u8]) {
        if let Self::Read(reader) = self {
            bytes.iter().for_each(|byte| reader.push(*byte));
        }
    }
}

/// How the grammar begins where a call has.
fn head(reader: &CallReader) -> String {
    match reader.begun() {
        None | Some("") => String::new(),
        Some(name) => format!("{name}{}", char::from(reader.trigger())),
    }
}

/// Grammars of calls to ask what they allow, by their heads.
#[derive(Default)]
struct Probes(Vec<(String, Option<Grammar>)>);

impl Probes {
    fn allow(&mut self, beginning: &Beginning, head: String, behind: &[u8]) -> bool {
        let known = self.0.iter().position(|(other, _)| *other == head);
        let place = known.unwrap_or_else(|| {
            let mut grammar = beginning.grammar.start();
            let begins = grammar.spell(head.as_bytes()).is_ok();
            self.0.push((head, begins.then_some(grammar)));
            self.0.len() - 1
        });
        let probe = self.0.get_mut(place).and_then(|(_, probe)| probe.as_mut());
        probe.is_some_and(|grammar| grammar.may_spell(behind))
    }
}

/// All tokens that hold a byte, and something behind it.
fn going_on_behind(byte: u8, tokenizer: &Tokenizer, vocab_size: usize) -> Vec<(u32, Vec<u8>)> {
    let ids = 0..u32::try_from(vocab_size).unwrap_or(u32::MAX);
    ids.filter_map(|id| Some((id, tokenizer.token_bytes(id)?)))
        .filter(|(_, bytes)| {
            let inner = bytes.split_last().map_or(&[][..], |(_, inner)| inner);
            inner.contains(&byte)
        })
        .collect()
}

/// A mask that allows all other tokens; `None` where there are no others.
fn all_but(barred: impl Iterator<Item = u32>, vocab_size: usize) -> Option<Vec<u32>> {
    let mut barred = barred.peekable();
    barred.peek()?;
    let mut mask = vec![u32::MAX; vocab_size.div_ceil(32)];
    barred.for_each(|id| mask[id as usize / 32] &= !(1 << (id % 32)));
    Some(mask)
}

/// How many bytes of the pattern a text ends with, if it ended with `seen` of them before `byte`.
pub(super) fn found(pattern: &[u8], seen: usize, byte: u8) -> usize {
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
