//! The fields that completions and chat share, and their ranges.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::engine::SamplingParams;
use crate::server::error::ApiError;

/// Most outputs of one prompt.
pub const MAX_CHOICES: usize = 128;
/// Most stop strings of one request.
pub const MAX_STOPS: usize = 16;

/// As they stand in a request. OpenAI's names, with those of llama-server and mlx-lm beside them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SamplingFields {
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    n_predict: Option<i64>,
    n: Option<i64>,
    stop: Option<OneOrMany>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    repeat_penalty: Option<f64>,
    repetition_context_size: Option<i64>,
    repeat_last_n: Option<i64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    seed: Option<Seed>,
    logit_bias: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Any 64-bit integer; negative ones name seeds of their own.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "an integer")]
enum Seed {
    Unsigned(u64),
    Signed(i64),
}

/// Checked, and joined with the model's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// For the engine; the seed is that of the first choice.
    pub params: SamplingParams,
    /// Most tokens of each output.
    pub max_tokens: Option<usize>,
    /// Outputs of each prompt.
    pub n: usize,
    /// Strings that end an output.
    pub stop: Vec<String>,
}

impl SamplingFields {
    /// Checks every range. `vocab` bounds the tokens of `logit_bias`.
    pub fn resolve(self, defaults: &SamplingParams, vocab: usize) -> Result<Sampling, ApiError> {
        let max_tokens = self.max_tokens()?;
        let n = match self.n {
            None => 1,
            Some(n) => integer("n", n, 1, MAX_CHOICES as i64)?,
        };
        let (repetition_penalty, repetition_context) = self.repetition(defaults)?;
        let real = |name: &str, value: Option<f64>, default: f32, low: f64, high: f64| match value {
            None => Ok(default),
            Some(value) => number(name, value, low, high),
        };
        let params = SamplingParams {
            temperature: real(
                "temperature",
                self.temperature,
                defaults.temperature,
                0.0,
                100.0,
            )?,
            top_p: real("top_p", self.top_p, defaults.top_p, 0.0, 1.0)?,
            top_k: match self.top_k {
                None => defaults.top_k,
                // Off, in vLLM's words.
                Some(-1) => 0,
                Some(k) => integer("top_k", k, 0, i64::from(u32::MAX))?,
            },
            min_p: real("min_p", self.min_p, defaults.min_p, 0.0, 1.0)?,
            repetition_penalty,
            repetition_context,
            presence_penalty: real("presence_penalty", self.presence_penalty, 0.0, -2.0, 2.0)?,
            frequency_penalty: real("frequency_penalty", self.frequency_penalty, 0.0, -2.0, 2.0)?,
            logit_bias: biases(self.logit_bias.unwrap_or_default(), vocab)?,
            seed: self.seed.map(|seed| match seed {
                Seed::Unsigned(seed) => seed,
                Seed::Signed(seed) => seed.cast_unsigned(),
            }),
        };
        Ok(Sampling {
            params,
            max_tokens,
            n,
            stop: stops(self.stop)?,
        })
    }

