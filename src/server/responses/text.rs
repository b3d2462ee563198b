//! `text`: what shape the answer must have.

use serde_json::{Map, Value, json};

use crate::server::error::ApiError;
use crate::server::openai::constraint::Constraint;
use crate::server::openai::response_format;

/// What chat's `response_format` is called here.
const NAMES: &[(&str, &str)] = &[
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
];

/// The grammar of the answer, and the field as the response repeats it.
pub fn read(text: Option<Value>) -> Result<(Option<Constraint>, Value), ApiError> {
    let mut text = match text {
        None => Map::new(),
        Some(Value::Object(text)) => text,
        Some(_) => return Err(ApiError::wrong_type("text", "`text` must be an object")),
    };
    match text.get("verbosity") {
        None | Some(Value::Null) => {}
        Some(verbosity) if verbosity == "medium" => {}
        Some(_) => {
            let message = "`text.verbosity` is not supported: say in the prompt how long the answer \
                           should be";
            return Err(ApiError::unsupported("text.verbosity", message));
        }
    }
    let plain = || json!({"type": "text"});
    let format = text
        .shift_remove("format")
        .filter(|format| !format.is_null());
    let format = format.unwrap_or_else(plain);
    let grammar = response_format::parse(Some(nested(&format)?));
    let mut grammar = grammar.map_err(|error| error.renamed(NAMES))?;
    if let Some(grammar) = &mut grammar {
        grammar.field = response_format::SCHEMA;
    }
    Ok((grammar, json!({"format": format, "verbosity": "medium"})))
}

/// In chat's form.
fn nested(format: &Value) -> Result<Value, ApiError> {
    let Some(fields) = format.as_object() else {
        let message = "`text.format` must be an object";
        return Err(ApiError::wrong_type("text.format", message));
    };
    if format["type"] != "json_schema" {
        return Ok(format.clone());
    }
    if !fields.get("name").is_some_and(Value::is_string) {
        let message = "`text.format.name` is required, and a string";
        return Err(ApiError::missing("text.format.name", message));
    }
    Ok(json!({"type": "json_schema", "json_schema": fields}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grammar::GrammarSpec;

    #[test]
    fn the_three_formats() {
        let (grammar, told) = read(None).unwrap();
        assert!(grammar.is_none());
        assert_eq!(
            told,
            json!({"format": {"type": "text"}, "verbosity": "medium"})
        );
        let (grammar, _) = read(Some(json!({"format": {"type": "json_object"}}))).unwrap();
        assert_eq!(grammar.unwrap().spec, GrammarSpec::JsonObject);
        let format = json!({"type": "json_schema", "name": "n", "strict": true,
                            "schema": {"type": "integer"}});
        let (grammar, told) = read(Some(json!({"format": format}))).unwrap();
        let schema = GrammarSpec::JsonSchema(json!({"type": "integer"}));
        assert_eq!(grammar.unwrap().spec, schema);
        assert_eq!(told["format"], format);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, param) in [
            (json!("x"), "text"),
            (json!({"format": "json"}), "text.format"),
            (json!({"format": {"type": "poem"}}), "text.format.type"),
            (
                json!({"format": {"type": "json_schema", "schema": {}}}),
                "text.format.name",
            ),
            (
                json!({"format": {"type": "json_schema", "name": "n"}}),
                "text.format.schema",
            ),
            (json!({"verbosity": "low"}), "text.verbosity"),
        ] {
            let error = read(Some(text)).unwrap_err();
            assert_eq!(error.param(), Some(param), "{}", error.message());
        }
    }
}
