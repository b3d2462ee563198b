//! Changes to a template's text before minijinja compiles it, where its language lacks something.

use super::methods::{PERCENT, SLICE};

/// The template in minijinja's words.
pub(super) fn prepare(source: &str) -> String {
    expressions(&generation_tags(source))
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

/// What minijinja's expressions lack, as calls of ours: slices with steps (its own panics at some), and `%`
/// behind a text in quotes.
fn expressions(source: &str) -> String {
    let mut prepared = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let (before, tag) = rest.split_at(at);
        prepared.push_str(before);
        let end = end_of(tag, |rest| rest.starts_with("}}") || rest.starts_with("%}"));
        prepared.push_str(&expression(&tag[..end]));
        rest = &tag[end..];
    }
    prepared.push_str(rest);
    prepared
}

/// Where in a piece of a template, outside of quotes, `ends` says that it ends; else its length.
fn end_of(text: &str, mut ends: impl FnMut(&str) -> bool) -> usize {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if ends(&text[at..]) {
            return at;
        }
        at += match c {
            '"' | '\'' => quoted(&text[at..]),
            c => c.len_utf8(),
        };
    }
    text.len()
}

/// The length of the text in quotes that this begins with, quotes included.
fn quoted(text: &str) -> usize {
    let mut chars = text.char_indices();
    let open = chars.next().map(|(_, open)| open);
    while let Some((at, c)) = chars.next() {
        match c {
            // Whatever it escapes ends nothing.
            '\\' => drop(chars.next()),
            c if Some(c) == open => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn expression(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((parts, after)) = slice(rest) {
            let part = |part: &str| match part.trim() {
                "" => "none".to_owned(),
                part => expression(part),
            };
            let parts = parts.map(part).join(", ");
            out.push_str(&format!(".{SLICE}({parts})"));
            rest = after;
            continue;
        }
        let length = match c {
            '"' | '\'' => quoted(rest),
            c => c.len_utf8(),
        };
        let (copied, after) = rest.split_at(length);
        out.push_str(copied);
        rest = after;
        if matches!(c, '"' | '\'')
            && let Some(operand) = rest.trim_start().strip_prefix('%')
            && !operand.starts_with('}')
        {
            let (operand, after) = operand.split_at(operand_length(operand));
            out.push_str(&format!(".{PERCENT}({})", expression(operand.trim())));
            rest = after;
        }
    }
    out
}

/// The three parts of the slice that the text begins with, and what follows it.
fn slice(text: &str) -> Option<([&str; 3], &str)> {
    let inside = text.strip_prefix('[')?;
    let (mut depth, mut colons) = (0_u32, Vec::new());
    let end = end_of(inside, |rest| {
        match rest.as_bytes().first() {
            Some(b'(' | b'[' | b'{') => depth += 1,
            Some(b']') if depth == 0 => return true,
            Some(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            Some(b':') if depth == 0 => colons.push(inside.len() - rest.len()),
            _ => {}
        }
        false
    });
    let &[first, second] = colons.as_slice() else {
        return None;
    };
    let after = inside[end..].strip_prefix(']')?;
    let parts = [
        &inside[..first],
        &inside[first + 1..second],
        &inside[second + 1..end],
    ];
    Some((parts, after))
}

/// How far the right side of `%` goes: a name, number, text or what stands in brackets, and what is done with
/// it by dots, brackets and filters.
fn operand_length(text: &str) -> usize {
    let mut depth = 0_u32;
    let mut previous = None;
    let mut begun = false;
    end_of(text, |rest| {
        let Some(c) = rest.chars().next() else {
            return true;
        };
        let inner = depth > 0;
        let ends = !inner
            && match c {
                ')' | ']' | '}' => true,
                // Behind a space only a filter goes on with it.
                c if c.is_whitespace() => {
                    let next = rest.trim_start();
                    begun && !next.starts_with('|') && previous != Some('|')
                }
                '(' | '[' | '{' | '.' | '|' | '_' | '"' | '\'' => false,
                '-' | '+' => begun,
                c => !c.is_alphanumeric(),
            };
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !c.is_whitespace() {
            begun |= !matches!(c, '-' | '+');
            previous = Some(c);
        }
        ends
    })
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
    fn slices_with_steps_are_replaced_in_tags_only() {
        for (source, expected) in [
            (
                "[::-1] {{ a[::-1][0] ~ '[::-1]' }}{% for m in x[ :: -1 ] %}\"{{ \"\\\"[::-1]\" }}",
                "[::-1] {{ a.__slice__(none, none, -1)[0] ~ '[::-1]' }}\
                 {% for m in x.__slice__(none, none, -1) %}\"{{ \"\\\"[::-1]\" }}",
            ),
            (
                "{{ a[1:][::-1] }}{{ unclosed '",
                "{{ a[1:].__slice__(none, none, -1) }}{{ unclosed '",
            ),
            (
                "{{ a[b[::2]:f(1, ':'):-c] }}",
                "{{ a.__slice__(b.__slice__(none, none, 2), f(1, ':'), -c) }}",
            ),
            (
                "{{ a[1:2] }}{{ [{'a': 1, 'b': 2}] }}",
                "{{ a[1:2] }}{{ [{'a': 1, 'b': 2}] }}",
            ),
        ] {
            assert_eq!(prepare(source), expected);
        }
    }

    #[test]
    fn a_text_is_formatted_by_what_stands_behind_it() {
        for (source, expected) in [
            ("{{ '%s' % x }}", "{{ '%s'.__percent__(x) }}"),
            (
                "{{ '%s, %d' % (a, b|length) ~ c }}",
                "{{ '%s, %d'.__percent__((a, b|length)) ~ c }}",
            ),
            (
                "{{ '%s'%x.y[0] | upper and z }}",
                "{{ '%s'.__percent__(x.y[0] | upper) and z }}",
            ),
            ("{{ '%d' % -1 + 2 }}", "{{ '%d'.__percent__(-1) + 2 }}"),
            (
                "{% set a = 'b' %}{%- set a = 'b' -%}{{ 7 % 3 }}",
                "{% set a = 'b' %}{%- set a = 'b' -%}{{ 7 % 3 }}",
            ),
        ] {
            assert_eq!(prepare(source), expected);
        }
    }
}
