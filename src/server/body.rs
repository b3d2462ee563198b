//! From a request's bytes to typed fields.
//!
//! A JSON body is read by groups of fields ([`Body::read`]), each a plain serde struct. What no group
//! knew is left over ([`Body::ignored`]) and gets named to the client, so that nothing is ignored in
//! silence.

mod raw;
mod shape;
mod unique;

use std::collections::HashSet;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::raw::RawBody;
pub use self::shape::Shape;
use super::error::ApiError;
use crate::fields::names;

/// The response header that names the fields of a request that nothing knew.
pub static IGNORED: HeaderName = HeaderName::from_static("x-mlxcel-ignored");

/// Longest value of [`IGNORED`], in bytes.
const IGNORED_LIMIT: usize = 1024;

/// A parsed JSON object, and which of its fields have been understood.
pub struct Body {
    object: Value,
    known: HashSet<&'static str>,
    /// Unknown fields of objects within it.
    inside: Vec<String>,
}

impl Body {
    /// Parses a body. The error of malformed JSON, or of a name that an object has twice, says where.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let object = unique::parse(bytes)
            .map_err(|error| ApiError::malformed(format!("the body is not valid JSON: {error}")))?;
        if !object.is_object() {
            return Err(ApiError::wrong_type("", "the body must be a JSON object"));
        }
        Ok(Self {
            object,
            known: HashSet::new(),
            inside: Vec::new(),
        })
    }

    /// Reads one group of fields; the error names the path of the field that does not fit.
    pub fn read<'a, T: Deserialize<'a>>(&'a mut self) -> Result<T, ApiError> {
        self.known.extend(names::<T>());
        serde_path_to_error::deserialize(&self.object).map_err(|error| {
            let path = error.path().to_string();
            let message = error.into_inner().to_string();
            match message
                .strip_prefix("missing field `")
                .and_then(|rest| rest.split('`').next())
            {
                Some(field) if path == "." => {
                    ApiError::missing(field, format!("`{field}` is required"))
                }
                Some(field) => {
                    let path = format!("{path}.{field}");
                    ApiError::missing(&path, format!("`{path}` is required"))
                }
                // The type is right, the word is none of the known ones.
                None if message.starts_with("unknown variant") => {
                    ApiError::invalid(&path, format!("`{path}`: {}", plain(&message)))
                }
                None => ApiError::wrong_type(&path, format!("`{path}`: {}", plain(&message))),
            }
        })
    }

    /// Looks for unknown fields in the object `name`, which is read as a `T`.
    pub fn look_into<'a, T: Deserialize<'a>>(&mut self, name: &'static str) {
        let known = names::<T>();
        let fields = self.object.get(name).and_then(Value::as_object);
        let unknown = fields.into_iter().flat_map(Map::keys);
        let unknown = unknown.filter(|field| !known.contains(&field.as_str()));
        let unknown: Vec<String> = unknown.map(|field| format!("{name}.{field}")).collect();
        self.inside.extend(unknown);
    }

    /// Looks for unknown fields in what `name` holds, which is read by hand.
    pub fn look_through(&mut self, name: &str, shape: Shape) {
        if let Some(value) = self.object.get(name) {
            shape.unknown(name, value, &mut self.inside);
        }
    }

    /// Marks a field as understood and returns its value; `null` counts as absent.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.insert(name);
        self.map_mut()?
            .get_mut(name)
            .map(Value::take)
            .filter(|value| !value.is_null())
    }

    /// A field's value, without marking it; `null` counts as absent.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Marks fields as understood.
    pub fn know(&mut self, names: impl IntoIterator<Item = &'static str>) {
        self.known.extend(names);
    }

    /// Names of the fields that nothing knew.
    pub fn ignored(&self) -> Ignored {
        let keys = self.object.as_object().into_iter().flat_map(Map::keys);
        Ignored(
            keys.filter(|key| !self.known.contains(key.as_str()))
                .chain(&self.inside)
                .cloned()
                .collect(),
        )
    }

    fn map_mut(&mut self) -> Option<&mut Map<String, Value>> {
        self.object.as_object_mut()
    }
}

/// Serde's words for types, in those of JSON.
fn plain(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else {
        return message.to_owned();
    };
    let expected = match expected {
        "i64" | "i32" | "u32" | "u64" | "usize" => "an integer",
        "f64" | "f32" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        shape if shape.starts_with("struct ") || shape.starts_with("internally tagged ") => {
            "an object"
        }
        other => other,
    };
    format!("{found}expected {expected}")
}

