//! `metadata`: a client's own notes, within OpenAI's limits.

use serde_json::{Map, Value};

use crate::server::error::ApiError;

const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 512;

/// Up to 16 pairs, with keys of up to 64 characters and values that are strings of up to 512.
pub fn checked(metadata: Option<Map<String, Value>>) -> Result<Map<String, Value>, ApiError> {
    let metadata = metadata.unwrap_or_default();
    if metadata.len() > MAX_PAIRS {
        let message = format!("`metadata` holds more than {MAX_PAIRS} pairs");
        return Err(ApiError::invalid("metadata", message));
    }
    for (key, value) in &metadata {
        if key.chars().count() > MAX_KEY {
            let message = format!("a key of `metadata` has more than {MAX_KEY} characters");
            return Err(ApiError::invalid("metadata", message));
        }
        let path = format!("metadata.{key}");
        match value.as_str() {
            None => {
                let message = format!("`{path}` must be a string");
                return Err(ApiError::wrong_type(&path, message));
            }
            Some(text) if text.chars().count() > MAX_VALUE => {
                let message = format!("`{path}` has more than {MAX_VALUE} characters");
                return Err(ApiError::invalid(&path, message));
            }
            Some(_) => {}
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn notes_are_small_and_strings() {
        let check = |value: Value| {
            let Value::Object(map) = value else {
                panic!("{value}");
            };
            checked(Some(map)).map_err(|error| error.param().unwrap_or_default().to_owned())
        };
        assert!(check(json!({"a": "b"})).is_ok());
        assert_eq!(check(json!({"a": 1})), Err("metadata.a".to_owned()));
        assert_eq!(
            check(json!({"a": "x".repeat(513)})),
            Err("metadata.a".to_owned())
        );
        assert_eq!(
            check(json!({("a".repeat(65)): "x"})),
            Err("metadata".to_owned())
        );
        let many = (0..17).map(|i| (i.to_string(), json!("x")));
        assert_eq!(
            check(Value::Object(many.collect())),
            Err("metadata".to_owned())
        );
    }
}
