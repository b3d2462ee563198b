//! How `config.json` says that the weights are packed.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::mlx::Affine;

use super::config::ConfigFile;
use super::error::LoadError;

/// Widths that MLX's affine quantization has.
const BITS: [i32; 6] = [2, 3, 4, 5, 6, 8];
/// Its group sizes.
const GROUP_SIZES: [i32; 3] = [32, 64, 128];

const CONVERT: &str = "use a checkpoint quantized by mlx_lm.convert, or an unquantized one";

/// The `quantization` section as mlx-lm writes it: defaults, and overrides for single layers,
/// keyed by the layer's path (`false` leaves a layer dense).
#[derive(Debug, Clone)]
pub struct Quantization {
    /// For layers without an override.
    pub default: Affine,
    overrides: HashMap<String, Option<Affine>>,
}

impl Quantization {
    /// Reads the section; `None` where the checkpoint is dense.
    pub fn read(config: &ConfigFile) -> Result<Option<Self>, LoadError> {
        if let Some(section) = present(config, "quantization") {
            return parse(section, "quantization").map(Some);
        }
        let Some(section) = present(config, "quantization_config") else {
            return Ok(None);
        };
        // mlx-lm writes its own section under this name too; others say how they packed.
        match section.get("quant_method") {
            None => parse(section, "quantization_config").map(Some),
            Some(method) => Err(LoadError::Quantization {
                format: format_name(method, section),
                remedy: CONVERT,
            }),
        }
    }

    /// What `config.json` says of the layer at `path`: `None` where it has no override,
    /// `Some(None)` where it is to stay dense.
    pub fn override_of(&self, path: &str) -> Option<Option<Affine>> {
        self.overrides.get(path).copied()
    }

    /// Keeps the overrides whose layers `name` has a name for, under that name.
    pub fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        let all = std::mem::take(&mut self.overrides);
        let renamed = all
            .into_iter()
            .filter_map(|(path, value)| Some((name(&path)?, value)));
        self.overrides = renamed.collect();
    }

    /// For people, for instance `4-bit, group 64`.
    pub fn describe(&self) -> String {
        let Affine { bits, group_size } = self.default;
        let differs = |o: &Option<Affine>| o.is_some_and(|affine| affine != self.default);
        let mixed = if self.overrides.values().any(differs) {
            ", mixed"
        } else {
            ""
        };
        format!("{bits}-bit, group {group_size}{mixed}")
    }
}

/// `affine` if MLX has such a packing.
pub fn check(affine: Affine, key: &str) -> Result<Affine, LoadError> {
    if BITS.contains(&affine.bits) && GROUP_SIZES.contains(&affine.group_size) {
        return Ok(affine);
    }
    Err(LoadError::config(
        key,
        format!(
            "{} bits in groups of {} are not supported; bits are one of {BITS:?}, group sizes one \
             of {GROUP_SIZES:?}",
            affine.bits, affine.group_size
        ),
    ))
}

fn present<'a>(config: &'a ConfigFile, key: &str) -> Option<&'a Value> {
    config.get(key).filter(|value| !value.is_null())
}

fn format_name(method: &Value, section: &Value) -> String {
    let method = method.as_str().unwrap_or("an unnamed format").to_owned();
    let detail = section.get("format").or_else(|| section.get("quant_algo"));
    match detail.and_then(Value::as_str) {
        Some(detail) => format!("{method} ({detail})"),
        None => method,
    }
}

fn parse(section: &Value, key: &str) -> Result<Quantization, LoadError> {
    let Value::Object(section) = section else {
        return Err(LoadError::config(
            key,
            format!("{section} is not an object"),
        ));
    };
    let default = affine(section, key, None)?;
    let mut overrides = HashMap::new();
    for (path, value) in section {
        let entry = match value {
            Value::Object(fields) => Some(affine(fields, &format!("{key}.{path}"), Some(default))?),
            Value::Bool(true) => Some(default),
            Value::Bool(false) => None,
            // "group_size", "bits" and "mode" are the default itself.
            _ => continue,
        };
        overrides.insert(path.clone(), entry);
    }
    Ok(Quantization { default, overrides })
}

