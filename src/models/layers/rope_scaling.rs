//! How far rotary positions are stretched, as in mlx-lm's `rope_utils`.

use std::f64::consts::PI;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::models::LoadError;

/// The ways there are.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    None,
    /// Every position is divided by the factor.
    Linear(f64),
    Llama3(Llama3),
    Yarn(Yarn),
    LongRope(LongRope),
    /// The periods are those of a head whose features were all turned; the rest stands still.
    Proportional(f64),
}

/// Llama 3.1's: long wavelengths are stretched, short ones are not, those between are blended.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Llama3 {
    factor: f64,
    #[serde(default = "one")]
    low_freq_factor: f64,
    #[serde(default = "four")]
    high_freq_factor: f64,
    #[serde(default = "context")]
    original_max_position_embeddings: f64,
}

/// YaRN (Peng et al., 2023).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Yarn {
    factor: f64,
    #[serde(default = "yarn_context")]
    original_max_position_embeddings: f64,
    #[serde(default = "thirty_two")]
    beta_fast: f64,
    #[serde(default = "one")]
    beta_slow: f64,
    #[serde(default = "one")]
    mscale: f64,
    #[serde(default)]
    mscale_all_dim: f64,
    /// The amplitude, where the file states it; mlx-lm computes it always.
    attention_factor: Option<f64>,
    /// Read by transformers only; mlx-lm always truncates.
    #[serde(default, rename = "truncate")]
    _truncate: Option<bool>,
}

