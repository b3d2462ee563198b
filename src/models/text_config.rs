//! Checkpoints that carry more than text: the language model's part of `config.json`.

use serde_json::{Value, json};

use super::config::{ConfigFile, drop_nulls};
use super::error::LoadError;

/// A type of checkpoint whose `text_config` describes its language model.
struct Nested {
    model_type: &'static str,
    text: Text,
    /// What `text_config` may leave out and is not the language model's own default.
    defaults: &'static [(&'static str, i64)],
}

/// What the language model is.
enum Text {
    /// This type, whatever `text_config` calls it; where there is none, the file is all about it.
    Always(&'static str),
    /// The type that `text_config` says, or else this one.
    Stated(&'static str),
}

const NESTED: &[Nested] = &[
    Nested {
        model_type: "gemma3",
        text: Text::Stated("gemma3_text"),
        defaults: &[
            ("vocab_size", 262_208),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
        ],
    },
    Nested {
        model_type: "gemma4",
        text: Text::Stated("gemma4_text"),
        defaults: GEMMA4,
    },
    Nested {
        model_type: "gemma4_unified",
        text: Text::Stated("gemma4_text"),
        defaults: GEMMA4,
    },
    nested("kimi_vl", Text::Always("deepseek_v3")),
    nested("lfm2-vl", Text::Always("lfm2")),
    nested("lfm2_vl", Text::Always("lfm2")),
    nested("llava", Text::Stated("mistral")),
    nested("mistral3", Text::Stated("mistral")),
    Nested {
        model_type: "pixtral",
        text: Text::Always("llama"),
        defaults: &[("num_attention_heads", 32)],
    },
    nested("qwen2_5_vl", Text::Always("qwen2")),
    nested("qwen2_vl", Text::Always("qwen2")),
    nested("qwen3_5", Text::Always("qwen3_5")),
    nested("qwen3_5_moe", Text::Always("qwen3_5_moe")),
    nested("qwen3_vl", Text::Always("qwen3")),
    nested("qwen3_vl_moe", Text::Always("qwen3_moe")),
];

const GEMMA4: &[(&str, i64)] = &[
    ("vocab_size", 262_144),
    ("num_attention_heads", 8),
    ("num_key_value_heads", 1),
];

const fn nested(model_type: &'static str, text: Text) -> Nested {
    Nested {
        model_type,
        text,
        defaults: &[],
    }
}

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

/// What `config.json` says of the language model: its `text_config` where it is a checkpoint with more, or
/// else all of it.
pub fn of_language_model(config: ConfigFile) -> Result<ConfigFile, LoadError> {
    let model_type = config.model_type()?;
    let Some(nested) = NESTED.iter().find(|it| it.model_type == model_type) else {
        return Ok(config);
    };
    let mut fields = match (config.get("text_config"), &nested.text) {
        (Some(Value::Object(fields)), _) => fields.clone(),
        (None, Text::Always(_)) => config.fields().clone(),
        _ => return Err(LoadError::config("text_config", "is missing")),
    };
    drop_nulls(&mut fields);
    for key in INHERITED {
        if let Some(value) = config.get(key) {
            fields.entry(key).or_insert_with(|| value.clone());
        }
    }
    for (key, value) in nested.defaults {
        fields.entry(*key).or_insert_with(|| json!(value));
    }
    match nested.text {
        Text::Always(text) => {
            fields.insert("model_type".to_owned(), json!(text));
        }
        Text::Stated(text) => {
            fields.entry("model_type").or_insert_with(|| json!(text));
        }
    }
    Ok(config.with_fields(fields))
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
        let text = of_language_model(outer).unwrap();
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
        let error = of_language_model(config(json!({"model_type": "mistral3"})));
        assert!(error.unwrap_err().to_string().contains("text_config"));
    }

    #[test]
    fn what_a_language_model_calls_itself_within_another_is_not_always_its_type() {
        let inner = json!({"model_type": "qwen3_vl_text", "hidden_size": 2});
        for (file, model_type) in [
            (
                json!({"model_type": "qwen3_vl", "text_config": inner, "hidden_size": 1}),
                "qwen3",
            ),
            (
                json!({"model_type": "qwen3_5", "text_config": inner}),
                "qwen3_5",
            ),
            (json!({"model_type": "qwen2_vl", "hidden_size": 2}), "qwen2"),
            (
                json!({"model_type": "mistral3", "text_config":
                {"model_type": "ministral3", "hidden_size": 2}}),
                "ministral3",
            ),
            (json!({"model_type": "llama", "hidden_size": 2}), "llama"),
        ] {
            let text = of_language_model(config(file)).unwrap();
            assert_eq!(text.model_type().unwrap(), model_type);
            assert_eq!(text.get("hidden_size"), Some(&json!(2)));
        }
    }
}
