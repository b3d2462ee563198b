//! Checkpoints that carry more than text: the language model's part of `config.json`.

use serde_json::{Value, json};

use super::config::ConfigFile;
use super::error::LoadError;

/// A type of checkpoint whose `text_config` describes its language model.
struct Nested {
    model_type: &'static str,
    /// Its language model's type, where `text_config` does not say.
    text: &'static str,
    /// What `text_config` may leave out and is not the language model's own default.
    defaults: &'static [(&'static str, i64)],
}

const GEMMA4: &[(&str, i64)] = &[
    ("vocab_size", 262_144),
    ("num_attention_heads", 8),
    ("num_key_value_heads", 1),
];

const NESTED: &[Nested] = &[
    Nested {
        model_type: "gemma3",
        text: "gemma3_text",
        defaults: &[
            ("vocab_size", 262_208),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
        ],
    },
    Nested {
        model_type: "gemma4",
        text: "gemma4_text",
        defaults: GEMMA4,
    },
    Nested {
        model_type: "gemma4_unified",
        text: "gemma4_text",
        defaults: GEMMA4,
    },
    Nested {
        model_type: "llava",
        text: "mistral",
        defaults: &[],
    },
    Nested {
        model_type: "mistral3",
        text: "mistral",
        defaults: &[],
    },
];

/// What belongs to the whole checkpoint, and is read with its language model.
const INHERITED: [&str; 4] = [
    "quantization",
    "quantization_config",
    "tie_word_embeddings",
    "vocab_size",
];

/// Every `model_type` that is one.
pub fn supported() -> impl Iterator<Item = &'static str> {
    NESTED.iter().map(|nested| nested.model_type)
}

/// The configuration of the language model in `config`; `None` where that describes it itself.
pub fn read(config: &ConfigFile) -> Result<Option<ConfigFile>, LoadError> {
    let model_type = config.model_type()?;
    let Some(nested) = NESTED.iter().find(|it| it.model_type == model_type) else {
        return Ok(None);
    };
    let Some(Value::Object(fields)) = config.get("text_config") else {
        return Err(LoadError::config("text_config", "is missing"));
    };
    let mut fields = fields.clone();
    fields.retain(|_, value| !value.is_null());
    for key in INHERITED {
        if let Some(value) = config.get(key) {
            fields.entry(key).or_insert_with(|| value.clone());
        }
    }
    for (key, value) in nested.defaults {
        fields.entry(*key).or_insert_with(|| json!(value));
    }
    fields
        .entry("model_type")
        .or_insert_with(|| json!(nested.text));
    Ok(Some(config.with_fields(fields)))
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::config;
    use super::*;

    #[test]
    fn the_language_model_is_found_and_told_what_is_common() {
        let outer = config(json!({
            "model_type": "gemma3", "quantization": {"bits": 4},
            "text_config": {"hidden_size": 64, "num_attention_heads": 2, "head_dim": null},
            "vision_config": {"hidden_size": 32}
        }));
        let text = read(&outer).unwrap().unwrap();
        for (key, value) in [
            ("model_type", json!("gemma3_text")),
            ("hidden_size", json!(64)),
            ("num_attention_heads", json!(2)),
            ("num_key_value_heads", json!(4)),
            ("vocab_size", json!(262_208)),
            ("quantization", json!({"bits": 4})),
        ] {
            assert_eq!(text.get(key), Some(&value), "{key}");
        }
        assert!(text.get("vision_config").is_none() && text.get("head_dim").is_none());
        assert!(
            read(&config(json!({"model_type": "llama"})))
                .unwrap()
                .is_none()
        );
        let error = read(&config(json!({"model_type": "mistral3"})));
        assert!(error.unwrap_err().to_string().contains("text_config"));
    }
}
