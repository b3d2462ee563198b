//! What earlier requests computed, for those that begin alike.
//!
//! A [radix tree](tree) holds the state of token sequences. Layers that keep every position are cut
//! anywhere, so a hit is as long as the common beginning; layers with a window or a recurrence are
//! copied at some positions ([`next_mark`]), among them those where prompts were seen to part, and a hit
//! ends at one of them. A hit is copied into the
//! sequence's own buffers, so nothing in the tree is ever in use and anything may be evicted.

mod tree;

use self::tree::{Mark, Part, Tree};
use super::request::CacheSalt;
use crate::mlx::{Array, MlxError};
use crate::models::{Segment, SequenceState, Snapshot, StateSize};

/// A beginning shorter than this is computed rather than waited for, published early or marked.
pub const WORTHWHILE: usize = 32;

/// Tokens between two positions at which layers that cannot be cut are copied.
const MARK_EVERY: usize = 256;

/// Where the last of them lies before the end of a prompt: at a multiple of this,
const LAST_MARK: usize = 32;

/// and at least so many tokens before: a template ends a prompt with the beginning of an answer, which
/// the conversation's next prompt may have in another form.
const ANSWER_OPENING: usize = 8;

/// The cache. Requests with different salts share nothing.
pub struct PrefixCache {
    tree: Tree<Option<CacheSalt>, Segment, Snapshot>,
    /// Whether the model has layers that cannot be cut.
    marked: bool,
    size: StateSize,
}

/// What a context of `tokens` takes in the cache, with the copies of layers that cannot be cut.
pub fn cached_bytes(size: &StateSize, tokens: usize) -> u64 {
    let marks = tokens.div_ceil(MARK_EVERY) as u64;
    let copies = marks.saturating_mul(size.copied_bytes(tokens));
    size.bytes(tokens).saturating_add(copies)
}

/// A copy of what is known of a sequence.
pub struct Hit {
    segments: Vec<Segment>,
    snapshot: Option<Snapshot>,
    /// Its tokens.
    pub len: usize,
}

impl Hit {
    /// Puts an empty state where the hit ends.
    pub fn restore(&self, state: &mut SequenceState) -> Result<(), MlxError> {
        if self.len == 0 {
            return Ok(());
        }
        state.restore(&self.segments, self.snapshot.as_ref())
    }
}

impl PrefixCache {
    /// An empty cache for the states of a model.
    pub fn new(empty: &SequenceState, size: StateSize) -> Self {
        Self {
            tree: Tree::new(),
            marked: empty.rolls(),
            size,
        }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.tree.bytes()
    }

    /// How many tokens of a sequence a hit would spare. The last is never among them: its logits
    /// are wanted.
    pub fn known(&self, salt: &Option<CacheSalt>, tokens: &[u32]) -> usize {
        let all_but_last = &tokens[..tokens.len().saturating_sub(1)];
        self.tree.known(salt, all_but_last, self.marked)
    }

    /// What is known of a sequence, without its last token.
    pub fn find(&mut self, salt: &Option<CacheSalt>, tokens: &[u32]) -> Result<Hit, MlxError> {
        let all_but_last = &tokens[..tokens.len().saturating_sub(1)];
        let found = self.tree.find(salt, all_but_last, self.marked);
        let segment = |(part, taken): &(&Segment, usize)| match part.len() == *taken {
            true => Ok((*part).clone()),
            false => part.first(*taken),
        };
        Ok(Hit {
            segments: found.parts.iter().map(segment).collect::<Result<_, _>>()?,
            snapshot: found.mark.cloned(),
            len: found.len,
        })
    }

