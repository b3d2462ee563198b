//! Looks through a JSON schema before llguidance does: what it would pass over in silence is an
//! error here, and what it refuses without need is written differently.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::GrammarError;

/// How long a schema may be as JSON, and how deep its subschemas may be nested. OpenAI's limits
/// are 120,000 characters and 10 levels.
const MAX_BYTES: usize = 256 << 10;
const MAX_DEPTH: usize = 64;

/// Properties of one object: llguidance takes time by their square.
const MAX_PROPERTIES: usize = 2_000;

/// What a `multipleOf` takes in states, and llguidance's 32 bits.
const MAX_MULTIPLE: f64 = 10_000.0;
const MAX_DECIMALS: u32 = 4;

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

/// Formats of zod's, which it writes beside a pattern (or several in `allOf`) that says all of it.
const PATTERN_FORMATS: [&str; 15] = [
    "base64",
    "base64url",
    "cidrv4",
    "cuid",
    "cuid2",
    "e164",
    "ends_with",
    "includes",
    "ksuid",
    "lowercase",
    "nanoid",
    "starts_with",
    "ulid",
    "uppercase",
    "xid",
];

/// Keywords whose value is one schema, a list of schemas, or schemas by name.
const ONE: [&str; 3] = ["additionalProperties", "additionalItems", "items"];
const LIST: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;

/// Bounds of numbers, which llguidance takes for floats.
const BOUNDS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];

/// The schema to compile, which accepts what `schema` does.
///
/// # Errors
/// [`GrammarError`], see [`super::GrammarCompiler::compile`].
pub(super) fn prepare(schema: &Value) -> Result<Value, GrammarError> {
    if schema.as_bool() == Some(true) {
        return Ok(json!({}));
    }
    let bytes = schema.to_string().len();
    if bytes > MAX_BYTES {
        return Err(GrammarError::TooComplex(format!(
            "it is {bytes} bytes long, the limit is {MAX_BYTES}"
        )));
    }
    let mut walk = Walk {
        root: schema,
        multiples: BTreeSet::new(),
    };
    let prepared = walk.schema(schema, 0)?;
    walk.check_multiples()?;
    if !prepared.is_object() {
        return Err(GrammarError::Invalid(
            "no value satisfies the schema false".to_owned(),
        ));
    }
    Ok(prepared)
}

/// Shows a schema and all within it to `change`.
pub(super) fn each_subschema(schema: &mut Value, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    change(keywords);
    for (keyword, value) in keywords {
        let keyword = keyword.as_str();
        match value {
            Value::Array(list) if LIST.contains(&keyword) => {
                list.iter_mut().for_each(|one| each_subschema(one, change));
            }
            Value::Object(named) if NAMED.contains(&keyword) => {
                named
                    .values_mut()
                    .for_each(|one| each_subschema(one, change));
            }
            one if ONE.contains(&keyword) => each_subschema(one, change),
            _ => {}
        }
    }
}

