//! Methods of Python's `str`, `list` and `dict` that templates call, beyond minijinja-contrib's.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::python;
use super::strings::{
    MAX_WIDTH, any_of, is_decimal, justify, rsplit, split, split_args, split_lines, swap_case,
    title, triple, window,
};

/// The name that `x[::-1]` is called by.
pub(super) const REVERSED: &str = "__reversed__";

/// Calls `value.method(*args)`.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if method == REVERSED {
        return reversed(value);
    }
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
    match (value.kind(), method) {
        (ValueKind::Map | ValueKind::Seq, "copy") => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        (ValueKind::Seq, "index") => {
            let (what,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *what);
            let missing = || Error::new(ErrorKind::InvalidOperation, "index: not in the list");
            Ok(Value::from(at.ok_or_else(missing)?))
        }
        _ => unknown_method_callback(state, value, method, args),
    }
}

fn reversed(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().rev().collect::<String>().into());
    }
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let mut items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        return Ok(if value.is_tuple() {
            Tuple::from(items).into()
        } else {
            items.into()
        });
    }
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => Ok(Value::UNDEFINED),
        kind => {
            let message = format!("a value of type {kind} cannot be reversed");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
    }
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
            Value::from(text.to_lowercase().replace('ß', "ss").replace('ς', "σ"))
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "swapcase" => {
            let () = from_args(args)?;
            Value::from(text.chars().flat_map(swap_case).collect::<String>())
        }
        "isspace" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(python::is_space))
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(is_decimal))
        }
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let strips = |c: char| chars.map_or_else(|| python::is_space(c), |set| set.contains(c));
            Value::from(match method {
                "strip" => text.trim_matches(strips),
                "lstrip" => text.trim_start_matches(strips),
                _ => text.trim_end_matches(strips),
            })
        }
        "startswith" | "endswith" => {
            let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let (_, part) = window(text, start, end);
            let matches = |affix: &str| match method {
                "startswith" => part.is_some_and(|part| part.starts_with(affix)),
                _ => part.is_some_and(|part| part.ends_with(affix)),
            };
            Value::from(any_of(what, method, matches)?)
        }
        "count" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let part = window(text, start, end).1;
            Value::from(part.map_or(0, |part| part.matches(what).count()))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (before, part) = window(text, start, end);
            let found = part.and_then(|part| {
                let at = if method.starts_with('r') {
                    part.rfind(what)
                } else {
                    part.find(what)
                };
                Some(before + part[..at?].chars().count())
            });
            match found {
                Some(index) => Value::from(index),
                None if method.ends_with("find") => Value::from(-1),
                None => {
                    let message = format!("{method}: substring not found");
                    return Err(Error::new(ErrorKind::InvalidOperation, message));
                }
            }
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            let mut parts = Vec::new();
            for part in values.try_iter()?.checked() {
                let part = part?;
                let text = part.as_str().ok_or_else(|| {
                    Error::new(ErrorKind::InvalidOperation, "join: an item is no string")
                })?;
                parts.push(text.to_owned());
            }
            Value::from(parts.join(text))
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
        _ => return Ok(None),
    };
    Ok(Some(result))
}
