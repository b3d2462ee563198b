//! `config.json`: read once, parsed by each architecture into its own type.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::{Map, Value};

use super::error::LoadError;
use crate::{fields, python_json};

/// Fields that change the arithmetic in some architectures, and the values that don't. One that
/// an architecture does not read itself must have such a value, or be null or false: what is not
/// understood is an error, not a slightly different model.
const ARITHMETIC: &[(&str, &[f64])] = &[
    ("alibi", &[]),
    ("attention_chunk_size", &[]),
    ("attention_multiplier", &[]),
    ("attn_logit_softcapping", &[]),
    ("clip_qkv", &[]),
    ("dim_model_base", &[]),
    ("embedding_multiplier", &[1.0]),
    ("final_logit_softcapping", &[]),
    ("logit_scale", &[1.0]),
    ("logits_scaling", &[1.0]),
    ("model_file", &[]),
    ("n_routed_experts", &[0.0, 1.0]),
    ("no_rope_layer_interval", &[0.0]),
    ("no_rope_layers", &[]),
    ("num_experts", &[0.0, 1.0]),
    ("num_local_experts", &[0.0, 1.0]),
    ("parallel_residual", &[]),
    ("partial_rotary_factor", &[1.0]),
    ("qk_layernorm", &[]),
    ("quantize_activations", &[]),
    ("query_pre_attn_scalar", &[]),
    ("residual_multiplier", &[1.0]),
    ("rope_interleaved", &[]),
    ("rope_parameters", &[]),
    ("rope_scaling", &[]),
    ("rotary_pct", &[1.0]),
    ("scale_depth", &[]),
    ("scale_emb", &[1.0]),
    ("sliding_window", &[]),
    ("use_parallel_residual", &[]),
    ("use_qk_norm", &[]),
];

/// Fields in which null means none, where leaving them out means a default.
const NULL_MEANS_NONE: &[&str] = &[
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "global_head_dim",
    "hidden_size_per_layer_input",
];

/// Null is as if it was not there: what a writer of transformers leaves to the default.
pub fn drop_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|key, value| !value.is_null() || NULL_MEANS_NONE.contains(&key.as_str()));
}

/// A model folder's `config.json`.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl ConfigFile {
    /// Reads `config.json` in `dir`.
    pub fn read(dir: &Path) -> Result<Self, LoadError> {
        if !dir.is_dir() {
            return Err(LoadError::NotAFolder(dir.to_owned()));
        }
        let path = dir.join("config.json");
        let text = std::fs::read(&path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                LoadError::NoConfig(dir.to_owned())
            } else {
                LoadError::Io {
                    path: path.clone(),
                    source,
                }
            }
        })?;
        let mut fields: Map<String, Value> =
            python_json::from_slice(&text).map_err(|error| LoadError::Json {
                path: path.clone(),
                message: error.to_string(),
            })?;
        drop_nulls(&mut fields);
        Ok(Self { path, fields })
    }

    /// The same file, with these fields.
    pub fn with_fields(&self, fields: Map<String, Value>) -> Self {
        Self {
            path: self.path.clone(),
            fields,
        }
    }

    /// `model_type`.
    pub fn model_type(&self) -> Result<&str, LoadError> {
        self.fields
            .get("model_type")
            .and_then(Value::as_str)
            .ok_or_else(|| LoadError::config("model_type", "is missing"))
    }

    /// Whether the folder holds this file too.
    pub fn has_beside_it(&self, file: &str) -> bool {
        self.path.with_file_name(file).exists()
    }

    /// All of the fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// One field.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    /// Whether a window that is stated is also said to be out of use.
    fn slides_nowhere(&self) -> bool {
        self.get("use_sliding_window") == Some(&Value::Bool(false))
    }

    /// The fields as an architecture's own type. A field that it does not have, but that would
    /// change its arithmetic, is an error.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        let parsed = self.fields_as()?;
        self.check(fields::names::<T>())?;
        Ok(parsed)
    }

    /// The same where an architecture's fields are those of two types.
    pub fn parse_both<A: DeserializeOwned, B: DeserializeOwned>(
        &self,
    ) -> Result<(A, B), LoadError> {
        let parsed = (self.fields_as()?, self.fields_as()?);
        self.check(&[fields::names::<A>(), fields::names::<B>()].concat())?;
        Ok(parsed)
    }

    fn fields_as<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        let object = Value::Object(self.fields.clone());
        serde_path_to_error::deserialize(object).map_err(|error| LoadError::Json {
            path: self.path.clone(),
            message: match error.path().to_string().as_str() {
                "." => error.inner().to_string(),
                field => format!("{field}: {}", error.inner()),
            },
        })
    }

    /// Fails where a field that is none of the `known` changes the arithmetic.
    fn check(&self, known: &[&str]) -> Result<(), LoadError> {
        for (key, value) in &self.fields {
            let unused = key == "sliding_window" && self.slides_nowhere();
            if !known.contains(&key.as_str()) && !unused {
                reject_arithmetic(key, value)?;
            }
        }
        Ok(())
    }
}