/// LongRoPE (Ding et al., 2024): a factor for each feature pair.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongRope {
    long_factor: Vec<f64>,
    /// For contexts that were not stretched; mlx-lm always takes the long ones.
    #[serde(default, rename = "short_factor")]
    _short_factor: Option<Vec<f64>>,
    original_max_position_embeddings: f64,
    /// The amplitude, where the file states it; mlx-lm computes it always.
    attention_factor: Option<f64>,
    /// How much longer the context became, which the two contexts say as well.
    #[serde(default, rename = "factor")]
    _factor: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Factor {
    factor: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionalFactor {
    #[serde(default = "one")]
    factor: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// What says nothing about text: how images divide a head (for text all three positions are the same one),
/// and bookkeeping.
const UNUSED: [&str; 3] = ["mrope_section", "mrope_interleaved", "finetuned"];

/// What transformers writes into every kind, and these make no use of.
const CONTEXT: &str = "original_max_position_embeddings";

fn one() -> f64 {
    1.0
}

fn four() -> f64 {
    4.0
}

fn context() -> f64 {
    8192.0
}

fn yarn_context() -> f64 {
    4096.0
}

fn thirty_two() -> f64 {
    32.0
}

/// What stretching makes of a head.
pub struct Stretched {
    /// Positions in which each feature pair turns by one radian.
    pub periods: Vec<f32>,
    /// What the turned features are multiplied by.
    pub amplitude: f32,
}

impl Scaling {
    /// Of a section `key` of `config.json`, without `rope_theta` and `partial_rotary_factor`.
    pub fn parse(key: &str, mut fields: Map<String, Value>) -> Result<Self, LoadError> {
        let mut kind = |name| fields.remove(name).filter(|value| !value.is_null());
        let (old, new) = (kind("type"), kind("rope_type"));
        let kind = match old.or(new) {
            None => "default".to_owned(),
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(unsupported(key, &other.to_string())),
        };
        fields.retain(|key, value| !value.is_null() && !UNUSED.contains(&key.as_str()));
        if matches!(
            kind.as_str(),
            "default" | "mrope" | "dynamic" | "linear" | "proportional"
        ) {
            fields.remove(CONTEXT);
        }
        let (scaling, factor) = match kind.as_str() {
            "default" | "mrope" => {
                let Nothing {} = section(key, &kind, fields)?;
                (Self::None, 1.0)
            }
            // It stretches beyond the context that the model was made for, where nothing is computed.
            "dynamic" => {
                let dynamic: Factor = section(key, &kind, fields)?;
                (Self::None, dynamic.factor)
            }
            "linear" => {
                let linear: Factor = section(key, &kind, fields)?;
                (Self::Linear(linear.factor), linear.factor)
            }
            "llama3" => {
                let llama3: Llama3 = section(key, &kind, fields)?;
                (Self::Llama3(llama3), llama3.factor)
            }
            "yarn" | "deepseek_yarn" => {
                let yarn: Yarn = section(key, &kind, fields)?;
                (Self::Yarn(yarn), yarn.factor)
            }
            "longrope" | "su" => (Self::LongRope(section(key, &kind, fields)?), 1.0),
            "proportional" => {
                let proportional: OptionalFactor = section(key, &kind, fields)?;
                (Self::Proportional(proportional.factor), proportional.factor)
            }
            other => return Err(unsupported(key, other)),
        };
        if !(factor.is_finite() && factor > 0.0) {
            return Err(LoadError::config(
                format!("{key}.factor"),
                format!("{factor} is not positive"),
            ));
        }
        Ok(scaling)
    }

    /// For `dims` features of a head, of which `turned` are turned, in a model for `context` positions.
    pub fn stretch(
        &self,
        dims: i32,
        turned: i32,
        theta: f64,
        context: Option<usize>,
    ) -> Result<Stretched, LoadError> {
        let plain = |pair: i32| theta.powf(f64::from(2 * pair) / f64::from(dims));
        let all = |period: &dyn Fn(i32) -> f64, amplitude: f64| Stretched {
            periods: (0..dims / 2).map(|pair| period(pair) as f32).collect(),
            amplitude: amplitude as f32,
        };
        Ok(match self {
            Self::None => all(&plain, 1.0),
            Self::Linear(factor) => all(&|pair| factor * plain(pair), 1.0),
            Self::Llama3(llama3) => all(&|pair| llama3.period(plain(pair)), 1.0),
            Self::Yarn(yarn) => {
                let ramp = yarn.ramp(f64::from(dims), theta);
                all(
                    &|pair| yarn.period(plain(pair), ramp(pair)),
                    yarn.amplitude(),
                )
            }
            Self::LongRope(long) => {
                if long.long_factor.len() as i32 != dims / 2 {
                    return Err(LoadError::config(
                        "rope_scaling.long_factor",
                        format!("{} factors for {dims} features", long.long_factor.len()),
                    ));
                }
                let factor = |pair: i32| long.long_factor.get(pair as usize).unwrap_or(&1.0);
                all(&|pair| factor(pair) * plain(pair), long.amplitude(context))
            }
            Self::Proportional(factor) => {
                let period = |pair: i32| match pair < turned / 2 {
                    true => factor * plain(pair),
                    false => f64::INFINITY,
                };
                all(&period, 1.0)
            }
        })
    }
}

impl Llama3 {
    fn period(&self, plain: f64) -> f64 {
        let long = self.original_max_position_embeddings / self.low_freq_factor;
        let short = self.original_max_position_embeddings / self.high_freq_factor;
        let wavelength = 2.0 * PI * plain;
        if wavelength > long {
            plain * self.factor
        } else if wavelength > short {
            let smooth = (self.original_max_position_embeddings / wavelength
                - self.low_freq_factor)
                / (self.high_freq_factor - self.low_freq_factor);
            plain / ((1.0 - smooth) / self.factor + smooth)
        } else {
            plain
        }
    }
}

impl Yarn {
    /// How much of each pair is stretched: 0 for those that turn fast, 1 for those that turn slowly.
    fn ramp(&self, dims: f64, theta: f64) -> impl Fn(i32) -> f64 + use<> {
        let correction = |rotations: f64| {
            let positions = self.original_max_position_embeddings / (rotations * 2.0 * PI);
            dims * positions.ln() / (2.0 * theta.ln())
        };
        let low = correction(self.beta_fast).floor().max(0.0);
        let high = correction(self.beta_slow).ceil().min(dims - 1.0);
        let width = if low == high { 0.001 } else { high - low };
        move |pair| ((f64::from(pair) - low) / width).clamp(0.0, 1.0)
    }

    fn period(&self, plain: f64, stretched: f64) -> f64 {
        let long = self.factor * plain;
        long * plain / (long * (1.0 - stretched) + plain * stretched)
    }

    fn amplitude(&self) -> f64 {
        if let Some(stated) = self.attention_factor {
            return stated;
        }
        let scale = |mscale: f64| match self.factor > 1.0 {
            true => 0.1 * mscale * self.factor.ln() + 1.0,
            false => 1.0,
        };
        scale(self.mscale) / scale(self.mscale_all_dim)
    }
}

impl LongRope {
    fn amplitude(&self, context: Option<usize>) -> f64 {
        if let Some(stated) = self.attention_factor {
            return stated;
        }
        let original = self.original_max_position_embeddings;
        let factor = context.map_or(1.0, |context| context as f64 / original);
        match factor > 1.0 {
            true => (1.0 + factor.ln() / original.ln()).sqrt(),
            false => 1.0,
        }
    }
}

fn section<T: DeserializeOwned>(
    key: &str,
    kind: &str,
    fields: Map<String, Value>,
) -> Result<T, LoadError> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| LoadError::config(key, format!("{kind}: {error}")))
}

fn unsupported(key: &str, kind: &str) -> LoadError {
    LoadError::config(
        format!("{key}.rope_type"),
        format!(
            "\"{kind}\" is not supported; supported are \"default\", \"linear\", \"llama3\", \"yarn\", \
             \"longrope\", \"dynamic\", \"proportional\" and \"mrope\""
        ),
    )
}
