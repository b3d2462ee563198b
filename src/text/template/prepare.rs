//! Changes to a template's text before minijinja compiles it, where its language lacks something.

use super::methods::REVERSED;

/// The template in minijinja's words.
pub(super) fn prepare(source: &str) -> String {
    reversed_slices(&generation_tags(source))
}

/// `{% generation %}` marks the assistant's text for training and prints it unchanged. Like the
/// call block that transformers makes of it, `with` has a scope of its own.
fn generation_tags(source: &str) -> String {
    let mut prepared = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        prepared.push_str(before);
        let inner = tag[2..].trim_start_matches(['-', '+']).trim_start();
        let name_len = inner.bytes().take_while(u8::is_ascii_lowercase).count();
        let (name, after) = inner.split_at(name_len);
        let ends = after
            .trim_start()
            .trim_start_matches(['-', '+'])
            .starts_with("%}");
        let replacement = match name {
            "generation" if ends => "with",
            "endgeneration" if ends => "endwith",
            _ => name,
        };
        let head = tag.len() - inner.len();
        prepared.push_str(&tag[..head]);
        prepared.push_str(replacement);
        rest = after;
    }
    prepared.push_str(rest);
    prepared
}

/// `x[::-1]` as a call of a method of ours: minijinja's slice panics where there is nothing to reverse.
fn reversed_slices(source: &str) -> String {
    let mut prepared = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let (before, tag) = rest.split_at(at);
        prepared.push_str(before);
        rest = copy_tag(tag, &mut prepared);
    }
    prepared.push_str(rest);
    prepared
}

/// Copies a tag with its slices replaced; returns what follows it.
fn copy_tag<'a>(tag: &'a str, out: &mut String) -> &'a str {
    let mut quote = None;
    let mut rest = tag;
    while let Some(c) = rest.chars().next() {
        if quote.is_none() {
            if let Some(after) = rest.strip_prefix("}}").or_else(|| rest.strip_prefix("%}")) {
                out.push_str(&rest[..2]);
                return after;
            }
            if let Some(after) = reversed_slice(rest) {
                out.push_str(&format!(".{REVERSED}()"));
                rest = after;
                continue;
            }
        }
        let mut length = c.len_utf8();
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            // Whatever it escapes ends nothing.
            (Some(_), '\\') => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    rest
}

/// What follows `[::-1]`, if the text begins with it.
fn reversed_slice(text: &str) -> Option<&str> {
    ["[", ":", ":", "-", "1", "]"]
        .iter()
        .try_fold(text, |rest, part| rest.trim_start().strip_prefix(part))
        .filter(|_| text.starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_keep_their_whitespace_control() {
        assert_eq!(
            prepare("a{%- generation -%} b {% endgeneration %}{% if generation %}"),
            "a{%- with -%} b {% endwith %}{% if generation %}"
        );
    }

    #[test]
    fn slices_are_replaced_in_tags_only() {
        assert_eq!(
            prepare(
                "[::-1] {{ a[::-1][0] ~ '[::-1]' }}{% for m in x[ :: -1 ] %}\"{{ \"\\\"[::-1]\" }}"
            ),
            "[::-1] {{ a.__reversed__()[0] ~ '[::-1]' }}{% for m in x.__reversed__() %}\"{{ \"\\\"[::-1]\" }}"
        );
        assert_eq!(
            prepare("{{ a[1:][::-1] }}{{ unclosed '"),
            "{{ a[1:].__reversed__() }}{{ unclosed '"
        );
    }
}
