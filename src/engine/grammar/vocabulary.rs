//! A model's vocabulary as llguidance sees it.

use std::sync::Arc;

use llguidance::toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::text::Tokenizer;

/// The trie holds no longer tokens; they are runs of blanks that nothing needs.
const MAX_TOKEN_BYTES: usize = 1000;

/// Put before a text to see how it is tokenized in the middle of another.
const CONTEXT: &str = "\n";

pub(super) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl Vocabulary {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, vocab_size: usize, stop_ids: &[u32]) -> Self {
        let words: Vec<Vec<u8>> = (0..vocab_size)
            .map(|id| {
                let id = TokenId::try_from(id).unwrap_or(INVALID_TOKEN);
                let special = tokenizer.is_special(id) || stop_ids.contains(&id);
                word(tokenizer.token_bytes(id).unwrap_or_default(), special)
            })
            .collect();
        let size = u32::try_from(words.len()).unwrap_or(u32::MAX);
        let eos = stop_ids.first().copied().unwrap_or(INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(size, eos), &words);
        if stop_ids.len() > 1 {
            trie = trie.with_eos_tokens(stop_ids);
        }
        Self { tokenizer, trie }
    }

    /// The tokenizer's own tokens for `text`, if they spell exactly its bytes. A tokenizer that
    /// puts a space before a text is asked for it inside another text.
    fn canonical(&self, text: &str) -> Option<Vec<TokenId>> {
        let spell = |text: &str| {
            let ids = self.tokenizer.encode(text, false).ok()?;
            Some((self.trie.decode_raw(&ids), ids))
        };
        let (spelled, ids) = spell(text)?;
        if spelled == text.as_bytes() {
            return Some(ids);
        }
        let (spelled, ids) = spell(&[CONTEXT, text].concat())?;
        let mut before = spelled.strip_suffix(text.as_bytes())?.len();
        let mut ids = ids.as_slice();
        while before > 0 {
            let (first, rest) = ids.split_first()?;
            before = before.checked_sub(self.trie.token_len(*first))?;
            ids = rest;
        }
        Some(ids.to_vec())
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        str::from_utf8(bytes)
            .ok()
            .and_then(|text| self.canonical(text))
            .unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}

/// A token in the trie. The marker byte, which no UTF-8 text has, keeps a grammar's text from
/// spelling a special token.
fn word(bytes: Vec<u8>, special: bool) -> Vec<u8> {
    if bytes.len() > MAX_TOKEN_BYTES {
        return Vec::new();
    }
    if special && !bytes.is_empty() {
        return [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes.as_slice()].concat();
    }
    bytes
}
