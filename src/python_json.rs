//! JSON as Python writes it: what JSON has no numbers for are bare words, `Infinity` and `NaN`. Here they
//! become strings.

use serde::de::DeserializeOwned;

/// Like `serde_json::from_slice`.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    // Few files have such words.
    serde_json::from_slice(text).or_else(|_| serde_json::from_slice(&quote_words(text)))
}

/// The text with the bare words as strings.
fn quote_words(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some((&byte, after)) = rest.split_first() {
        let word = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| !in_string && rest.starts_with(word.as_bytes()));
        if let Some(word) = word {
            quoted.extend(format!("\"{word}\"").into_bytes());
            rest = &rest[word.len()..];
            continue;
        }
        quoted.push(byte);
        rest = after;
        match byte {
            b'"' => in_string = !in_string,
            // Whatever it escapes ends nothing.
            b'\\' if in_string => {
                if let Some((&escaped, after)) = rest.split_first() {
                    quoted.push(escaped);
                    rest = after;
                }
            }
            _ => {}
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn words_for_numbers_become_strings() {
        let text = br#"{"a": [0.0, Infinity], "b": "Infinity \" NaN", "c": -Infinity, "d": NaN}"#;
        assert_eq!(
            from_slice::<Value>(text).unwrap(),
            json!({"a": [0.0, "Infinity"], "b": "Infinity \" NaN", "c": "-Infinity", "d": "NaN"})
        );
        assert!(from_slice::<Value>(b"[Inf]").is_err());
        assert!(from_slice::<Value>(br#"["\"#).is_err());
    }
}
