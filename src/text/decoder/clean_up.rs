//! Spaces before punctuation, which tokenizers of words leave, taken out of a text or a stream.

/// What `clean_up_tokenization` of transformers writes for what, in this order.
pub(super) const CLEAN_UP: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// A whole text as transformers' `clean_up_tokenization` leaves it.
pub(in crate::text) fn clean_up(text: String) -> String {
    CLEAN_UP
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
}

/// Takes what is certain out of `held`, with `from` replaced; leaves what `from` may begin with.
pub(super) fn replace(held: &mut String, from: &str, to: &str) -> String {
    let begins = (1..from.len())
        .rev()
        .filter(|length| from.is_char_boundary(*length));
    let mut rest = held.as_str();
    let mut certain = String::new();
    while let Some((before, after)) = rest.split_once(from) {
        certain.push_str(before);
        certain.push_str(to);
        rest = after;
    }
    let kept = begins
        .map(|length| &from[..length])
        .find(|begin| rest.ends_with(begin))
        .map_or(0, str::len);
    let (before, kept) = rest.split_at(rest.len() - kept);
    certain.push_str(before);
    *held = kept.to_owned();
    certain
}
