//! What a model's `generation_config.json` says about sampling.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::engine::SamplingParams;

/// The sampling of a request that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SamplingDefaults(pub SamplingParams);

/// Why `generation_config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct DefaultsError {
    path: PathBuf,
    reason: String,
}

/// The fields of transformers' `GenerationConfig` that this server honours.
#[derive(Deserialize)]
struct GenerationConfig {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    typical_p: Option<f32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Fields of it that would change the choice of tokens here too, and the value that leaves it alone.
const NOT_HONOURED: [(&str, f64); 6] = [
    ("encoder_repetition_penalty", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("num_beams", 1.0),
    ("penalty_alpha", 0.0),
];

impl GenerationConfig {
    fn not_honoured(&self) -> Vec<&'static str> {
        let acts = |(name, neutral): &&(&'static str, f64)| {
            let value = self.others.get(*name).and_then(Value::as_f64);
            value.is_some_and(|value| value != *neutral)
        };
        NOT_HONOURED
            .iter()
            .filter(acts)
            .map(|(name, _)| *name)
            .collect()
    }
}

impl SamplingDefaults {
    /// Reads the model's folder; without the file it is OpenAI's default, temperature 1.
    ///
    /// An explicit `"do_sample": false` means greedy, as it does in transformers; the file's other
    /// values apply to a request that sets a temperature.
    pub fn load(dir: &Path) -> Result<Self, DefaultsError> {
        let path = dir.join("generation_config.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(DefaultsError {
                    path,
                    reason: error.to_string(),
                });
            }
        };
        Self::parse(&text).map_err(|reason| DefaultsError { path, reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: GenerationConfig =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        for name in config.not_honoured() {
            tracing::warn!(
                name,
                "generation_config.json sets what this server does not do"
            );
        }
        let base = SamplingParams::default();
        let greedy = config.do_sample == Some(false);
        let temperature = if greedy {
            Some(0.0)
        } else {
            config.temperature
        };
        let within = |name: &str, value: Option<f32>, default: f32, low: f32, high: f32| {
            let value = value.unwrap_or(default);
            if (low..=high).contains(&value) {
                Ok(value)
            } else {
                Err(format!("{name} is {value}, not between {low} and {high}"))
            }
        };
        let repetition = config.repetition_penalty;
        Ok(Self(SamplingParams {
            temperature: within("temperature", temperature, base.temperature, 0.0, f32::MAX)?,
            top_k: config.top_k.unwrap_or(base.top_k),
            typical_p: within("typical_p", config.typical_p, base.typical_p, 0.0, 1.0)?,
            top_p: within("top_p", config.top_p, base.top_p, 0.0, 1.0)?,
            min_p: within("min_p", config.min_p, base.min_p, 0.0, 1.0)?,
            repetition_penalty: within(
                "repetition_penalty",
                repetition,
                base.repetition_penalty,
                f32::MIN_POSITIVE,
                f32::MAX,
            )?,
            ..base
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_values_are_the_defaults() {
        let text = r#"{"temperature": 0.6, "top_k": 20, "typical_p": 0.9, "top_p": null, "min_p": 0.1,
            "repetition_penalty": 1.1, "do_sample": true, "x": 1}"#;
        let want = SamplingParams {
            temperature: 0.6,
            top_k: 20,
            typical_p: 0.9,
            min_p: 0.1,
            repetition_penalty: 1.1,
            ..SamplingParams::default()
        };
        assert_eq!(SamplingDefaults::parse(text).unwrap().0, want);
    }

    #[test]
    fn what_is_not_honoured_is_known_by_name() {
        let text = r#"{"num_beams": 4, "eta_cutoff": 0.0, "no_repeat_ngram_size": 3}"#;
        let config: GenerationConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.not_honoured(), ["no_repeat_ngram_size", "num_beams"]);
    }

    #[test]
    fn do_sample_false_is_greedy() {
        let text = r#"{"do_sample": false, "temperature": 0.6}"#;
        assert_eq!(SamplingDefaults::parse(text).unwrap().0.temperature, 0.0);
    }

    #[test]
    fn nonsense_names_the_file_and_the_value() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            SamplingDefaults::load(dir.path()).unwrap(),
            SamplingDefaults::default()
        );
        std::fs::write(dir.path().join("generation_config.json"), r#"{"top_p": 2}"#).unwrap();
        let error = SamplingDefaults::load(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("generation_config.json") && error.contains("top_p is 2"),
            "{error}"
        );
    }
}
