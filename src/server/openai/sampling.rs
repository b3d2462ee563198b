//! The fields that completions and chat share, and their ranges.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::ending::Ending;
use super::ranges::{integer, number, number_or, positive};
use crate::engine::SamplingParams;
use crate::engine::sampler::Dry;
use crate::server::error::ApiError;

/// Most outputs of one prompt.
pub const MAX_CHOICES: usize = 128;
/// Most stop strings of one request.
pub const MAX_STOPS: usize = 16;
/// Most sequence breakers of one request, and most characters of one.
const MAX_BREAKERS: usize = 32;
const MAX_BREAKER_LENGTH: usize = 40;
/// The bias of a token that is only chosen where nothing else is allowed.
const NEVER: f32 = -1e9;

/// As they stand in a request. OpenAI's names, with those of llama-server and mlx-lm beside them.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SamplingFields {
    /// Whether a request may ask for no output at all, only for its prompt.
    #[serde(skip)]
    pub prompt_only: bool,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    n_predict: Option<i64>,
    n: Option<i64>,
    stop: Option<OneOrMany>,
    /// Tokens before which no stop token is chosen, and no stop string looked for.
    min_tokens: Option<i64>,
    /// Further tokens that end an output.
    stop_token_ids: Option<Vec<i64>>,
    /// Whether the model's own stop tokens are never chosen.
    ignore_eos: Option<bool>,
    temperature: Option<f64>,
    top_k: Option<i64>,
    typical_p: Option<f64>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    xtc_probability: Option<f64>,
    xtc_threshold: Option<f64>,
    repetition_penalty: Option<f64>,
    repeat_penalty: Option<f64>,
    repetition_context_size: Option<i64>,
    repeat_last_n: Option<i64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    dry_multiplier: Option<f64>,
    dry_base: Option<f64>,
    dry_allowed_length: Option<i64>,
    dry_penalty_last_n: Option<i64>,
    dry_sequence_breakers: Option<Vec<String>>,
    seed: Option<Seed>,
    /// Tokens and what is added to their logits; llama-server's list of pairs too.
    #[schema(value_type = Option<Object>)]
    logit_bias: Option<Biases>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected an object from token ids to numbers, or a list of pairs of them"
)]
enum Biases {
    Map(Map<String, Value>),
    Pairs(Vec<(Value, Value)>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Any 64-bit integer; negative ones name seeds of their own, but -1 is "any", as at llama-server.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected an integer")]
enum Seed {
    Unsigned(u64),
    Signed(i64),
}

/// Checked, and joined with the model's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// For the engine, as the first choice has them.
    pub params: SamplingParams,
    /// What DRY does not reach over, to be turned into tokens; `None` is the usual ones.
    pub breakers: Option<Vec<String>>,
    /// Most tokens of each output.
    pub max_tokens: Option<usize>,
    /// Outputs of each prompt.
    pub n: usize,
    /// Strings that end an output.
    pub stop: Vec<String>,
    /// What else does.
    pub ending: Ending,
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
        let dry = self.dry(&defaults.dry)?;
        let part = |name: &str, value: Option<f64>, default: f32| {
            number_or(default, name, value, 0.0, 1.0)
        };
        let penalty = |name: &str, value: Option<f64>| number_or(0.0, name, value, -2.0, 2.0);
        let params = SamplingParams {
            temperature: number_or(
                defaults.temperature,
                "temperature",
                self.temperature,
                0.0,
                100.0,
            )?,
            top_k: match self.top_k {
                None => defaults.top_k,
                // Off, in vLLM's words.
                Some(-1) => 0,
                Some(k) => integer("top_k", k, 0, i64::from(u32::MAX))?,
            },
            typical_p: part("typical_p", self.typical_p, defaults.typical_p)?,
            top_p: part("top_p", self.top_p, defaults.top_p)?,
            min_p: part("min_p", self.min_p, defaults.min_p)?,
            xtc_probability: part(
                "xtc_probability",
                self.xtc_probability,
                defaults.xtc_probability,
            )?,
            xtc_threshold: part("xtc_threshold", self.xtc_threshold, defaults.xtc_threshold)?,
            repetition_penalty,
            repetition_context,
            presence_penalty: penalty("presence_penalty", self.presence_penalty)?,
            frequency_penalty: penalty("frequency_penalty", self.frequency_penalty)?,
            dry,
            logit_bias: match self.logit_bias {
                None => Vec::new(),
                Some(biases) => biases.checked(vocab)?,
            },
            withheld: Vec::new(),
            seed: match self.seed {
                None | Some(Seed::Signed(-1)) => None,
                Some(Seed::Unsigned(seed)) => Some(seed),
                Some(Seed::Signed(seed)) => Some(seed.cast_unsigned()),
            },
            choice: 0,
        };
        Ok(Sampling {
            params,
            breakers: breakers(self.dry_sequence_breakers)?,
            max_tokens,
            n,
            stop: stops("stop", self.stop.map(OneOrMany::list).unwrap_or_default())?,
            ending: Ending::checked(self.min_tokens, self.stop_token_ids, self.ignore_eos, vocab)?,
        })
    }

