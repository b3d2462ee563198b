//! A function's arguments one by one, for formats that do not write them as one JSON object.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::GrammarError;

/// Where schemas that others refer to stand.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Keywords that bind arguments to each other.
const JOINING: [&str; 8] = [
    "allOf",
    "anyOf",
    "oneOf",
    "const",
    "enum",
    "patternProperties",
    "minProperties",
    "maxProperties",
];

/// One argument.
pub(super) struct Argument<'a> {
    pub name: &'a str,
    /// What it has to be. References in it are to the whole schema's definitions.
    pub schema: Cow<'a, Value>,
    pub required: bool,
}

/// The arguments by their schema, in its order.
///
/// # Errors
/// [`GrammarError::Unsupported`] for what concerns more than one of them.
pub(super) fn of(schema: &Value) -> Result<Vec<Argument<'_>>, GrammarError> {
    let object = Definitions::of(schema).target(schema)?;
    let keywords = object.as_object();
    if let Some(keyword) = JOINING
        .iter()
        .find(|keyword| keywords.is_some_and(|keywords| keywords.contains_key(**keyword)))
    {
        return Err(unsupported(
            keyword,
            "this model's calls write arguments one by one",
        ));
    }
    let required = object.get("required").and_then(Value::as_array);
    let required: Vec<&str> = required
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = object.get("properties").and_then(Value::as_object);
    let mut seen = HashSet::new();
    let mut arguments: Vec<Argument<'_>> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| Argument {
            name,
            schema: Cow::Borrowed(schema),
            required: required.contains(&name.as_str()),
        })
        .collect();
    seen.extend(arguments.iter().map(|argument| argument.name));
    let rest = match object.get("additionalProperties") {
        Some(schema) => Cow::Borrowed(schema),
        None => Cow::Owned(json!({})),
    };
    for name in required {
        if !seen.insert(name) {
            continue;
        }
        if *rest == Value::Bool(false) {
            let message = format!("`{name}` is required, and allowed by no schema");
            return Err(GrammarError::Invalid(message));
        }
        arguments.push(Argument {
            name,
            schema: rest.clone(),
            required: true,
        });
    }
    Ok(arguments)
}

/// What a schema's references lead to.
#[derive(Clone, Copy)]
pub(super) struct Definitions<'a> {
    root: &'a Value,
}

impl<'a> Definitions<'a> {
    pub fn of(root: &'a Value) -> Self {
        Self { root }
    }

    /// The schema itself, or what it refers to.
    pub fn target(self, schema: &'a Value) -> Result<&'a Value, GrammarError> {
        let mut schema = schema;
        // A chain of references that is longer goes in a circle.
        for _ in 0..32 {
            let Some(reference) = schema.get("$ref") else {
                return Ok(schema);
            };
            schema = self.follow(reference)?;
        }
        Err(GrammarError::Invalid("a $ref refers to itself".to_owned()))
    }

    fn follow(self, reference: &Value) -> Result<&'a Value, GrammarError> {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
        let inside = pointer.filter(|pointer| {
            let mut segments = pointer.split('/');
            segments.next();
            segments
                .next()
                .is_some_and(|first| DEFINITIONS.contains(&first))
        });
        let Some(pointer) = inside else {
            return Err(unsupported(
                "$ref",
                "in this model's calls only references to #/$defs/… are followed",
            ));
        };
        let missing = || GrammarError::Invalid(format!("{reference} refers to nothing"));
        self.root.pointer(pointer).ok_or_else(missing)
    }

    /// A part of the whole schema as a schema of its own.
    pub fn complete(self, part: &Value) -> Result<Value, GrammarError> {
        if part == true {
            return Ok(json!({}));
        }
        let refers = self.refers(part)?;
        let mut part = part.clone();
        if let (true, Some(keywords)) = (refers, part.as_object_mut()) {
            for name in DEFINITIONS {
                if let Some(definitions) = self.root.get(name) {
                    keywords.insert(name.to_owned(), definitions.clone());
                }
            }
        }
        Ok(part)
    }

    /// Checks the references of a part; whether there are any.
    fn refers(self, part: &Value) -> Result<bool, GrammarError> {
        let mut found = false;
        let values: Vec<&Value> = match part {
            Value::Object(keywords) => {
                if let Some(reference @ Value::String(_)) = keywords.get("$ref") {
                    self.follow(reference)?;
                    found = true;
                }
                keywords.values().collect()
            }
            Value::Array(list) => list.iter().collect(),
            _ => Vec::new(),
        };
        for value in values {
            found |= self.refers(value)?;
        }
        Ok(found)
    }
}

/// The schema with a keyword set to something else.
pub(super) fn with(keywords: &Map<String, Value>, keyword: &str, value: Value) -> Value {
    let mut keywords = keywords.clone();
    keywords.insert(keyword.to_owned(), value);
    Value::Object(keywords)
}

pub(super) fn unsupported(keyword: &str, reason: &str) -> GrammarError {
    GrammarError::Unsupported {
        keyword: keyword.to_owned(),
        reason: reason.to_owned(),
    }
}
