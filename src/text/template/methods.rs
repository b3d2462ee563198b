//! Methods of Python's `str`, `list` and `dict` that templates call, beyond minijinja-contrib's.

use minijinja::value::{Kwargs, Tuple, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Calls `value.method(*args)`.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = string_method(text, method, args)?
    {
        return Ok(result);
    }
    if matches!(
        method,
        "append" | "extend" | "insert" | "pop" | "update" | "clear" | "remove"
    ) {
        // As transformers' ImmutableSandboxedEnvironment does.
        return Err(Error::new(
            ErrorKind::UnknownMethod,
            format!("{method}: templates cannot change values"),
        ));
    }
    unknown_method_callback(state, value, method, args)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = text
                .split_once(separator)
                .map_or((text, "", ""), |(a, b)| (a, separator, b));
            triple(parts)
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = text
                .rsplit_once(separator)
                .map_or(("", "", text), |(a, b)| (a, separator, b));
            triple(parts)
        }
        "split" => {
            let (separator, limit) = split_args(args)?;
            split(text, separator.as_deref(), limit)?
        }
        "rsplit" => {
            let (separator, limit) = split_args(args)?;
            rsplit(text, separator.as_deref(), limit)?
        }
        "splitlines" => {
            let (keepends, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keepends = match keepends {
                Some(keepends) => keepends,
                None => kwargs.get::<Option<bool>>("keepends")?.unwrap_or(false),
            };
            kwargs.assert_all_used()?;
            split_lines(text, keepends)
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase())
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let fill = width.min(MAX_WIDTH).saturating_sub(text.chars().count());
            Value::from(format!("{sign}{}{digits}", "0".repeat(fill)))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            Value::from(justify(text, method, width, fill.unwrap_or(' ')))
        }
        "index" => {
            let (what,): (&str,) = from_args(args)?;
            let at = text.find(what).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, "index: substring not found")
            })?;
            Value::from(text[..at].chars().count())
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// Nothing a template prints is wider.
const MAX_WIDTH: usize = 10_000;

fn triple((before, separator, after): (&str, &str, &str)) -> Value {
    Value::from(Tuple::from([before.into(), separator.into(), after.into()]))
}

fn split_args(args: &[Value]) -> Result<(Option<String>, Option<usize>), Error> {
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

fn split(text: &str, separator: Option<&str>, limit: Option<usize>) -> Result<Value, Error> {
    let limit = limit.unwrap_or(usize::MAX);
    let Some(separator) = separator else {
        let mut parts = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let end = rest
                .find(char::is_whitespace)
                .filter(|_| parts.len() < limit);
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            parts.push(Value::from(part));
            rest = after.trim_start();
        }
        return Ok(Value::from(parts));
    };
    check_separator(separator)?;
    Ok(text
        .splitn(limit.saturating_add(1), separator)
        .map(Value::from)
        .collect())
}

fn rsplit(text: &str, separator: Option<&str>, limit: Option<usize>) -> Result<Value, Error> {
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
            let mut rest = text.trim_end();
            while !rest.is_empty() {
                let last = rest.char_indices().rev().find(|(_, c)| c.is_whitespace());
                let start = last
                    .filter(|_| parts.len() < limit)
                    .map_or(0, |(at, c)| at + c.len_utf8());
                parts.push(Value::from(&rest[start..]));
                rest = rest[..start].trim_end();
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
fn split_lines(text: &str, keepends: bool) -> Value {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let boundary = |c: char| {
            matches!(
                c,
                '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}'
            ) || matches!(c, '\u{2028}' | '\u{2029}')
        };
        let end = rest.find(boundary).unwrap_or(rest.len());
        let after = &rest[end..];
        let mark = if after.starts_with("\r\n") {
            2
        } else {
            after.chars().next().map_or(0, char::len_utf8)
        };
        lines.push(Value::from(
            &rest[..if keepends { end + mark } else { end }],
        ));
        rest = &rest[end + mark..];
    }
    Value::from(lines)
}

fn justify(text: &str, method: &str, width: usize, fill: char) -> String {
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