struct Walk<'a> {
    root: &'a Value,
    /// Each `multipleOf` as a whole number and how many decimals it was shifted by.
    multiples: BTreeSet<(u32, u32)>,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value, depth: usize) -> Result<Value, GrammarError> {
        if depth > MAX_DEPTH {
            return Err(GrammarError::TooComplex(format!(
                "it is nested deeper than {MAX_DEPTH}"
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
            if ANNOTATIONS.contains(&keyword.as_str()) || told_by_pattern(keyword, keywords) {
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
                "propertyNames" => holds_every_name(value),
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
        if keyword == "multipleOf" {
            self.multiples.insert(decimal(value)?);
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
            Value::Object(named) if keyword == "properties" && named.len() > MAX_PROPERTIES => {
                return Err(GrammarError::TooComplex(format!(
                    "an object has {} properties, the limit is {MAX_PROPERTIES}",
                    named.len()
                )));
            }
            Value::Object(named) if NAMED.contains(&keyword) => {
                let named = named
                    .iter()
                    .map(|(name, schema)| Ok((name.clone(), self.schema(schema, depth + 1)?)));
                Value::Object(named.collect::<Result<_, GrammarError>>()?)
            }
            schema if ONE.contains(&keyword) => self.schema(schema, depth + 1)?,
            bound if BOUNDS.contains(&keyword) => within_float(keyword, bound)?,
            other => other.clone(),
        };
        Ok(Some(value))
    }

    /// Where several meet, llguidance multiplies them in 32 bits.
    fn check_multiples(&self) -> Result<(), GrammarError> {
        let shift = self
            .multiples
            .iter()
            .map(|(_, decimals)| *decimals)
            .max()
            .unwrap_or(0);
        let product = self
            .multiples
            .iter()
            .try_fold(1_u32, |product, (whole, decimals)| {
                product.checked_mul(whole.checked_mul(10_u32.checked_pow(shift - decimals)?)?)
            });
        match product {
            Some(_) => Ok(()),
            None => Err(multiple("too many different values in one schema")),
        }
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

/// Whether this is a `format` that a pattern beside it enforces.
fn told_by_pattern(keyword: &str, beside: &Map<String, Value>) -> bool {
    let has_pattern = |schema: &Map<String, Value>| schema.contains_key("pattern");
    let patterns_of_all = || {
        let all = beside.get("allOf").and_then(Value::as_array);
        all.is_some_and(|all| {
            !all.is_empty()
                && all
                    .iter()
                    .all(|one| one.as_object().is_some_and(has_pattern))
        })
    };
    keyword == "format"
        && beside
            .get("format")
            .and_then(Value::as_str)
            .is_some_and(|format| PATTERN_FORMATS.contains(&format))
        && (has_pattern(beside) || patterns_of_all())
}

/// Whether a schema says no more of a name than that it is a string, as zod does of every record.
fn holds_every_name(schema: &Value) -> bool {
    match schema {
        Value::Object(keywords) => keywords
            .iter()
            .all(|(keyword, value)| keyword == "type" && value == "string"),
        other => other.as_bool() == Some(true),
    }
}

/// A bound that is no float (a whole number above 2^53), as the next one within it.
fn within_float(keyword: &str, bound: &Value) -> Result<Value, GrammarError> {
    let least = keyword.to_lowercase().ends_with("minimum");
    let far = if least { 1.0 } else { -1.0 };
    let float = bound.as_f64().unwrap_or_default();
    if float * far >= TWO_POW_63 {
        return Err(GrammarError::Unsupported {
            keyword: keyword.to_owned(),
            reason: "whole numbers are bounded within 64 bits".to_owned(),
        });
    }
    let whole = bound.as_i64().map(i128::from);
    let Some(whole) = whole.or_else(|| bound.as_u64().map(i128::from)) else {
        return Ok(bound.clone());
    };
    // Whole, and in range: it was one of 64 bits.
    let rounded = float as i128;
    Ok(match least {
        true if rounded < whole => json!(float.next_up()),
        false if rounded > whole => json!(float.next_down()),
        _ => bound.clone(),
    })
}

/// A `multipleOf` taken apart as llguidance does, if that is exact: it shifts a float by tens until
/// it is whole, which 0.29 for one never is.
fn decimal(value: &Value) -> Result<(u32, u32), GrammarError> {
    let number = value
        .as_f64()
        .filter(|number| *number > 0.0)
        .ok_or_else(|| {
            GrammarError::Invalid(format!("multipleOf must be a number above 0, not {value}"))
        })?;
    let (mut whole, mut decimals) = (number, 0);
    while whole.fract() != 0.0 && decimals < MAX_DECIMALS {
        whole *= 10.0;
        decimals += 1;
    }
    if whole.fract() != 0.0 || whole > MAX_MULTIPLE {
        return Err(multiple("the value has too many digits"));
    }
    // In range: at most MAX_MULTIPLE.
    Ok((whole as u32, decimals))
}

fn multiple(reason: &str) -> GrammarError {
    GrammarError::Unsupported {
        keyword: "multipleOf".to_owned(),
        reason: reason.to_owned(),
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
