//! How Python writes values as text.

use std::fmt::Write;

use minijinja::Value;
use minijinja::value::ValueKind;

/// `str(value)`; undefined is empty, as in Jinja.
pub(super) fn str(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => {
            let mut text = String::new();
            write_repr(value, &mut text);
            text
        }
    }
}

/// `str.isspace` of one character: Unicode's white space, and the separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Whether `str.splitlines` ends a line here.
pub(super) fn is_line_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// The lines of a text as `str.splitlines` has them, each with the line break behind it.
pub(super) fn lines(text: &str) -> Vec<(&str, &str)> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.find(is_line_break).unwrap_or(rest.len()));
        let length = if after.starts_with("\r\n") {
            2
        } else {
            after.chars().next().map_or(0, char::len_utf8)
        };
        let (mark, after) = after.split_at(length);
        lines.push((line, mark));
        rest = after;
    }
    lines
}

/// A float in `value`, as opposed to an integer.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        f64::try_from(value.clone()).ok()
    } else {
        None
    }
}

fn write_repr(value: &Value, out: &mut String) {
    if let Some(number) = as_float(value) {
        out.push_str(&float(number));
        return;
    }
    match (value.kind(), value.try_iter()) {
        (ValueKind::String, _) => write_string(value.as_str().unwrap_or_default(), out),
        (ValueKind::Map, Ok(keys)) if value.as_object().is_some() => {
            list(out, "{", "}", keys, |key, out| {
                write_repr(&key, out);
                out.push_str(": ");
                write_repr(&value.get_item(&key).unwrap_or_default(), out);
            });
        }
        (ValueKind::Seq | ValueKind::Iterable, Ok(items)) => {
            let tuple = value.is_tuple();
            let (open, close) = match value.len() {
                Some(1) if tuple => ("(", ",)"),
                _ if tuple => ("(", ")"),
                _ => ("[", "]"),
            };
            list(out, open, close, items, |item, out| write_repr(&item, out));
        }
        _ => {
            if value.is_undefined() {
                out.push_str("Undefined");
            } else {
                let _ = write!(out, "{value:?}");
            }
        }
    }
}

/// `repr(str)`: quoted by `"` only if that saves an escape, and what does not print escaped.
fn write_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote || c == '\\' => out.extend(['\\', c]),
            c if prints(c) => out.push(c),
            c => {
                let _ = match u32::from(c) {
                    code @ ..0x100 => write!(out, "\\x{code:02x}"),
                    code @ ..0x10000 => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable`, apart from code points that Unicode has not assigned.
fn prints(c: char) -> bool {
    let hidden = c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}')
        || (c >= '\u{e0000}' && !matches!(c, '\u{e0100}'..='\u{e01ef}'));
    !hidden
}

fn list<T>(
    out: &mut String,
    open: &str,
    close: &str,
    items: impl Iterator<Item = T>,
    mut item: impl FnMut(T, &mut String),
) {
    out.push_str(open);
    for (index, value) in items.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        item(value, out);
    }
    out.push_str(close);
}

/// `repr(float)`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number:?}")
}

#[cfg(test)]
mod tests {
    use minijinja::value::Serde;

    use super::*;

    #[test]
    fn floats_are_written_like_python() {
        for (number, expected) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-10, "-2.5e-10"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn strings_are_quoted_like_python() {
        for (text, expected) in [
            ("it's", r#""it's""#),
            (r#"it's "so""#, r#"'it\'s "so"'"#),
            (
                "a\\b\u{7f}\u{2028}é日\u{e0001}",
                r"'a\\b\x7f\u2028é日\U000e0001'",
            ),
            ("\u{a0}\u{1}", r"'\xa0\x01'"),
        ] {
            assert_eq!(str(&Value::from(vec![text])), format!("[{expected}]"));
        }
    }

    #[test]
    fn containers_are_written_like_python() {
        let value = Value::from(Serde(serde_json::json!(
            {"a": [1, 1.0, null, true], "b": "it's", "c": {}, "d": "\n\"", "e": 1e20}
        )));
        let expected =
            r#"{'a': [1, 1.0, None, True], 'b': "it's", 'c': {}, 'd': '\n"', 'e': 1e+20}"#;
        assert_eq!(str(&value), expected);
    }
}
