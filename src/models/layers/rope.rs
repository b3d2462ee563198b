//! Rotary position embeddings and the ways to stretch them, as in mlx-lm's `rope_utils`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::fast::{RopeAngles, RopeParams, rope};
use crate::mlx::{Array, MlxError};
use crate::models::LoadError;

/// The fields of `config.json` that say how positions are encoded.
#[derive(Debug, Clone, Default)]
pub struct RopeConfig {
    /// `rope_theta`; 10,000 where it is absent.
    pub theta: Option<f64>,
    /// `rope_traditional`.
    pub traditional: bool,
    /// `rope_scaling`.
    pub scaling: Option<Map<String, Value>>,
    /// `rope_parameters`, where transformers 5 keeps both of the above.
    pub parameters: Option<Map<String, Value>>,
}

/// How far the positions are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scaling {
    None,
    /// Every position is divided by the factor.
    Linear(f64),
    Llama3(Llama3),
}

/// Llama 3.1's: long wavelengths are stretched, short ones are not, those between are blended.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Llama3 {
    factor: f64,
    #[serde(default = "one")]
    low_freq_factor: f64,
    #[serde(default = "four")]
    high_freq_factor: f64,
    #[serde(default = "context")]
    original_max_position_embeddings: f64,
}

fn one() -> f64 {
    1.0
}

fn four() -> f64 {
    4.0
}

fn context() -> f64 {
    8192.0
}

/// Turns queries and keys by their positions.
pub struct Rope(RopeParams);

impl Rope {
    /// For heads of `dims` features.
    pub fn new(dims: i32, config: &RopeConfig) -> Result<Self, LoadError> {
        if dims % 2 != 0 {
            return Err(LoadError::config("head_dim", format!("{dims} is odd")));
        }
        let (theta, scaling) = config.resolve()?;
        let base = |scale: f64| RopeAngles::Base {
            base: theta as f32,
            scale: scale as f32,
        };
        // In float32 and by the exponential, as MLX has it: at a position of thousands the last bit
        // of a frequency shows.
        let step = (theta as f32).ln() / (dims / 2) as f32;
        let even = |scale: f64| {
            let frequency = |i: i32| scale as f32 * (-(i as f32) * step).exp();
            (0..dims / 2).map(frequency).collect()
        };
        let (angles, frequencies): (_, Vec<f32>) = match scaling {
            Scaling::None => (base(1.0), even(1.0)),
            Scaling::Linear(factor) => (base(1.0 / factor), even(1.0 / factor)),
            Scaling::Llama3(llama3) => {
                let periods = llama3.periods(dims, theta);
                let frequencies = periods.iter().map(|period| 1.0 / period).collect();
                let periods = Array::from_f32(&periods, &[dims / 2])?;
                (RopeAngles::Periods(periods), frequencies)
            }
        };
        Ok(Self(RopeParams {
            dims,
            traditional: config.traditional,
            angles,
            frequencies: Array::from_f32(&frequencies, &[dims / 2])?,
        }))
    }

    /// `[tokens, heads, 1, head_dim]`, token `i` standing at `positions[i]`, to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array, positions: &Array) -> Result<Array, MlxError> {
        rope(x, &self.0, positions)
    }
}

impl RopeConfig {
    fn resolve(&self) -> Result<(f64, Scaling), LoadError> {
        let mut theta = self.theta;
        let mut scaling = Scaling::None;
        for (key, section) in [
            ("rope_scaling", &self.scaling),
            ("rope_parameters", &self.parameters),
        ] {
            let Some(section) = section else { continue };
            let mut fields = section.clone();
            if let Some(value) = fields.remove("rope_theta") {
                let field = format!("{key}.rope_theta");
                theta = Some(value.as_f64().ok_or_else(|| not_a_number(&field, &value))?);
            }
            // Older files hold `rope_scaling`, newer ones `rope_parameters`; some both, equal.
            let parsed = Scaling::parse(key, fields)?;
            if parsed != Scaling::None {
                scaling = parsed;
            }
        }
        let theta = theta.unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(LoadError::config(
                "rope_theta",
                format!("{theta} is not positive"),
            ));
        }
        Ok((theta, scaling))
    }
}

impl Scaling {
    fn parse(key: &str, mut fields: Map<String, Value>) -> Result<Self, LoadError> {
        let (old, new) = (fields.remove("type"), fields.remove("rope_type"));
        let kind = match old.or(new) {
            None | Some(Value::Null) => "default".to_owned(),
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(unsupported(key, &other.to_string())),
        };
        fields.retain(|_, value| !value.is_null());
        let section = |what: serde_json::Error| LoadError::config(key, format!("{kind}: {what}"));
        let parsed = match kind.as_str() {
            "default" => {
                reject_partial(key, &fields)?;
                Self::None
            }
            "linear" => {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Linear {
                    factor: f64,
                }
                let linear: Linear =
                    serde_json::from_value(Value::Object(fields)).map_err(section)?;
                Self::Linear(linear.factor)
            }
            "llama3" => {
                let llama3 = serde_json::from_value(Value::Object(fields)).map_err(section)?;
                Self::Llama3(llama3)
            }
            other => return Err(unsupported(key, other)),
        };
        if let Self::Linear(factor) | Self::Llama3(Llama3 { factor, .. }) = parsed
            && !(factor.is_finite() && factor > 0.0)
        {
            return Err(LoadError::config(
                format!("{key}.factor"),
                format!("{factor} is not positive"),
            ));
        }
        Ok(parsed)
    }
}

