//! Looks through a JSON schema before llguidance does: what it would pass over in silence is an
//! error here, and what it refuses without need is written differently.

use serde_json::{Map, Value, json};

use super::GrammarError;

/// Subschemas a schema may have, and how deep they may be nested.
const MAX_SCHEMAS: usize = 20_000;
const MAX_DEPTH: usize = 64;

/// Keywords of any draft that restrict a value in a way that is not enforced.
const UNSUPPORTED: [&str; 21] = [
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "disallow",
    "divisibleBy",
    "else",
    "extends",
    "if",
    "maxContains",
    "minContains",
    "not",
    "nullable",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    // llguidance's own, which would replace our options
    "x-guidance",
];

/// Annotations that llguidance refuses as unknown to it.
const ANNOTATIONS: [&str; 4] = [
    "deprecated",
    "contentSchema",
    "$vocabulary",
    "$dynamicAnchor",
];

/// Keywords whose value is one schema, a list of schemas, or schemas by name.
const ONE: [&str; 3] = ["additionalProperties", "additionalItems", "items"];
const LIST: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// The schema to compile, which accepts what `schema` does.
///
/// # Errors
/// [`GrammarError`], see [`super::GrammarCompiler::compile`].
pub(super) fn prepare(schema: &Value) -> Result<Value, GrammarError> {
    if schema.as_bool() == Some(true) {
        return Ok(json!({}));
    }
    let mut walk = Walk {
        root: schema,
        schemas: 0,
    };
    let prepared = walk.schema(schema, 0)?;
    if !prepared.is_object() {
        return Err(GrammarError::Invalid(
            "no value satisfies the schema false".to_owned(),
        ));
    }
    Ok(prepared)
}

struct Walk<'a> {
    root: &'a Value,
    schemas: usize,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value, depth: usize) -> Result<Value, GrammarError> {
        self.schemas += 1;
        if self.schemas > MAX_SCHEMAS || depth > MAX_DEPTH {
            return Err(GrammarError::TooComplex(format!(
                "more than {MAX_SCHEMAS} subschemas, or nested deeper than {MAX_DEPTH}"
            )));
        }
        let Some(keywords) = schema.as_object() else {
            return match schema {
                Value::Bool(_) => Ok(schema.clone()),
                other => Err(GrammarError::Invalid(format!(
                    "a schema must be an object or a boolean, not {}",
                    kind(other)
                ))),
            };
        };
        let mut prepared = Map::new();
        for (keyword, value) in keywords {
            if ANNOTATIONS.contains(&keyword.as_str()) {
                continue;
            }
            if let Some(value) = self.keyword(keyword, value, depth)? {
                prepared.insert(keyword.clone(), value);
            }
        }
        Ok(Value::Object(prepared))
    }

    /// A keyword's value to compile; `None` for one that restricts nothing.
    fn keyword(
        &mut self,
        keyword: &str,
        value: &Value,
        depth: usize,
    ) -> Result<Option<Value>, GrammarError> {
        if UNSUPPORTED.contains(&keyword) {
            let harmless = match keyword {
                "uniqueItems" | "nullable" => value.as_bool() == Some(false),
                "unevaluatedItems" | "unevaluatedProperties" => value.as_bool() == Some(true),
                _ => false,
            };
            return if harmless {
                Ok(None)
            } else {
                Err(unsupported(keyword))
            };
        }
        if keyword == "$ref" && !value.as_str().is_some_and(|target| target.starts_with('#')) {
            return Err(GrammarError::Unsupported {
                keyword: "$ref".to_owned(),
                reason: "only references within the schema (#/…) are followed".to_owned(),
            });
        }
        let value = match value {
            Value::Array(list) if LIST.contains(&keyword) => {
                let list = list.iter().map(|schema| {
                    let prepared = self.schema(schema, depth + 1)?;
                    Ok(if keyword == "oneOf" {
                        self.resolved(prepared)
                    } else {
                        prepared
                    })
                });
                Value::Array(list.collect::<Result<_, GrammarError>>()?)
            }
            Value::Object(named) if NAMED.contains(&keyword) => {
                let named = named
                    .iter()
                    .map(|(name, schema)| Ok((name.clone(), self.schema(schema, depth + 1)?)));
                Value::Object(named.collect::<Result<_, GrammarError>>()?)
            }
            schema if ONE.contains(&keyword) => self.schema(schema, depth + 1)?,
            other => other.clone(),
        };
        Ok(Some(value))
    }

    /// llguidance enforces `oneOf` only where it can see that the options exclude each other, and
    /// does not look behind a bare reference. A type beside it makes it do so.
    fn resolved(&self, schema: Value) -> Value {
        let target = schema["$ref"].as_str().and_then(|target| {
            let target = self.root.pointer(target.strip_prefix('#')?)?;
            target["type"].as_str()
        });
        match (target, &schema) {
            (Some(kind), Value::Object(keywords)) if keywords.len() == 1 => {
                json!({"type": kind, "$ref": schema["$ref"]})
            }
            _ => schema,
        }
    }
}

fn unsupported(keyword: &str) -> GrammarError {
    GrammarError::Unsupported {
        keyword: keyword.to_owned(),
        reason: "leave it out, or check it after the response".to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
