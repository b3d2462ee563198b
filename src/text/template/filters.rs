//! Filters and tests of Jinja where minijinja's own differ: in what they take, or on undefined values.

use minijinja::value::{Kwargs, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::python::{self, is_space};

/// Puts them in the place of minijinja's.
pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("e", escape);
    environment.add_filter("escape", escape);
    environment.add_filter("first", first);
    environment.add_filter("last", last);
    environment.add_filter("float", float);
    environment.add_filter("int", int);
    environment.add_filter("indent", indent);
    environment.add_filter("items", items);
    environment.add_filter("join", join);
    environment.add_filter("list", list);
    environment.add_filter("replace", replace);
    environment.add_filter("trim", trim);
}

/// What has a length and can be indexed, so also strings and mappings.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined
    )
}

fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    minijinja::filters::length(value)
}

fn default(
    value: &Value,
    other: Option<Value>,
    boolean: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let other = argument(other, &kwargs, "default_value")?;
    let boolean = argument(boolean, &kwargs, "boolean")?;
    kwargs.assert_all_used()?;
    let unset = value.is_undefined() || (boolean.is_some_and(|b| b.is_true()) && !value.is_true());
    Ok(if unset {
        other.unwrap_or_else(|| Value::from(""))
    } else {
        value.clone()
    })
}

/// An argument by its place, or else by its name.
fn argument(
    positional: Option<Value>,
    kwargs: &Kwargs,
    name: &'static str,
) -> Result<Option<Value>, Error> {
    match positional {
        Some(value) => Ok(Some(value)),
        None => kwargs.get::<Option<Value>>(name),
    }
}

fn dictsort(
    value: &Value,
    case_sensitive: Option<Value>,
    by: Option<Value>,
    reverse: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let mut named = Vec::new();
    for (name, given) in [
        ("case_sensitive", case_sensitive),
        ("by", by),
        ("reverse", reverse),
    ] {
        if let Some(given) = argument(given, &kwargs, name)? {
            named.push((name, given));
        }
    }
    kwargs.assert_all_used()?;
    minijinja::filters::dictsort(value, named.into_iter().collect())
}

/// Like `markupsafe.escape`.
fn escape(value: &Value) -> String {
    let text = python::str(value);
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn first(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::UNDEFINED);
    }
    minijinja::filters::first(value)
}

fn last(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::UNDEFINED);
    }
    minijinja::filters::last(value.clone())
}

/// What is no number is the default, which is 0.
fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = argument(default, &kwargs, "default")?.unwrap_or_else(|| Value::from(0));
    let trimmed = value
        .as_str()
        .map(|text| Value::from(text.trim_matches(is_space)));
    let value = trimmed.as_ref().unwrap_or(value);
    defined(value)?;
    minijinja::filters::int(state, value, Some(default), base, kwargs)
}

/// What is no number is the default, which is 0.0.
fn float(
    state: &State,
    value: &Value,
    default: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = argument(default, &kwargs, "default")?.unwrap_or_else(|| Value::from(0.0));
    let trimmed = value
        .as_str()
        .map(|text| Value::from(text.trim_matches(is_space)));
    let value = trimmed.as_ref().unwrap_or(value);
    defined(value)?;
    minijinja::filters::float(state, value, Some(default), kwargs)
}

/// `indent(s, width=4, first=False, blank=False)`; the width may be the text itself.
fn indent(
    value: &Value,
    width: Option<Value>,
    first: Option<Value>,
    blank: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = argument(width, &kwargs, "width")?.unwrap_or_else(|| Value::from(4));
    let on = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let first = on(argument(first, &kwargs, "first")?);
    let blank = on(argument(blank, &kwargs, "blank")?);
    kwargs.assert_all_used()?;
    defined(value)?;
    let indention = match width.as_str() {
        Some(text) => text.to_owned(),
        // Every line carries it: a wide one multiplies the output.
        None => " ".repeat(usize::try_from(width).unwrap_or(0).min(MAX_INDENT)),
    };
    let text = python::str(value);
    let mut lines = python::lines(&text)
        .into_iter()
        .map(|(line, _)| line)
        .collect::<Vec<_>>();
    // Jinja adds a line break before it splits.
    if text.is_empty() || text.ends_with(python::is_line_break) {
        lines.push("");
    }
    let mut indented = String::new();
    for (index, line) in lines.into_iter().enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        if (index > 0 || first) && (blank || !line.is_empty() || index == 0) {
            indented.push_str(&indention);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

const MAX_INDENT: usize = 1024;

/// As Python's operations on an undefined value: some filters of Jinja make nothing of it.
fn defined(value: &Value) -> Result<(), Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    Ok(())
}

fn items(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::from(Tuple::from([])));
    }
    minijinja::filters::items(value)
}

/// `join(value, d="", attribute=None)`.
fn join(
    state: &mut State,
    value: &Value,
    separator: Option<Value>,
    attribute: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let separator = argument(separator, &kwargs, "d")?;
    let attribute = argument(attribute, &kwargs, "attribute")?;
    kwargs.assert_all_used()?;
    not_none(value)?;
    let values = match attribute {
        None => value.clone(),
        Some(attribute) => {
            let by = Kwargs::from_iter([("attribute", attribute)]);
            state.apply_filter("map", &[value.clone(), by.into()])?
        }
    };
    let parts = values.try_iter()?.checked();
    let parts = parts.map(|item| item.map(|item| python::str(&item)));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    Ok(parts.join(&separator.map_or_else(String::new, |text| python::str(&text))))
}

fn list(value: &Value) -> Result<Value, Error> {
    not_none(value)?;
    Ok(Value::from(
        value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?,
    ))
}

fn not_none(value: &Value) -> Result<(), Error> {
    if value.is_none() {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "None is not iterable",
        ));
    }
    Ok(())
}

fn replace(value: &Value, old: &Value, new: &Value, count: Option<i64>) -> Result<String, Error> {
    let (text, old, new) = (python::str(value), python::str(old), python::str(new));
    Ok(match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => text.replacen(&old, &new, count),
        None => text.replace(&old, &new),
    })
}

fn trim(value: &Value, chars: Option<Value>) -> String {
    let text = python::str(value);
    match chars.filter(|chars| !chars.is_none()) {
        None => text.trim_matches(is_space).to_owned(),
        Some(chars) => {
            let chars: Vec<char> = python::str(&chars).chars().collect();
            text.trim_matches(&chars[..]).to_owned()
        }
    }
}
