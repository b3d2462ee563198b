//! `response_format`: what shape the output must have.

use serde_json::Value;

use super::constraint::Constraint;
use crate::engine::grammar::GrammarSpec;
use crate::server::error::ApiError;

/// Where a schema is in the field. A schema that cannot be enforced is an error of the whole field, as it is with
/// OpenAI's chat; the other APIs name its place.
pub const SCHEMA: &str = "response_format.json_schema.schema";

/// Reads the field: `text`, `json_object`, or `json_schema` in OpenAI's form; llama-server's
/// `{"type": "json_object", "schema": …}` too.
pub fn parse(value: Option<Value>) -> Result<Option<Constraint>, ApiError> {
    let Some(mut value) = value else {
        return Ok(None);
    };
    const FIELD: &str = "response_format";
    if !value.is_object() {
        return Err(ApiError::wrong_type(
            FIELD,
            "`response_format` must be an object",
        ));
    }
    let kind = value.get("type").and_then(Value::as_str).map(str::to_owned);
    match kind.as_deref() {
        Some("text") => Ok(None),
        Some("json_object") => match value.get_mut("schema").map(Value::take) {
            None | Some(Value::Null) => Ok(Some(Constraint {
                spec: GrammarSpec::JsonObject,
                field: FIELD,
            })),
            Some(schema) => held(schema, "response_format.schema", FIELD).map(Some),
        },
        Some("json_schema") => {
            for (name, right, kind) in [
                ("name", Value::is_string as fn(&Value) -> bool, "a string"),
                ("description", Value::is_string, "a string"),
                ("strict", Value::is_boolean, "a boolean"),
            ] {
                let given = value.pointer(&format!("/json_schema/{name}"));
                if given.is_some_and(|given| !given.is_null() && !right(given)) {
                    let path = format!("response_format.json_schema.{name}");
                    let message = format!("`{path}` must be {kind}");
                    return Err(ApiError::wrong_type(&path, message));
                }
            }
            let schema = value.pointer_mut("/json_schema/schema").map(Value::take);
            let missing = || ApiError::missing(SCHEMA, format!("`{SCHEMA}` is required"));
            let schema = schema
                .filter(|schema| !schema.is_null())
                .ok_or_else(missing)?;
            held(schema, SCHEMA, FIELD).map(Some)
        }
        Some(other) => {
            let message = format!(
                "`{other}` is not a response format; text, json_object and json_schema are"
            );
            Err(ApiError::invalid("response_format.type", message))
        }
        None => {
            let message = "`response_format.type` is required: text, json_object or json_schema";
            Err(ApiError::missing("response_format.type", message))
        }
    }
}

fn held(schema: Value, path: &str, field: &'static str) -> Result<Constraint, ApiError> {
    let spec = GrammarSpec::JsonSchema(checked(schema, path)?);
    Ok(Constraint { spec, field })
}

/// A schema, by its type.
pub(super) fn checked(schema: Value, path: &str) -> Result<Value, ApiError> {
    if schema.is_object() || schema.is_boolean() {
        Ok(schema)
    } else {
        Err(ApiError::wrong_type(
            path,
            format!("`{path}` must be a JSON schema (an object)"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_three_forms() {
        assert!(parse(None).unwrap().is_none());
        assert!(parse(Some(json!({"type": "text"}))).unwrap().is_none());
        let object = parse(Some(json!({"type": "json_object"}))).unwrap();
        assert_eq!(object.unwrap().spec, GrammarSpec::JsonObject);
        let schema = json!({"type": "integer"});
        for format in [
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}),
            json!({"type": "json_object", "schema": schema}),
        ] {
            let parsed = parse(Some(format)).unwrap().unwrap();
            assert_eq!(parsed.spec, GrammarSpec::JsonSchema(schema.clone()));
            assert_eq!(parsed.field, "response_format");
        }
    }

    #[test]
    fn what_is_not_a_format_is_named() {
        for (format, param) in [
            (json!("json"), "response_format"),
            (json!({}), "response_format.type"),
            (json!({"type": "yaml"}), "response_format.type"),
            (
                json!({"type": "json_schema"}),
                "response_format.json_schema.schema",
            ),
            (
                json!({"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}}),
                "response_format.json_schema.strict",
            ),
            (
                json!({"type": "json_schema", "json_schema": {"schema": {}, "name": 1}}),
                "response_format.json_schema.name",
            ),
            (
                json!({"type": "json_schema", "json_schema": {"schema": 3}}),
                "response_format.json_schema.schema",
            ),
        ] {
            assert_eq!(parse(Some(format)).err().unwrap().param(), Some(param));
        }
    }
}
