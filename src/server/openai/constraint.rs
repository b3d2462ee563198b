//! What an output must be, also where something other than `response_format` says so: the fields of
//! vLLM and of llama-server.

use serde_json::{Value, json};

use super::response_format::checked;
use crate::engine::grammar::GrammarSpec;
use crate::server::body::Body;
use crate::server::error::ApiError;

/// What an output must be, and what says so: errors name it.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraint {
    /// What it must be.
    pub spec: GrammarSpec,
    /// The field.
    pub field: &'static str,
}

type Reader = fn(Value, &str) -> Result<Option<GrammarSpec>, ApiError>;

const FIELDS: &[(&str, Reader)] = &[
    ("regex", regex),
    ("choice", choice),
    ("grammar", grammar),
    ("json_schema", schema),
    ("guided_regex", regex),
    ("guided_choice", choice),
    ("guided_grammar", grammar),
    ("guided_json", schema),
    ("structured_outputs", structured_outputs),
];

/// Texts that `choice` may list.
const CHOICES: usize = 10_000;

/// The output's constraint, of whichever field says one; `found` is what the field `by` said. Two are
/// an error: an output cannot be held to both.
pub fn beside(
    body: &mut Body,
    found: Option<Constraint>,
    by: &'static str,
) -> Result<Option<Constraint>, ApiError> {
    let mut found = found.map(|constraint| (by, constraint));
    for &(field, read) in FIELDS {
        let Some(value) = body.take(field) else {
            continue;
        };
        let Some(spec) = read(value, field)? else {
            continue;
        };
        if let Some((other, _)) = &found {
            let message =
                format!("`{other}` and `{field}` both say what the output must be: send one");
            return Err(ApiError::invalid(field, message));
        }
        found = Some((field, Constraint { spec, field }));
    }
    Ok(found.map(|(_, constraint)| constraint))
}

fn regex(value: Value, field: &str) -> Result<Option<GrammarSpec>, ApiError> {
    text(value, field).map(|regex| Some(GrammarSpec::Regex(regex)))
}

fn grammar(value: Value, field: &str) -> Result<Option<GrammarSpec>, ApiError> {
    let grammar = text(value, field)?;
    // llama-server's clients send an empty one where they mean none.
    Ok((!grammar.is_empty()).then_some(GrammarSpec::Grammar(grammar)))
}

fn choice(value: Value, field: &str) -> Result<Option<GrammarSpec>, ApiError> {
    let wrong = || ApiError::wrong_type(field, format!("`{field}` must be a list of strings"));
    let Value::Array(texts) = value else {
        return Err(wrong());
    };
    let text = |text: Value| match text {
        Value::String(text) => Ok(text),
        _ => Err(wrong()),
    };
    let texts = texts.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() || texts.len() > CHOICES {
        let message = format!("`{field}` must have 1 to {CHOICES} texts");
        return Err(ApiError::invalid(field, message));
    }
    Ok(Some(GrammarSpec::Choice(texts)))
}

/// A schema, or its JSON text.
fn schema(value: Value, field: &str) -> Result<Option<GrammarSpec>, ApiError> {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).map_err(|error| {
            ApiError::invalid(field, format!("`{field}` is not valid JSON: {error}"))
        })?,
        value => value,
    };
    checked(value, field).map(|schema| Some(GrammarSpec::JsonSchema(schema)))
}

/// vLLM's object, with one of the constraints by its name.
fn structured_outputs(value: Value, field: &str) -> Result<Option<GrammarSpec>, ApiError> {
    let Value::Object(fields) = value else {
        let message = format!("`{field}` must be an object");
        return Err(ApiError::wrong_type(field, message));
    };
    let mut found = None;
    for (name, value) in fields {
        if value.is_null() || value == json!(false) {
            continue;
        }
        let path = format!("{field}.{name}");
        let grammar = match name.as_str() {
            "json" => schema(value, &path)?,
            "regex" => regex(value, &path)?,
            "choice" => choice(value, &path)?,
            "grammar" => grammar(value, &path)?,
            "json_object" => Some(GrammarSpec::JsonObject),
            _ => {
                let message = format!(
                    "`{path}` is not supported: json, json_object, regex, choice and grammar are"
                );
                return Err(ApiError::unsupported(&path, message));
            }
        };
        if found.is_some() && grammar.is_some() {
            let message = format!("`{field}` must have one constraint");
            return Err(ApiError::invalid(field, message));
        }
        found = found.or(grammar);
    }
    Ok(found)
}

fn text(value: Value, field: &str) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(ApiError::wrong_type(
            field,
            format!("`{field}` must be a string"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: Value) -> Result<Option<GrammarSpec>, ApiError> {
        let mut body = Body::parse(fields.to_string().as_bytes()).unwrap();
        let read = beside(&mut body, None, "response_format")?;
        Ok(read.map(|constraint| {
            assert!(fields.get(constraint.field).is_some(), "{fields}");
            constraint.spec
        }))
    }

    #[test]
    fn every_name_of_a_constraint_is_read() {
        let regex = GrammarSpec::Regex("a+".to_owned());
        let choice = GrammarSpec::Choice(vec!["a".to_owned(), "b".to_owned()]);
        let grammar = GrammarSpec::Grammar("start: \"a\"".to_owned());
        let schema = GrammarSpec::JsonSchema(json!({"type": "integer"}));
        for (fields, expected) in [
            (json!({}), None),
            (
                json!({"grammar": "", "structured_outputs": {"json_object": false}}),
                None,
            ),
            (json!({"regex": "a+"}), Some(&regex)),
            (json!({"guided_regex": "a+"}), Some(&regex)),
            (json!({"choice": ["a", "b"]}), Some(&choice)),
            (json!({"guided_choice": ["a", "b"]}), Some(&choice)),
            (json!({"grammar": "start: \"a\""}), Some(&grammar)),
            (json!({"guided_grammar": "start: \"a\""}), Some(&grammar)),
            (json!({"json_schema": {"type": "integer"}}), Some(&schema)),
            (
                json!({"guided_json": "{\"type\": \"integer\"}"}),
                Some(&schema),
            ),
            (
                json!({"structured_outputs": {"regex": "a+", "json": null}}),
                Some(&regex),
            ),
            (
                json!({"structured_outputs": {"json_object": true}}),
                Some(&GrammarSpec::JsonObject),
            ),
        ] {
            assert_eq!(read(fields.clone()).unwrap().as_ref(), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (fields, param) in [
            (json!({"regex": 3}), "regex"),
            (json!({"choice": "a"}), "choice"),
            (json!({"choice": []}), "choice"),
            (json!({"choice": [1]}), "choice"),
            (json!({"guided_json": "{"}), "guided_json"),
            (json!({"json_schema": 1}), "json_schema"),
            (json!({"structured_outputs": 1}), "structured_outputs"),
            (
                json!({"structured_outputs": {"structural_tag": "x"}}),
                "structured_outputs.structural_tag",
            ),
            (
                json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}),
                "structured_outputs",
            ),
            (json!({"regex": "a", "choice": ["a"]}), "choice"),
        ] {
            assert_eq!(
                read(fields.clone()).unwrap_err().param(),
                Some(param),
                "{fields}"
            );
        }
        let mut body = Body::parse(br#"{"regex": "a"}"#).unwrap();
        let found = Constraint {
            spec: GrammarSpec::JsonObject,
            field: "response_format",
        };
        let error = beside(&mut body, Some(found), "response_format");
        assert!(error.unwrap_err().message().contains("response_format"));
    }
}
