//! Methods of Python's `str`, `list` and `dict` that templates call, beyond minijinja-contrib's.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::python;
use super::strings::{
    MAX_WIDTH, any_of, is_decimal, justify, rsplit, split, split_args, split_lines, swap_case,
    title, triple, window,
};

/// The name that `x[a:b:c]` is called by.
pub(super) const SLICE: &str = "__slice__";
/// The name that `'text' % x` is called by.
pub(super) const PERCENT: &str = "__percent__";

/// Calls `value.method(*args)`.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if method == SLICE {
        return slice(value, args);
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

/// `value[start:stop:step]`.
fn slice(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let (start, stop, step): (Option<i64>, Option<i64>, Option<i64>) = from_args(args)?;
    if step == Some(0) {
        let message = "slice step cannot be zero";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    if let Some(text) = value.as_str() {
        let chars: Vec<char> = text.chars().collect();
        let places = places(chars.len(), start, stop, step.unwrap_or(1));
        let taken = places.filter_map(|place| chars.get(place));
        return Ok(taken.collect::<String>().into());
    }
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        let places = places(items.len(), start, stop, step.unwrap_or(1));
        let taken: Vec<Value> = places
            .filter_map(|place| items.get(place).cloned())
            .collect();
        return Ok(if value.is_tuple() {
            Tuple::from(taken).into()
        } else {
            taken.into()
        });
    }
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => Ok(Value::UNDEFINED),
        kind => {
            let message = format!("a value of type {kind} cannot be sliced");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
    }
}

/// The indices that Python's `slice(start, stop, step).indices(length)` stands for.
fn places(
    length: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> impl Iterator<Item = usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    // Backwards, one place before the first ends it.
    let (least, most) = if step < 0 {
        (-1, length - 1)
    } else {
        (0, length)
    };
    let place = |index: i64| match index {
        ..0 => index.saturating_add(length).max(least),
        _ => index.min(most),
    };
    let start = start.map_or(if step < 0 { most } else { least }, place);
    let stop = stop.map_or(if step < 0 { least } else { most }, place);
    let next = move |at: &i64| at.checked_add(step);
    std::iter::successors(Some(start), next)
        .take_while(move |&at| if step < 0 { at > stop } else { at < stop })
        .filter_map(|at| usize::try_from(at).ok())
}

/// `text % values`: a tuple has a value for each place, anything else is the only one.
fn percent(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (values,): (&Value,) = from_args(args)?;
    let mut values = match values.is_tuple() {
        true => values
            .try_iter()?
            .checked()
            .collect::<Result<Vec<_>, _>>()?,
        false => vec![values.clone()],
    };
    let named = text.contains("%(");
    for value in &mut values {
        let is_written = match value.kind() {
            ValueKind::Seq | ValueKind::Iterable | ValueKind::None => true,
            ValueKind::Map => !named,
            _ => false,
        };
        if is_written {
            *value = Value::from(python::str(value));
        }
    }
    minijinja::formatting::format(FormatStyle::Printf, text, &values).map(Value::from)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match method {
        PERCENT => percent(text, args)?,
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
