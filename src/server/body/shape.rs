//! What objects within a request may hold, so that what nothing reads can be named.

use serde_json::{Map, Value};

/// What is known of a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// All of it is read, or handed on as it is.
    Any,
    /// Of an object these fields are read; what is no object is for others to check.
    Fields(&'static [(&'static str, Shape)]),
    /// The same, and all others are handed on.
    Open(&'static [(&'static str, Shape)]),
    /// Of each value of a list.
    Each(&'static Shape),
}

/// Most names that are looked for: more would not fit into the header that tells them.
const MOST: usize = 64;

impl Shape {
    /// Adds the paths of fields within `value`, which stands at `path`, that nothing reads. `null`
    /// asks for nothing, and is not told.
    pub fn unknown(self, path: &str, value: &Value, found: &mut Vec<String>) {
        match (self, value) {
            (Self::Fields(known), Value::Object(fields)) => {
                let is_known = |name: &String| known.iter().any(|(known, _)| known == name);
                let unknown = fields
                    .iter()
                    .filter(|(name, value)| !value.is_null() && !is_known(name));
                let room = MOST.saturating_sub(found.len());
                found.extend(unknown.map(|(name, _)| format!("{path}.{name}")).take(room));
                within(known, path, fields, found);
            }
            (Self::Open(known), Value::Object(fields)) => within(known, path, fields, found),
            (Self::Each(shape), Value::Array(list)) => {
                for (index, value) in list.iter().enumerate() {
                    shape.unknown(&format!("{path}[{index}]"), value, found);
                }
            }
            _ => {}
        }
    }
}

fn within(
    known: &[(&str, Shape)],
    path: &str,
    fields: &Map<String, Value>,
    found: &mut Vec<String>,
) {
    for (name, shape) in known {
        if let Some(value) = fields.get(*name) {
            shape.unknown(&format!("{path}.{name}"), value, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SHAPE: Shape = Shape::Fields(&[
        ("all", Shape::Any),
        ("list", Shape::Each(&Shape::Fields(&[("a", Shape::Any)]))),
        ("open", Shape::Open(&[("a", Shape::Fields(&[]))])),
    ]);

    fn unknown(value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        SHAPE.unknown("x", value, &mut found);
        found
    }

    #[test]
    fn what_nothing_reads_is_named_by_its_path() {
        let value = json!({"all": {"b": 1}, "list": [{"a": 1}, 3, {"b": 1, "c": null}],
                           "open": {"a": {"b": 1}, "c": 1}, "d": 1});
        assert_eq!(unknown(&value), ["x.d", "x.list[2].b", "x.open.a.b"]);
        assert!(unknown(&json!("no object")).is_empty());
    }

    #[test]
    fn the_names_are_bounded() {
        let list: Vec<Value> = (0..1000).map(|_| json!({"b": 1})).collect();
        assert_eq!(unknown(&json!({"list": list})).len(), MOST);
    }
}