/// What an architecture reads of `config.json`.
pub trait FromConfig: Sized {
    /// Fails where a field is wrong, or not understood.
    fn from_config(file: &ConfigFile) -> Result<Self, LoadError>;
}

impl<T: DeserializeOwned> FromConfig for T {
    fn from_config(file: &ConfigFile) -> Result<Self, LoadError> {
        file.parse()
    }
}

/// A number that may be infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(pub f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        // Newer versions of transformers wrap the word.
        let word = value.get("__float__").unwrap_or(&value).as_str();
        let number = match word {
            Some("Infinity") => Some(f64::INFINITY),
            Some("-Infinity") => Some(f64::NEG_INFINITY),
            _ => value.as_f64(),
        };
        let wrong = || serde::de::Error::custom(format!("{value} is not a number"));
        number.map(Self).ok_or_else(wrong)
    }
}

fn reject_arithmetic(key: &str, value: &Value) -> Result<(), LoadError> {
    let Some((_, neutral)) = ARITHMETIC.iter().find(|(name, _)| *name == key) else {
        return Ok(());
    };
    let harmless = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64().is_some_and(|x| neutral.contains(&x)),
        _ => false,
    };
    if harmless {
        return Ok(());
    }
    Err(LoadError::config(
        key,
        format!("{value} changes the arithmetic in a way that this architecture does not support"),
    ))
}

/// A dimension from `config.json`: positive, and small enough for MLX's 32-bit shapes.
pub fn dimension(key: &str, value: u64) -> Result<i32, LoadError> {
    match i32::try_from(value) {
        Ok(dim) if dim > 0 && dim <= 1 << 28 => Ok(dim),
        _ => Err(LoadError::config(
            key,
            format!("{value} is not a possible size"),
        )),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub fn config(value: Value) -> ConfigFile {
        let Value::Object(fields) = value else {
            panic!("not an object: {value}");
        };
        ConfigFile {
            path: PathBuf::from("config.json"),
            fields,
        }
    }

    #[derive(Debug, Deserialize)]
    struct Small {
        size: u32,
        #[serde(default)]
        logit_scale: Option<f32>,
    }

    #[test]
    fn unknown_fields_are_ignored_unless_they_change_the_arithmetic() {
        let parse = |value| config(value).parse::<Small>();
        let small = parse(
            json!({"size": 3, "torch_dtype": "bfloat16", "sliding_window": null,
            "residual_multiplier": 1.0, "logit_scale": 0.5}),
        )
        .unwrap();
        assert_eq!((small.size, small.logit_scale), (3, Some(0.5)));
        parse(json!({"size": 3, "sliding_window": 4096, "use_sliding_window": false})).unwrap();

        for (key, value) in [
            ("final_logit_softcapping", json!(30.0)),
            ("residual_multiplier", json!(0.22)),
            ("sliding_window", json!(4096)),
            ("use_qk_norm", json!(true)),
        ] {
            let error = parse(json!({"size": 3, key: value}))
                .unwrap_err()
                .to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn what_one_of_two_types_has_is_understood() {
        #[derive(Debug, Deserialize)]
        struct Other {
            sliding_window: u64,
        }
        let parse = |value| config(value).parse_both::<Small, Other>();
        let fields = json!({"size": 3, "sliding_window": 4096, "logit_scale": 0.5});
        let (small, other) = parse(fields).unwrap();
        assert_eq!((small.logit_scale, other.sliding_window), (Some(0.5), 4096));
        let error = parse(json!({"size": 3, "sliding_window": 4096, "clip_qkv": 8.0}));
        assert!(error.unwrap_err().to_string().contains("clip_qkv"));
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        let error = config(json!({"size": "big"}))
            .parse::<Small>()
            .unwrap_err()
            .to_string();
        assert!(error.contains("size") && error.contains("big"), "{error}");
        let error = config(json!({})).parse::<Small>().unwrap_err().to_string();
        assert!(error.contains("size"), "{error}");
    }

    #[test]
    fn infinities_of_python_are_numbers() {
        let number = |value| serde_json::from_value::<Number>(value).map(|Number(x)| x);
        assert_eq!(number(json!("Infinity")).unwrap(), f64::INFINITY);
        assert_eq!(number(json!("-Infinity")).unwrap(), f64::NEG_INFINITY);
        let wrapped = json!({"__float__": "Infinity"});
        assert_eq!(number(wrapped).unwrap(), f64::INFINITY);
        assert_eq!(number(json!(2)).unwrap(), 2.0);
        assert!(number(json!("NaN")).is_err());
        assert!(number(json!([])).is_err());
    }

    #[test]
    fn a_folder_without_a_config_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = ConfigFile::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no config.json"), "{error}");
        let error = ConfigFile::read(&dir.path().join("nothing"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a folder"), "{error}");
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        assert!(matches!(
            ConfigFile::read(dir.path()),
            Err(LoadError::Json { .. })
        ));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(dimension("hidden_size", 64).unwrap(), 64);
        for size in [0, 1 << 29, u64::MAX] {
            assert!(dimension("hidden_size", size).is_err());
        }
    }
}
