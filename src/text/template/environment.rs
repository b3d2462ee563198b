//! The Jinja environment of transformers: `_cached_compile_jinja_template`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Value};

use super::{filters, json, methods, python};

/// Instructions that one rendering may take: about a second. A message takes a few hundred at most.
const FUEL: u64 = 10_000_000;

/// The message of a template's `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub String);

pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    // Templates are named by a repository, and a name like "x.html" must not turn escaping on.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(write_value);
    filters::register(&mut environment);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |value: &Value| python::str(value));
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_function("dict", dict);
    environment.add_function("namespace", namespace);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment
}

fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(false)
        .build()
        // Only delimiters can be refused, and none is set.
        .unwrap_or_default()
}

fn write_value(output: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    if value.kind() == ValueKind::Invalid {
        return Err(Error::new(ErrorKind::InvalidOperation, value.to_string()));
    }
    output.write_str(&python::str(value)).map_err(Error::from)
}

fn raise_exception(message: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    kwargs.assert_all_used()?;
    let message = python::str(message);
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// `dict(mapping or pairs, **kwargs)`.
fn dict(from: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let from = match from {
        Some(pairs) if pairs.kind() != ValueKind::Map => {
            let pairs = pairs.try_iter()?.map(|pair| {
                let mut parts = pair.try_iter()?;
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(key), Some(value), None) => Ok((key, value)),
                    _ => Err(Error::new(ErrorKind::InvalidOperation, "dict: not a pair")),
                }
            });
            Some(Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?))
        }
        other => other,
    };
    minijinja::functions::dict(from, kwargs)
}

/// `namespace(mapping or pairs, **kwargs)`.
fn namespace(state: &mut State, from: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let start = dict(from, kwargs)?;
    for name in start.try_iter()? {
        if name.as_str().is_some_and(|name| name.starts_with('_')) {
            let message = format!("a namespace cannot have {name}: its names begin with a letter");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    let namespace = Value::from_function(minijinja::functions::namespace);
    namespace.call(state, &[start])
}

fn strftime_now(format: &str) -> Result<String, Error> {
    strftime(format, &jiff::Zoned::now())
}

fn strftime(format: &str, time: &jiff::Zoned) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, time)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, "strftime_now").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strftime_writes_what_python_writes() {
        let time = jiff::civil::date(2026, 3, 7)
            .at(14, 5, 9, 0)
            .in_tz("UTC")
            .unwrap();
        for (format, expected) in [
            ("%d %b %Y", "07 Mar 2026"),
            ("%Y-%m-%d", "2026-03-07"),
            ("%B %-d, %Y", "March 7, 2026"),
            ("%A %H:%M:%S", "Saturday 14:05:09"),
        ] {
            assert_eq!(strftime(format, &time).unwrap(), expected);
        }
        assert!(strftime("%!", &time).is_err());
    }
}