/// What of a request is not heeded: fields that nothing knew, and what of the tools' schemas cannot be
/// enforced.
#[derive(Debug, Default)]
pub struct Ignored(Vec<String>);

impl Ignored {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what is found out later.
    pub fn extend(&mut self, names: impl IntoIterator<Item = String>) {
        self.0.extend(names);
    }

    /// Names it in the log and in the response's `x-mlxcel-ignored`.
    pub fn report(&self, response: &mut Response) {
        if self.is_empty() {
            return;
        }
        let value = self.header();
        tracing::warn!(fields = value, "parts of a request are ignored");
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(IGNORED.clone(), value);
        }
    }

    /// The names with commas between; what a header cannot carry becomes `?`.
    fn header(&self) -> String {
        let mut list = String::new();
        for name in &self.0 {
            let clean = |c: char| {
                if c.is_ascii_graphic() && c != ',' {
                    c
                } else {
                    '?'
                }
            };
            let name: String = name.chars().take(64).map(clean).collect();
            if list.len() + name.len() + 4 > IGNORED_LIMIT {
                list.push_str(",...");
                break;
            }
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(&name);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Group {
        name: String,
        size: Option<u32>,
    }

    #[test]
    fn types_are_named_in_the_words_of_json() {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            Yes,
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Fields {
            count: Option<i64>,
            share: Option<f64>,
            list: Option<Vec<String>>,
            group: Option<Group>,
            word: Option<Word>,
        }
        for (body, code, expected) in [
            (r#"{"count": 1.5}"#, "invalid_type", "expected an integer"),
            (r#"{"share": "a"}"#, "invalid_type", "expected a number"),
            (r#"{"list": 3}"#, "invalid_type", "expected a list"),
            (r#"{"group": 3}"#, "invalid_type", "expected an object"),
            (r#"{"word": "no"}"#, "invalid_value", "expected `yes`"),
        ] {
            let read = Body::parse(body.as_bytes()).unwrap().read::<Fields>();
            let error = read.err().unwrap();
            assert_eq!(error.code(), Some(code), "{body}");
            assert!(error.message().ends_with(expected), "{}", error.message());
        }
    }

    #[test]
    fn what_is_unknown_within_an_object_is_named_too() {
        let mut body = Body::parse(br#"{"group": {"name": "a", "x": 1}, "other": 3}"#).unwrap();
        body.look_into::<Group>("group");
        body.look_into::<Group>("other");
        body.know(["group", "other"]);
        assert_eq!(body.ignored().header(), "group.x");
    }

    #[test]
    fn malformed_json_names_the_position() {
        let error = Body::parse(b"{\"a\": }").err().unwrap();
        assert_eq!(error.code(), Some("invalid_json"));
        assert!(
            error.message().contains("line 1 column 7"),
            "{}",
            error.message()
        );
    }

    #[test]
    fn deep_nesting_is_refused_not_a_stack_overflow() {
        let deep = "[".repeat(100_000);
        assert_eq!(
            Body::parse(deep.as_bytes()).err().unwrap().code(),
            Some("invalid_json")
        );
    }

    #[test]
    fn wrong_and_missing_fields_are_named() {
        let error = Body::parse(br#"{"name": 3}"#)
            .unwrap()
            .read::<Group>()
            .err()
            .unwrap();
        assert_eq!(
            (error.code(), error.param()),
            (Some("invalid_type"), Some("name"))
        );
        let error = Body::parse(br#"{"size": 3}"#)
            .unwrap()
            .read::<Group>()
            .err()
            .unwrap();
        let want = (Some("missing_required_parameter"), Some("name"));
        assert_eq!((error.code(), error.param()), want);
    }

    #[test]
    fn what_no_group_knows_is_left_over() {
        let mut body =
            Body::parse(br#"{"name": "a", "size": null, "x": 1, "\u00e4,": 2}"#).unwrap();
        body.read::<Group>().unwrap();
        assert_eq!(body.ignored().header(), "x,??");
        body.know(["x"]);
        assert_eq!(body.ignored().header(), "??");
    }

    #[test]
    fn the_list_of_ignored_fields_is_bounded() {
        let many = Ignored((0..1000).map(|i| format!("field{i}")).collect());
        assert!(many.header().len() <= IGNORED_LIMIT);
        assert!(many.header().ends_with(",..."));
    }
}
