//! What Python's methods of `str` do, on Rust's strings.

use minijinja::value::{Kwargs, Tuple, from_args};
use minijinja::{Error, ErrorKind, Value};

use super::python;

/// The part of a text between two indices of characters, as Python counts them, and how many are before
/// it; no part where the start is beyond the end.
pub(super) fn window(text: &str, start: Option<i64>, end: Option<i64>) -> (usize, Option<&str>) {
    if start.is_none() && end.is_none() {
        return (0, Some(text));
    }
    let length = text.chars().count();
    let place = |index: i64| {
        let from_end = length as i64 + index;
        usize::try_from(if index < 0 { from_end.max(0) } else { index }).unwrap_or(0)
    };
    let (start, end) = (
        start.map_or(0, place),
        end.map_or(length, place).min(length),
    );
    let byte = |index: usize| {
        text.char_indices()
            .nth(index)
            .map_or(text.len(), |(at, _)| at)
    };
    let part = (start <= end).then(|| &text[byte(start)..byte(end)]);
    (start, part)
}

/// Whether one of the affixes matches, which are a string or a tuple of them.
pub(super) fn any_of(
    what: &Value,
    method: &str,
    matches: impl Fn(&str) -> bool,
) -> Result<bool, Error> {
    if let Some(affix) = what.as_str() {
        return Ok(matches(affix));
    }
    let wrong = || {
        let message = format!("{method}: neither a string nor a tuple of strings");
        Error::new(ErrorKind::InvalidOperation, message)
    };
    for affix in what.try_iter().map_err(|_| wrong())? {
        if matches(affix.as_str().ok_or_else(wrong)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `str.title`: a letter behind a letter is small, any other one large.
pub(super) fn title(text: &str) -> String {
    let mut in_word = false;
    let mut titled = String::with_capacity(text.len());
    for c in text.chars() {
        if in_word {
            titled.extend(c.to_lowercase());
        } else {
            titled.extend(c.to_uppercase());
        }
        in_word = c.is_lowercase() || c.is_uppercase();
    }
    titled
}

pub(super) fn swap_case(c: char) -> Vec<char> {
    if c.is_uppercase() {
        c.to_lowercase().collect()
    } else {
        c.to_uppercase().collect()
    }
}

/// Digits of ASCII, and of the full width that East Asian text uses.
pub(super) fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '０'..='９')
}

/// Nothing a template prints is wider.
pub(super) const MAX_WIDTH: usize = 10_000;

pub(super) fn triple((before, separator, after): (&str, &str, &str)) -> Value {
    Value::from(Tuple::from([before.into(), separator.into(), after.into()]))
}

pub(super) fn split_args(args: &[Value]) -> Result<(Option<String>, Option<usize>), Error> {
    let (separator, limit, kwargs): (Option<String>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get::<Option<String>>("sep")?,
    };
    let limit = match limit {
        Some(limit) => Some(limit),
        None => kwargs.get::<Option<i64>>("maxsplit")?,
    };
    kwargs.assert_all_used()?;
    Ok((
        separator,
        limit.and_then(|limit| usize::try_from(limit).ok()),
    ))
}

pub(super) fn split(
    text: &str,
    separator: Option<&str>,
    limit: Option<usize>,
) -> Result<Value, Error> {
    let limit = limit.unwrap_or(usize::MAX);
    let Some(separator) = separator else {
        let mut parts = Vec::new();
        let mut rest = text.trim_start_matches(python::is_space);
        while !rest.is_empty() {
            let end = rest.find(python::is_space).filter(|_| parts.len() < limit);
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            parts.push(Value::from(part));
            rest = after.trim_start_matches(python::is_space);
        }
        return Ok(Value::from(parts));
    };
    check_separator(separator)?;
    Ok(text
        .splitn(limit.saturating_add(1), separator)
        .map(Value::from)
        .collect())
}

pub(super) fn rsplit(
    text: &str,
    separator: Option<&str>,
    limit: Option<usize>,
) -> Result<Value, Error> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut parts: Vec<Value> = match separator {
        Some(separator) => {
            check_separator(separator)?;
            text.rsplitn(limit.saturating_add(1), separator)
                .map(Value::from)
                .collect()
        }
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end_matches(python::is_space);
            while !rest.is_empty() {
                let last = rest
                    .char_indices()
                    .rev()
                    .find(|(_, c)| python::is_space(*c));
                let start = last
                    .filter(|_| parts.len() < limit)
                    .map_or(0, |(at, c)| at + c.len_utf8());
                parts.push(Value::from(&rest[start..]));
                rest = rest[..start].trim_end_matches(python::is_space);
            }
            parts
        }
    };
    parts.reverse();
    Ok(Value::from(parts))
}

fn check_separator(separator: &str) -> Result<(), Error> {
    if separator.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "split: empty separator",
        ));
    }
    Ok(())
}

/// Splits at the line boundaries of `str.splitlines`, of which `\n`, `\r` and `\r\n` are only some.
pub(super) fn split_lines(text: &str, keepends: bool) -> Value {
    let lines = python::lines(text).into_iter();
    lines
        .map(|(line, mark)| {
            if keepends {
                [line, mark].concat()
            } else {
                line.to_owned()
            }
        })
        .map(Value::from)
        .collect()
}

pub(super) fn justify(text: &str, method: &str, width: usize, fill: char) -> String {
    let width = width.min(MAX_WIDTH);
    let missing = width.saturating_sub(text.chars().count());
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // CPython's rounding: the odd one goes left only if the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    let run = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    run(left) + text + &run(missing - left)
}