    /// Keeps the state of `tokens`, the first ones that `state` holds, within `limit` bytes for all
    /// that is kept. A model whose layers cannot be cut must hold exactly these tokens.
    pub fn publish(
        &mut self,
        salt: &Option<CacheSalt>,
        tokens: &[u32],
        state: &SequenceState,
        limit: u64,
    ) -> Result<(), MlxError> {
        let snapshot = self.marked.then(|| state.snapshot());
        let fixed = snapshot.as_ref().map_or(0, Snapshot::nbytes);
        let known = self.tree.find(salt, tokens, false).len;
        let needed = fixed + (tokens.len() - known) as u64 * (self.size.per_token + 4);
        if needed > limit {
            return Ok(());
        }
        // Of what is there, the beginning of these tokens goes last: it was found just now.
        self.tree.shrink(limit - needed);
        self.tree.insert(salt, tokens, snapshot, |range| {
            let segment = state.segment(range.start, range.end)?;
            // Now, while the state is what it is, and so that nothing larger is kept alive; not waited
            // for, since a pass may be under way.
            Array::async_eval_all(&segment.arrays().collect::<Vec<_>>())?;
            Ok(segment)
        })?;
        self.tree.shrink(limit);
        Ok(())
    }

    /// Lets go of the longest unused until no more than `limit` bytes are held.
    pub fn shrink(&mut self, limit: u64) {
        self.tree.shrink(limit);
    }

    /// How far a sequence begins like an earlier one, where that is so much beyond the `hit` that the
    /// state there is worth keeping: where two part, more may. `None` where layers can be cut.
    pub fn branch(&self, salt: &Option<CacheSalt>, tokens: &[u32], hit: usize) -> Option<usize> {
        if !self.marked {
            return None;
        }
        let shared = self.tree.known(salt, tokens, false);
        Some(shared).filter(|&shared| shared >= hit + WORTHWHILE)
    }

    /// Where a prefill chunk that begins at `held` had better end, so that the state there can be
    /// kept; `prompt` is the number of its tokens, and `branch` where it parts from an earlier one.
    pub fn next_mark(&self, held: usize, prompt: usize, branch: Option<usize>) -> usize {
        if self.marked {
            next_mark(held, prompt, branch)
        } else {
            prompt
        }
    }

    /// Whether the state after `held` tokens is to be kept while its sequence goes on.
    pub fn is_mark(&self, held: usize, prompt: usize, branch: Option<usize>) -> bool {
        self.marked && held > 0 && held <= prompt && next_mark(held - 1, prompt, branch) == held
    }
}

/// The first position after `held` where a layer that cannot be cut is copied: a multiple of
/// [`MARK_EVERY`]; where the prompt parts from an earlier one; one shortly before its end, for a request
/// that repeats it or that ends it otherwise; its end, for one that continues it.
fn next_mark(held: usize, prompt: usize, branch: Option<usize>) -> usize {
    let regular = (held / MARK_EVERY + 1) * MARK_EVERY;
    let repeat = prompt.saturating_sub(ANSWER_OPENING) / LAST_MARK * LAST_MARK;
    let marks = [regular, repeat, branch.unwrap_or(0), prompt];
    let after = marks.into_iter().filter(|&mark| mark > held).min();
    after.unwrap_or(regular)
}

impl Part for Segment {
    type Error = MlxError;

    fn split(&self, at: usize) -> Result<(Self, Self), MlxError> {
        let (left, right) = Segment::split(self, at)?;
        Array::async_eval_all(&left.arrays().chain(right.arrays()).collect::<Vec<_>>())?;
        Ok((left, right))
    }

    fn nbytes(&self) -> u64 {
        Segment::nbytes(self)
    }
}

impl Mark for Snapshot {
    fn nbytes(&self) -> u64 {
        Snapshot::nbytes(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_regular_and_at_the_end_of_a_prompt() {
        let marks = |prompt, branch| {
            let next =
                |held: &usize| Some(next_mark(*held, prompt, branch)).filter(|_| *held < prompt);
            std::iter::successors(Some(0), next)
                .skip(1)
                .collect::<Vec<_>>()
        };
        assert_eq!(marks(600, None), [256, 512, 576, 600]);
        assert_eq!(marks(513, None), [256, 480, 512, 513]);
        assert_eq!(marks(32, None), [32]);
        assert_eq!(marks(40, None), [32, 40]);
        assert_eq!(marks(1, None), [1]);
        assert_eq!(marks(600, Some(300)), [256, 300, 512, 576, 600]);
        assert_eq!(marks(600, Some(600)), [256, 512, 576, 600]);
    }
}