/// Rotating only some of the features would be another arithmetic.
fn reject_partial(key: &str, fields: &Map<String, Value>) -> Result<(), LoadError> {
    match fields.get("partial_rotary_factor") {
        Some(value) if value.as_f64() != Some(1.0) => Err(LoadError::config(
            format!("{key}.partial_rotary_factor"),
            format!("{value} is not supported"),
        )),
        _ => Ok(()),
    }
}

fn not_a_number(key: &str, value: &Value) -> LoadError {
    LoadError::config(key, format!("{value} is not a number"))
}

fn unsupported(key: &str, kind: &str) -> LoadError {
    LoadError::config(
        format!("{key}.rope_type"),
        format!("\"{kind}\" is not supported; supported are \"default\", \"linear\", \"llama3\""),
    )
}

impl Llama3 {
    /// Positions in which each feature pair turns by one radian.
    fn periods(&self, dims: i32, theta: f64) -> Vec<f32> {
        let long = self.original_max_position_embeddings / self.low_freq_factor;
        let short = self.original_max_position_embeddings / self.high_freq_factor;
        let period = |pair: i32| {
            let period = theta.powf(f64::from(2 * pair) / f64::from(dims));
            let wavelength = 2.0 * std::f64::consts::PI * period;
            if wavelength > long {
                period * self.factor
            } else if wavelength > short {
                let smooth = (self.original_max_position_embeddings / wavelength
                    - self.low_freq_factor)
                    / (self.high_freq_factor - self.low_freq_factor);
                period / ((1.0 - smooth) / self.factor + smooth)
            } else {
                period
            }
        };
        (0..dims / 2).map(|pair| period(pair) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Option<Map<String, Value>> {
        value.as_object().cloned()
    }

    /// One head of the features 1 to 8 at position 37.
    fn turned(config: &RopeConfig) -> Vec<f32> {
        let x: Vec<f32> = (1..=8u8).map(f32::from).collect();
        let x = Array::from_f32(&x, &[1, 1, 1, 8]).unwrap();
        Rope::new(8, config)
            .unwrap()
            .forward(&x, &Array::from_i32(&[37], &[1]).unwrap())
            .unwrap()
            .to_vec_f32()
            .unwrap()
    }

    #[track_caller]
    fn assert_close(found: &[f32], expected: &[f32]) {
        let close = found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(close, "{found:?} is not {expected:?}");
    }

    fn llama3() -> Value {
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64})
    }

    /// The values are those of mlx-lm's `initialize_rope` for the same settings.
    #[test]
    fn features_turn_as_in_mlx_lm() {
        assert_close(
            &turned(&RopeConfig::default()),
            &[
                3.9831, 1.48282, 0.26567, 3.70133, 3.18353, -6.14827, 7.61114, 8.14249,
            ],
        );
        assert_close(
            &turned(&RopeConfig {
                traditional: true,
                ..RopeConfig::default()
            }),
            &[
                2.05249, 0.88729, -0.42495, -4.98191, 2.49194, 7.40204, 6.69928, 8.25347,
            ],
        );
        let scaling = object(json!({"type": "linear", "factor": 4.0}));
        assert_close(
            &turned(&RopeConfig {
                scaling,
                ..RopeConfig::default()
            }),
            &[
                -1.85421, -3.58806, 2.3406, 3.92583, -4.74994, 5.20825, 7.24718, 8.03666,
            ],
        );
        let by_llama3 = [
            3.9831, 0.93151, 2.95415, 3.99803, 3.18353, 6.25558, 7.01947, 8.00098,
        ];
        let theta = Some(500_000.0);
        let scaling = object(llama3());
        assert_close(
            &turned(&RopeConfig {
                theta,
                scaling,
                ..RopeConfig::default()
            }),
            &by_llama3,
        );
        let mut parameters = llama3();
        parameters["rope_theta"] = json!(500_000.0);
        let parameters = object(parameters);
        assert_close(
            &turned(&RopeConfig {
                parameters,
                ..RopeConfig::default()
            }),
            &by_llama3,
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (scaling, name) in [
            (json!({"type": "yarn", "factor": 4.0}), "yarn"),
            (json!({"type": "linear"}), "factor"),
            (
                json!({"type": "linear", "factor": 0}),
                "rope_scaling.factor",
            ),
            (json!({"type": "linear", "factor": 2.0, "warp": 1}), "warp"),
            (json!({"rope_type": 3}), "rope_scaling.rope_type"),
            (json!({"rope_theta": "big"}), "rope_scaling.rope_theta"),
            (
                json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
                "partial_rotary",
            ),
        ] {
            let scaling = object(scaling);
            let error = Rope::new(
                8,
                &RopeConfig {
                    scaling,
                    ..RopeConfig::default()
                },
            );
            let error = error.err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(Rope::new(7, &RopeConfig::default()).is_err());
        let theta = Some(-1.0);
        assert!(
            Rope::new(
                8,
                &RopeConfig {
                    theta,
                    ..RopeConfig::default()
                }
            )
            .is_err()
        );
    }
}
