//! Tokens that are bytes: single ones, GPT-2's alphabet, and characters that come in pieces.

/// The byte of a `<0xNN>` token, by the rule of the library's `ByteFallback`.
pub(super) fn fallback_byte(token: &str) -> Option<u8> {
    if token.len() != 6 || !token.starts_with("<0x") || !token.ends_with('>') {
        return None;
    }
    token
        .get(3..5)
        .and_then(|hex| u8::from_str_radix(hex, 16).ok())
}

/// Maps a token from GPT-2's printable alphabet back to bytes; a token with any other character
/// (an added token) stands for itself, as in the library.
pub(super) fn byte_level(token: &str) -> Vec<u8> {
    token
        .chars()
        .map(byte_of_char)
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The inverse of `bytes_to_unicode` in GPT-2's `encoder.py`: printable Latin-1 stands for itself,
/// the other 68 bytes, in order, for U+0100 and on.
fn byte_of_char(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// `String::from_utf8_lossy` for bytes that come in pieces.
#[derive(Debug, Clone, Default)]
pub(super) struct Utf8Lossy {
    /// The start of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Lossy {
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut held = 0;
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && unfinished(invalid) {
                held = invalid.len();
            } else if !invalid.is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.pending.drain(..self.pending.len() - held);
    }

    pub(super) fn finish(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.pending).is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Whether more bytes could complete this invalid sequence.
fn unfinished(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