    fn max_tokens(&self) -> Result<Option<usize>, ApiError> {
        let given = [
            ("max_completion_tokens", self.max_completion_tokens),
            ("max_tokens", self.max_tokens),
            // llama-server's −1 is "as many as fit".
            ("n_predict", self.n_predict.filter(|&count| count != -1)),
        ];
        let least = if self.prompt_only { 0 } else { 1 };
        let mut found: Option<(&str, usize)> = None;
        for (name, value) in given {
            let Some(value) = value else { continue };
            let value = integer(name, value, least, i64::MAX)?;
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
        let mut strength = match (self.repetition_penalty, self.repeat_penalty) {
            (Some(_), Some(_)) => {
                let message = "`repetition_penalty` and `repeat_penalty` mean the same; send one";
                return Err(ApiError::invalid("repeat_penalty", message));
            }
            (Some(value), None) => positive("repetition_penalty", value, 1e6)?,
            (None, Some(value)) => positive("repeat_penalty", value, 1e6)?,
            (None, None) => defaults.repetition_penalty,
        };
        let mut window = defaults.repetition_context;
        if let Some(size) = self.repetition_context_size {
            window = integer("repetition_context_size", size, 1, i64::from(u32::MAX))?;
        }
        match last_n("repeat_last_n", self.repeat_last_n)? {
            None => {}
            Some(Window::Off) => strength = 1.0,
            Some(Window::Last(size)) => window = size,
        }
        Ok((strength, window))
    }

    fn dry(&self, defaults: &Dry) -> Result<Dry, ApiError> {
        let multiplier = self.dry_multiplier;
        let mut dry = Dry {
            multiplier: number_or(defaults.multiplier, "dry_multiplier", multiplier, 0.0, 1e6)?,
            base: number_or(defaults.base, "dry_base", self.dry_base, 1.0, 1e6)?,
            allowed_length: match self.dry_allowed_length {
                None => defaults.allowed_length,
                Some(tokens) => integer("dry_allowed_length", tokens, 1, i64::from(u32::MAX))?,
            },
            ..defaults.clone()
        };
        match last_n("dry_penalty_last_n", self.dry_penalty_last_n)? {
            None => {}
            Some(Window::Off) => dry.multiplier = 0.0,
            Some(Window::Last(size)) => dry.window = size,
        }
        Ok(dry)
    }
}

/// What llama-server's `…_last_n` means.
enum Window {
    /// 0 switches the penalty off.
    Off,
    /// So many tokens; 0 is all of them, llama-server's -1.
    Last(usize),
}

fn last_n(name: &str, value: Option<i64>) -> Result<Option<Window>, ApiError> {
    Ok(match value {
        None => None,
        Some(-1) => Some(Window::Last(0)),
        Some(0) => Some(Window::Off),
        Some(size) => Some(Window::Last(integer(name, size, 1, i64::from(u32::MAX))?)),
    })
}

fn breakers(list: Option<Vec<String>>) -> Result<Option<Vec<String>>, ApiError> {
    let Some(list) = list else { return Ok(None) };
    let name = "dry_sequence_breakers";
    if list.len() > MAX_BREAKERS {
        let message = format!(
            "`{name}` holds {} strings, at most {MAX_BREAKERS} are taken",
            list.len()
        );
        return Err(ApiError::invalid(name, message));
    }
    for (index, text) in list.iter().enumerate() {
        if !(1..=MAX_BREAKER_LENGTH).contains(&text.chars().count()) {
            let name = format!("{name}[{index}]");
            let message = format!("`{name}` must have 1 to {MAX_BREAKER_LENGTH} characters");
            return Err(ApiError::invalid(&name, message));
        }
    }
    Ok(Some(list))
}

/// Checks the strings that end an output.
pub fn stops(name: &str, list: Vec<String>) -> Result<Vec<String>, ApiError> {
    if list.len() > MAX_STOPS {
        let message = format!(
            "`{name}` holds {} strings, at most {MAX_STOPS} are taken",
            list.len()
        );
        return Err(ApiError::invalid(name, message));
    }
    if list.iter().any(String::is_empty) {
        return Err(ApiError::invalid(
            name,
            "a stop string is empty; leave it out",
        ));
    }
    Ok(list)
}

impl Biases {
    fn checked(self, vocab: usize) -> Result<Vec<(u32, f32)>, ApiError> {
        let pairs = match self {
            Self::Map(map) => map.into_iter().collect(),
            Self::Pairs(pairs) => pairs
                .into_iter()
                .map(|(token, bias)| match token {
                    Value::String(text) => (text, bias),
                    token => (token.to_string(), bias),
                })
                .collect::<Vec<_>>(),
        };
        pairs
            .into_iter()
            .map(|(token, value)| bias(&token, &value, vocab))
            .collect()
    }
}

fn bias(token: &str, value: &Value, vocab: usize) -> Result<(u32, f32), ApiError> {
    let path = format!("logit_bias.{token}");
    let id = token.parse().ok().filter(|&id: &u32| (id as usize) < vocab);
    let id = id.ok_or_else(|| {
        let message = format!("`{token}` is no token id; they go from 0 to {}", vocab - 1);
        ApiError::invalid(&path, message)
    })?;
    // llama-server's word for a token that is never chosen.
    if value == false {
        return Ok((id, NEVER));
    }
    let value = value
        .as_f64()
        .ok_or_else(|| ApiError::wrong_type(&path, "a bias is a number from -100 to 100"))?;
    Ok((id, number(&path, value, -100.0, 100.0)?))
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
            "presence_penalty": 1, "frequency_penalty": -1, "seed": -2, "logit_bias": {"7": -100},
            "typical_p": 0.8, "xtc_probability": 0.5, "xtc_threshold": 0.2, "dry_multiplier": 0.75,
            "dry_base": 1.5, "dry_allowed_length": 3, "dry_penalty_last_n": 99,
            "dry_sequence_breakers": ["\n", "END"]
        }))
        .unwrap();
        let want = SamplingParams {
            temperature: 0.5,
            top_k: 3,
            typical_p: 0.8,
            top_p: 0.9,
            min_p: 0.1,
            xtc_probability: 0.5,
            xtc_threshold: 0.2,
            repetition_penalty: 1.2,
            repetition_context: 64,
            presence_penalty: 1.0,
            frequency_penalty: -1.0,
            dry: Dry {
                multiplier: 0.75,
                base: 1.5,
                allowed_length: 3,
                window: 99,
                ..Dry::default()
            },
            logit_bias: vec![(7, -100.0)],
            withheld: Vec::new(),
            seed: Some(u64::MAX - 1),
            choice: 0,
        };
        assert_eq!(sampling.params, want);
        assert_eq!((sampling.n, sampling.max_tokens), (2, Some(5)));
        assert_eq!(sampling.stop, ["x"]);
        assert_eq!(sampling.breakers.unwrap(), ["\n", "END"]);
    }

    #[test]
    fn llama_servers_special_values_mean_what_they_mean_there() {
        let params = |value| resolve(value).unwrap().params;
        assert_eq!(params(json!({"seed": -1})).seed, None);
        assert_eq!(params(json!({"top_k": -1})).top_k, 0);
        assert_eq!(params(json!({"repeat_last_n": -1})).repetition_context, 0);
        let off = params(json!({"repeat_penalty": 2, "repeat_last_n": 0}));
        assert_eq!(off.repetition_penalty, 1.0);
        let dry = |window| {
            let value = json!({"dry_multiplier": 1, "dry_penalty_last_n": window});
            params(value).dry
        };
        assert!(!dry(0).is_on());
        assert_eq!((dry(-1).is_on(), dry(-1).window), (true, 0));
    }

    #[test]
    fn only_some_requests_may_ask_for_nothing() {
        let fields = SamplingFields {
            prompt_only: true,
            max_tokens: Some(0),
            ..Default::default()
        };
        let sampling = fields.resolve(&SamplingParams::default(), 100).unwrap();
        assert_eq!(sampling.max_tokens, Some(0));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (field, value) in [
            ("temperature", json!(-1)),
            ("top_p", json!(2)),
            ("top_p", json!(-0.1)),
            ("top_k", json!(-2)),
            ("min_p", json!(1.5)),
            ("typical_p", json!(1.01)),
            ("xtc_probability", json!(-0.5)),
            ("xtc_threshold", json!(2)),
            ("dry_multiplier", json!(-1)),
            ("dry_base", json!(0.5)),
            ("dry_allowed_length", json!(0)),
            ("dry_penalty_last_n", json!(-2)),
            ("dry_sequence_breakers", json!(vec!["a"; 33])),
            ("dry_sequence_breakers[1]", json!(["a", ""])),
            ("dry_sequence_breakers[0]", json!(["a".repeat(41)])),
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
            let name = field.split('[').next().unwrap();
            let error = resolve(json!({ name: value })).unwrap_err();
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
            (json!([[100, 1]]), "invalid_value"),
            (json!([["x", false]]), "invalid_value"),
            (json!([[1, "a"]]), "invalid_type"),
        ] {
            let error = resolve(json!({"logit_bias": map})).unwrap_err();
            assert!(
                error.param().unwrap().starts_with("logit_bias."),
                "{error:?}"
            );
            assert_eq!(error.code(), Some(code));
        }
        let pairs = resolve(json!({"logit_bias": [[7, -1.5], ["8", false]]})).unwrap();
        let want = [(7, -1.5), (8, NEVER)];
        assert_eq!(pairs.params.logit_bias, want);
    }

    #[test]
    fn two_names_for_one_thing_must_agree() {
        assert!(resolve(json!({"max_tokens": 5, "max_completion_tokens": 5})).is_ok());
        let error = resolve(json!({"max_tokens": 5, "max_completion_tokens": 6})).unwrap_err();
        assert_eq!(error.param(), Some("max_tokens"));
    }
}
