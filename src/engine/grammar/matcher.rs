//! The state of one constrained output.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::toktrie::SimpleVob;

use super::error::{GrammarError, failed};
use super::limits::Timed;
use super::watch::Watch;

/// What a grammar says of the next token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing, as far as one can tell before the last token is known.
    Free,
    /// It is one of the mask.
    Held,
    /// Nothing but a stop token may come: the output is complete.
    Over,
}

/// The state of one constrained generation.
#[derive(Debug)]
pub struct Matcher {
    /// Looks for where a grammar begins, in an output that is free outside of it.
    watch: Option<Watch>,
    /// What holds the output here.
    grammar: Option<Grammar>,
    stop_ids: Arc<[u32]>,
}

impl Matcher {
    /// One that is held from its beginning to its end.
    pub(super) fn held(grammar: Grammar, stop_ids: Arc<[u32]>) -> Self {
        Self {
            watch: None,
            grammar: Some(grammar),
            stop_ids,
        }
    }

    /// One that is free until `watch` sees a beginning.
    pub(super) fn watched(watch: Watch, stop_ids: Arc<[u32]>) -> Self {
        Self {
            watch: Some(watch),
            grammar: None,
            stop_ids,
        }
    }

    /// The tokens that may come next: bit `id % 32` of word `id / 32`; `None` is any. A stop token is
    /// allowed when the output may end here, and nothing else is once it must.
    ///
    /// Made when it is first asked for, which takes from microseconds to some milliseconds.
    ///
    /// # Errors
    /// [`GrammarError::Failed`] if the state is beyond the limits; the matcher is of no use then.
    pub fn mask(&mut self) -> Result<Option<&[u32]>, GrammarError> {
        match (&mut self.grammar, &mut self.watch) {
            (Some(grammar), _) => grammar.mask().map(Some),
            (None, Some(watch)) => Ok(watch.mask()),
            (None, None) => Ok(None),
        }
    }

    /// The tokens that have to come next, as the tokenizer itself would write what the grammar leaves
    /// no choice about. Each is the only one in its mask.
    ///
    /// # Errors
    /// [`GrammarError::Failed`], as of [`Self::mask`].
    pub fn forced(&mut self) -> Result<Vec<u32>, GrammarError> {
        match (&mut self.grammar, &self.watch) {
            (Some(grammar), _) => grammar.forced(),
            (None, Some(watch)) => Ok(watch.forced().into_iter().collect()),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Advances by the token that was chosen.
    ///
    /// # Errors
    /// [`GrammarError::Failed`] for a token that the mask does not allow.
    pub fn commit(&mut self, token: u32) -> Result<(), GrammarError> {
        let stops = self.stop_ids.contains(&token);
        match (&mut self.grammar, &mut self.watch) {
            (Some(grammar), _) if stops && grammar.is_finished() => return Ok(()),
            (Some(grammar), watch) => {
                grammar.commit(token)?;
                if let Some(watch) = watch {
                    watch.follow(token);
                }
            }
            (None, Some(watch)) if !stops => self.grammar = watch.step(token)?,
            (None, _) => {}
        }
        if self.is_finished() && self.watch.as_ref().is_some_and(Watch::goes_on) {
            self.grammar = None;
        }
        Ok(())
    }

    /// What of the tools' schemas the output is not held to: `function.keyword`.
    pub fn unenforced(&self) -> &[String] {
        self.watch.as_ref().map_or(&[], Watch::unenforced)
    }

    /// Whether the output is complete and nothing but a stop token may follow.
    pub fn is_finished(&self) -> bool {
        self.grammar.as_ref().is_some_and(Grammar::is_finished)
    }

    /// What is said of the next token.
    pub fn hold(&self) -> Hold {
        match (&self.grammar, &self.watch) {
            (Some(grammar), _) if grammar.is_finished() => Hold::Over,
            (Some(_), _) => Hold::Held,
            (None, Some(watch)) if watch.forced().is_some() => Hold::Held,
            (None, _) => Hold::Free,
        }
    }
}

/// A compiled grammar, from which outputs start.
pub(super) struct Compiled {
    inner: Mutex<llguidance::Matcher>,
    mask: SimpleVob,
    bytes: usize,
}

impl Compiled {
    /// `mask` is that of the first token, `bytes` what the grammar takes.
    pub fn new(inner: llguidance::Matcher, mask: SimpleVob, bytes: usize) -> Self {
        let inner = Mutex::new(inner);
        Self { inner, mask, bytes }
    }

    /// About what it takes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.mask.as_slice().len() * 4
    }

    /// The state of an output that begins. It shares nothing with others, whose limits would be its own.
    pub fn start(&self) -> Grammar {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = inner.deep_clone();
        let handle = inner.cancellation_handle().unwrap_or_default();
        Grammar {
            timed: Timed::new(handle),
            inner,
            mask: self.mask.clone(),
            fresh: true,
        }
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

/// A grammar within an output.
pub(super) struct Grammar {
    timed: Timed,
    inner: llguidance::Matcher,
    mask: SimpleVob,
    /// Whether `mask` is that of the current state.
    fresh: bool,
}

impl Grammar {
    fn mask(&mut self) -> Result<&[u32], GrammarError> {
        if !self.fresh {
            let mask = self.timed.run(|| self.inner.compute_mask_or_eos());
            self.mask = mask.map_err(|error| self.failed(error))?;
            self.fresh = true;
        }
        Ok(self.mask.as_slice())
    }

    fn forced(&mut self) -> Result<Vec<u32>, GrammarError> {
        if self.is_finished() {
            return Ok(Vec::new());
        }
        let forced = self.timed.run(|| self.inner.compute_ff_tokens());
        match self.inner.get_error() {
            Some(error) => Err(self.failed(error)),
            None => Ok(forced),
        }
    }

    fn commit(&mut self, token: u32) -> Result<(), GrammarError> {
        self.consume(&[token])
    }

    fn consume(&mut self, tokens: &[u32]) -> Result<(), GrammarError> {
        self.fresh = false;
        let consumed = self.timed.run(|| self.inner.consume_tokens(tokens));
        consumed.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl std::fmt::Display) -> GrammarError {
        self.timed.error().unwrap_or_else(|| failed(error))
    }

    /// Advances by a text.
    pub fn spell(&mut self, text: &[u8]) -> Result<(), GrammarError> {
        if text.is_empty() {
            return Ok(());
        }
        let tokens = self.tokens(text)?;
        self.consume(&tokens)
    }

    /// Whether it may advance by a text.
    pub fn may_spell(&mut self, text: &[u8]) -> bool {
        let Ok(tokens) = self.tokens(text) else {
            return false;
        };
        let valid = self.inner.validate_tokens(&tokens);
        valid.is_ok_and(|valid| valid == tokens.len())
    }

    /// Any tokens that spell a text.
    fn tokens(&self, text: &[u8]) -> Result<Vec<u32>, GrammarError> {
        let env = self.inner.tok_env().map_err(failed)?;
        let tokens = env.tok_trie().greedy_tokenize(text);
        match env.tok_trie().decode_raw(&tokens) == text {
            true => Ok(tokens),
            false => Err(failed("the vocabulary lacks a character of it")),
        }
    }

    fn is_finished(&self) -> bool {
        self.inner.is_stopped() && !self.inner.is_error()
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar")
            .field("state", &self.inner.stop_reason())
            .finish_non_exhaustive()
    }
}
