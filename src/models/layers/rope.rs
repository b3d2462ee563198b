//! Rotary position embeddings and the ways to stretch them, as in mlx-lm's `rope_utils`.

use serde_json::{Map, Value};

use crate::mlx::fast::{RopeAngles, RopeParams, rope};
use crate::mlx::{Array, MlxError};
use crate::models::LoadError;

use super::rope_scaling::{Scaling, Stretched};

/// The fields of `config.json` that say how positions are encoded.
#[derive(Debug, Clone, Default)]
pub struct RopeConfig {
    /// `rope_theta`; 10,000 where it is absent.
    pub theta: Option<f64>,
    /// `rope_traditional`.
    pub traditional: bool,
    /// `partial_rotary_factor`: the share of a head's features that is turned.
    pub partial: Option<f64>,
    /// `rope_scaling`.
    pub scaling: Option<Map<String, Value>>,
    /// `rope_parameters`, where transformers 5 keeps all of the above.
    pub parameters: Option<Map<String, Value>>,
    /// `max_position_embeddings`.
    pub context: Option<usize>,
}

/// Turns queries and keys by their positions.
pub struct Rope(RopeParams);

impl Rope {
    /// For heads of `head_dim` features.
    pub fn new(head_dim: i32, config: &RopeConfig) -> Result<Self, LoadError> {
        let Resolved {
            theta,
            partial,
            scaling,
        } = config.resolve()?;
        // Proportional ones count the still features among those that they turn.
        let turned = (f64::from(head_dim) * partial) as i32;
        let dims = match scaling {
            Scaling::Proportional(_) => head_dim,
            _ => turned,
        };
        if dims % 2 != 0 || turned % 2 != 0 || turned <= 0 || turned > head_dim {
            let message = format!("{turned} of {head_dim} features cannot be turned in pairs");
            return Err(LoadError::config("head_dim", message));
        }
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
        let (angles, frequencies, amplitude): (_, Vec<f32>, _) = match scaling {
            Scaling::None => (base(1.0), even(1.0), 1.0),
            Scaling::Linear(factor) => (base(1.0 / factor), even(1.0 / factor), 1.0),
            other => {
                let Stretched { periods, amplitude } =
                    other.stretch(dims, turned, theta, config.context)?;
                let frequencies = periods.iter().map(|period| 1.0 / period).collect();
                let periods = Array::from_f32(&periods, &[dims / 2])?;
                (RopeAngles::Periods(periods), frequencies, amplitude)
            }
        };
        Ok(Self(RopeParams {
            dims,
            traditional: config.traditional,
            angles,
            frequencies: Array::from_f32(&frequencies, &[dims / 2])?,
            amplitude,
        }))
    }

    pub(super) fn params(&self) -> &RopeParams {
        &self.0
    }

    /// `[tokens, heads, 1, head_dim]`, token `i` standing at `positions[i]`, to the same.
    #[track_caller]
    pub fn forward(&self, x: &Array, positions: &Array) -> Result<Array, MlxError> {
        rope(x, &self.0, positions)
    }
}

struct Resolved {
    theta: f64,
    partial: f64,
    scaling: Scaling,
}

impl RopeConfig {
    /// What layers of this kind (`"full_attention"`, `"sliding_attention"`) do, where `parameters` say
    /// it for each kind by itself.
    pub fn of_kind(&self, kind: &str) -> Self {
        let own = self.parameters.as_ref().and_then(|all| all.get(kind));
        match own {
            Some(Value::Object(own)) => Self {
                parameters: Some(own.clone()),
                ..self.clone()
            },
            _ => self.clone(),
        }
    }

    /// The same without any stretching.
    pub fn unscaled(&self) -> Self {
        let mut parameters = self.parameters.clone();
        if let Some(parameters) = &mut parameters {
            parameters.retain(|key, _| key == "rope_theta" || key == "partial_rotary_factor");
        }
        Self {
            scaling: None,
            parameters,
            ..self.clone()
        }
    }

    fn resolve(&self) -> Result<Resolved, LoadError> {
        let (mut theta, mut partial) = (self.theta, self.partial);
        let mut scaling = Scaling::None;
        for (key, section) in [
            ("rope_scaling", &self.scaling),
            ("rope_parameters", &self.parameters),
        ] {
            let Some(section) = section else { continue };
            let mut fields = section.clone();
            for (name, target) in [
                ("rope_theta", &mut theta),
                ("partial_rotary_factor", &mut partial),
            ] {
                if let Some(value) = fields.remove(name).filter(|value| !value.is_null()) {
                    let field = format!("{key}.{name}");
                    *target = Some(value.as_f64().ok_or_else(|| not_a_number(&field, &value))?);
                }
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
        Ok(Resolved {
            theta,
            partial: partial.unwrap_or(1.0),
            scaling,
        })
    }
}

fn not_a_number(key: &str, value: &Value) -> LoadError {
    LoadError::config(key, format!("{value} is not a number"))
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
            (json!({"type": "spiral", "factor": 4.0}), "spiral"),
            (json!({"type": "linear"}), "factor"),
            (
                json!({"type": "linear", "factor": 0}),
                "rope_scaling.factor",
            ),
            (json!({"type": "linear", "factor": 2.0, "warp": 1}), "warp"),
            (json!({"rope_type": 3}), "rope_scaling.rope_type"),
            (json!({"rope_theta": "big"}), "rope_scaling.rope_theta"),
            (
                json!({"rope_type": "default", "partial_rotary_factor": 1.5}),
                "features cannot",
            ),
            (json!({"type": "yarn"}), "factor"),
            (
                json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0],
                    "original_max_position_embeddings": 16}),
                "long_factor",
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