    fn max_tokens(&self) -> Result<Option<usize>, ApiError> {
        let given = [
            ("max_completion_tokens", self.max_completion_tokens),
            ("max_tokens", self.max_tokens),
            // llama-server's −1 is "as many as fit".
            ("n_predict", self.n_predict.filter(|&count| count != -1)),
        ];
        let mut found: Option<(&str, usize)> = None;
        for (name, value) in given {
            let Some(value) = value else { continue };
            let value = integer(name, value, 1, i64::MAX)?;
            match found {
                Some((other, first)) if first != value => {
                    let message = format!("`{other}` and `{name}` differ; send one of them");
                    return Err(ApiError::invalid(name, message));
                }
                _ => found = Some((name, value)),
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    fn repetition(&self, defaults: &SamplingParams) -> Result<(f32, usize), ApiError> {
        let penalty =
            |name: &str, value: f64| number(name, value, f64::from(f32::MIN_POSITIVE), 1e6);
        let mut strength = match (self.repetition_penalty, self.repeat_penalty) {
            (Some(_), Some(_)) => {
                let message = "`repetition_penalty` and `repeat_penalty` mean the same; send one";
                return Err(ApiError::invalid("repeat_penalty", message));
            }
            (Some(value), None) => penalty("repetition_penalty", value)?,
            (None, Some(value)) => penalty("repeat_penalty", value)?,
            (None, None) => defaults.repetition_penalty,
        };
        let mut window = defaults.repetition_context;
        if let Some(size) = self.repetition_context_size {
            window = integer("repetition_context_size", size, 1, i64::from(u32::MAX))?;
        }
        match self.repeat_last_n {
            None => {}
            // llama-server: −1 is the whole context, 0 switches the penalty off.
            Some(-1) => window = 0,
            Some(0) => strength = 1.0,
            Some(size) => window = integer("repeat_last_n", size, 1, i64::from(u32::MAX))?,
        }
        Ok((strength, window))
    }
}

fn stops(stop: Option<OneOrMany>) -> Result<Vec<String>, ApiError> {
    let list = match stop {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    };
    if list.len() > MAX_STOPS {
        let message = format!(
            "`stop` holds {} strings, at most {MAX_STOPS} are taken",
            list.len()
        );
        return Err(ApiError::invalid("stop", message));
    }
    if list.iter().any(String::is_empty) {
        return Err(ApiError::invalid(
            "stop",
            "a stop string is empty; leave it out",
        ));
    }
    Ok(list)
}

fn biases(map: Map<String, Value>, vocab: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let bias = |(key, value): (String, Value)| {
        let path = format!("logit_bias.{key}");
        let token: u32 = key
            .parse()
            .ok()
            .filter(|&id| (id as usize) < vocab)
            .ok_or_else(|| {
                let message = format!("`{key}` is no token id; they go from 0 to {}", vocab - 1);
                ApiError::invalid(&path, message)
            })?;
        let value = value
            .as_f64()
            .ok_or_else(|| ApiError::wrong_type(&path, "a bias is a number from -100 to 100"))?;
        Ok((token, number(&path, value, -100.0, 100.0)?))
    };
    map.into_iter().map(bias).collect()
}

fn number(name: &str, value: f64, low: f64, high: f64) -> Result<f32, ApiError> {
    if (low..=high).contains(&value) {
        return Ok(value as f32);
    }
    let message = if low == f64::from(f32::MIN_POSITIVE) {
        format!("`{name}` is {value}, it must be more than 0")
    } else {
        format!("`{name}` is {value}, it must be between {low} and {high}")
    };
    Err(ApiError::invalid(name, message))
}

/// An integer between `low` (not negative) and `high`.
pub(super) fn integer(name: &str, value: i64, low: i64, high: i64) -> Result<usize, ApiError> {
    usize::try_from(value)
        .ok()
        .filter(|_| (low..=high).contains(&value))
        .ok_or_else(|| {
            let bounds = if high == i64::MAX {
                format!("at least {low}")
            } else {
                format!("between {low} and {high}")
            };
            ApiError::invalid(name, format!("`{name}` is {value}, it must be {bounds}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve(value: Value) -> Result<Sampling, ApiError> {
        let fields: SamplingFields = serde_json::from_value(value).unwrap();
        fields.resolve(&SamplingParams::default(), 100)
    }

    #[test]
    fn an_empty_request_takes_the_models_defaults() {
        let defaults = SamplingParams {
            temperature: 0.6,
            top_k: 20,
            ..Default::default()
        };
        let sampling = SamplingFields::default().resolve(&defaults, 100).unwrap();
        assert_eq!(sampling.params, defaults);
        assert_eq!(
            (sampling.n, sampling.max_tokens, sampling.stop),
            (1, None, vec![])
        );
    }

    #[test]
    fn every_field_arrives() {
        let sampling = resolve(json!({
            "max_completion_tokens": 5, "n": 2, "stop": "x", "temperature": 0.5, "top_p": 0.9,
            "top_k": 3, "min_p": 0.1, "repeat_penalty": 1.2, "repeat_last_n": 64,
            "presence_penalty": 1, "frequency_penalty": -1, "seed": -1, "logit_bias": {"7": -100}
        }))
        .unwrap();
        let want = SamplingParams {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 3,
            min_p: 0.1,
            repetition_penalty: 1.2,
            repetition_context: 64,
            presence_penalty: 1.0,
            frequency_penalty: -1.0,
            logit_bias: vec![(7, -100.0)],
            seed: Some(u64::MAX),
        };
        assert_eq!(sampling.params, want);
        assert_eq!((sampling.n, sampling.max_tokens), (2, Some(5)));
        assert_eq!(sampling.stop, ["x"]);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (field, value) in [
            ("temperature", json!(-1)),
            ("top_p", json!(2)),
            ("top_p", json!(-0.1)),
            ("top_k", json!(-2)),
            ("min_p", json!(1.5)),
            ("n", json!(0)),
            ("n", json!(129)),
            ("max_tokens", json!(0)),
            ("max_tokens", json!(-1)),
            ("max_completion_tokens", json!(0)),
            ("n_predict", json!(-2)),
            ("repetition_penalty", json!(0)),
            ("repeat_penalty", json!(-1)),
            ("repeat_last_n", json!(-2)),
            ("presence_penalty", json!(2.5)),
            ("frequency_penalty", json!(-2.5)),
            ("stop", json!([""])),
            ("stop", json!(vec!["a"; 17])),
        ] {
            let error = resolve(json!({ field: value })).unwrap_err();
            assert_eq!(error.param(), Some(field), "{field}: {value}");
            assert_eq!(error.code(), Some("invalid_value"), "{field}: {value}");
        }
    }

    #[test]
    fn biases_name_the_token() {
        for (map, code) in [
            (json!({"100": 1}), "invalid_value"),
            (json!({"x": 1}), "invalid_value"),
            (json!({"1": 101}), "invalid_value"),
            (json!({"1": "a"}), "invalid_type"),
        ] {
            let error = resolve(json!({"logit_bias": map})).unwrap_err();
            assert!(
                error.param().unwrap().starts_with("logit_bias."),
                "{error:?}"
            );
            assert_eq!(error.code(), Some(code));
        }
    }

    #[test]
    fn two_names_for_one_thing_must_agree() {
        assert!(resolve(json!({"max_tokens": 5, "max_completion_tokens": 5})).is_ok());
        let error = resolve(json!({"max_tokens": 5, "max_completion_tokens": 6})).unwrap_err();
        assert_eq!(error.param(), Some("max_tokens"));
    }
}