fn affine(
    fields: &Map<String, Value>,
    key: &str,
    default: Option<Affine>,
) -> Result<Affine, LoadError> {
    match fields.get("mode") {
        None | Some(Value::Null) => {}
        Some(Value::String(mode)) if mode == "affine" => {}
        Some(mode) => {
            return Err(LoadError::config(
                format!("{key}.mode"),
                format!("{mode} is not supported; supported is \"affine\""),
            ));
        }
    }
    let number = |name: &str, fallback: Option<i32>| match fields.get(name) {
        None => fallback.ok_or_else(|| LoadError::config(format!("{key}.{name}"), "is missing")),
        Some(value) => value
            .as_i64()
            .and_then(|n| i32::try_from(n).ok())
            .ok_or_else(|| {
                LoadError::config(format!("{key}.{name}"), format!("{value} is not a number"))
            }),
    };
    let parsed = Affine {
        group_size: number("group_size", default.map(|d| d.group_size))?,
        bits: number("bits", default.map(|d| d.bits))?,
    };
    check(parsed, key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::config::tests::config;
    use super::*;

    fn read(value: Value) -> Result<Option<Quantization>, LoadError> {
        Quantization::read(&config(value))
    }

    #[test]
    fn a_dense_checkpoint_has_none() {
        assert!(read(json!({})).unwrap().is_none());
        assert!(read(json!({"quantization": null})).unwrap().is_none());
    }

    #[test]
    fn defaults_and_overrides_are_read() {
        let section = json!({"group_size": 64, "bits": 4, "mode": "affine",
            "model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 6},
            "model.layers.1.mlp.down_proj": {"bits": 8},
            "lm_head": false, "model.embed_tokens": true});
        let quantization = read(json!({"quantization": section, "quantization_config": section}))
            .unwrap()
            .unwrap();
        let (four, six) = (
            Affine {
                group_size: 64,
                bits: 4,
            },
            Affine {
                group_size: 32,
                bits: 6,
            },
        );
        let of = |path| quantization.override_of(path);
        assert_eq!(quantization.default, four);
        assert_eq!(of("model.layers.0.mlp.down_proj"), Some(Some(six)));
        assert_eq!(
            of("model.layers.1.mlp.down_proj"),
            Some(Some(Affine {
                group_size: 64,
                bits: 8
            }))
        );
        assert_eq!(of("lm_head"), Some(None));
        assert_eq!(of("model.embed_tokens"), Some(Some(four)));
        assert_eq!(of("model.layers.0.mlp.up_proj"), None);
        assert_eq!(quantization.describe(), "4-bit, group 64, mixed");
    }

    #[test]
    fn what_mlx_has_no_packing_for_is_named() {
        for (section, name) in [
            (json!({"group_size": 64, "bits": 7}), "7 bits"),
            (json!({"group_size": 48, "bits": 4}), "groups of 48"),
            (json!({"bits": 4}), "quantization.group_size"),
            (
                json!({"group_size": 32, "bits": 4, "mode": "mxfp4"}),
                "mxfp4",
            ),
            (
                json!({"group_size": 64, "bits": 4, "lm_head": {"bits": 4, "mode": "nvfp4"}}),
                "quantization.lm_head.mode",
            ),
        ] {
            let error = read(json!({"quantization": section}))
                .unwrap_err()
                .to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn formats_of_others_are_named() {
        for (section, name) in [
            (json!({"quant_method": "gptq", "bits": 4}), "gptq"),
            (
                json!({"quant_method": "awq", "bits": 4, "group_size": 128}),
                "awq",
            ),
            (json!({"quant_method": "fp8"}), "fp8"),
            (
                json!({"quant_method": "compressed-tensors", "format": "float-quantized"}),
                "compressed-tensors (float-quantized)",
            ),
        ] {
            let error = read(json!({"quantization_config": section}))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(name) && error.contains("mlx_lm.convert"),
                "{error}"
            );
        }
    }
}
