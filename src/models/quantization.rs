//! How `config.json` says that the weights are packed.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::mlx::{Mode, Packing};

use super::config::ConfigFile;
use super::error::LoadError;

/// Widths that MLX's affine quantization has.
const BITS: [i32; 6] = [2, 3, 4, 5, 6, 8];
/// Its group sizes.
const GROUP_SIZES: [i32; 3] = [32, 64, 128];

/// Where NVIDIA's exporter says how it packed.
const MODEL_OPT: &str = "hf_quant_config.json";

/// What `mlx.nn.quantize` takes where nothing is said.
const USUAL: Packing = Packing {
    mode: Mode::Affine,
    group_size: 64,
    bits: 4,
};

const CONVERT: &str = "use a checkpoint quantized by mlx_lm.convert, or an unquantized one";

/// The `quantization` section as mlx-lm writes it: defaults, and overrides for single layers,
/// keyed by the layer's path (`false` leaves a layer dense).
#[derive(Debug, Clone)]
pub struct Quantization {
    /// For layers without an override.
    pub default: Packing,
    overrides: HashMap<String, Option<Packing>>,
}

impl Quantization {
    /// Reads the section; `None` where the checkpoint is dense.
    pub fn read(config: &ConfigFile) -> Result<Option<Self>, LoadError> {
        if let Some(section) = present(config, "quantization") {
            return parse(section, "quantization").map(Some);
        }
        let Some(section) = present(config, "quantization_config") else {
            if config.has_beside_it(MODEL_OPT) {
                return Err(LoadError::Quantization {
                    format: format!("NVIDIA ModelOpt ({MODEL_OPT})"),
                    remedy: CONVERT,
                });
            }
            return Ok(None);
        };
        // mlx-lm writes its own section under this name too; others say how they packed.
        match section.get("quant_method") {
            None => parse(section, "quantization_config").map(Some),
            // transformers' names of what MLX has as well.
            Some(Value::String(method)) if matches!(method.as_str(), "mxfp4" | "mxfp8") => {
                Ok(Mode::named(method)
                    .and_then(Mode::packing)
                    .map(|default| Self {
                        default,
                        overrides: HashMap::new(),
                    }))
            }
            Some(method) => Err(LoadError::Quantization {
                format: format_name(method, section),
                remedy: CONVERT,
            }),
        }
    }

    /// What `config.json` says of the layer at `path`: `None` where it has no override,
    /// `Some(None)` where it is to stay dense.
    pub fn override_of(&self, path: &str) -> Option<Option<Packing>> {
        self.overrides.get(path).copied()
    }

    /// For people, for instance `4-bit, group 64`.
    pub fn describe(&self) -> String {
        let Packing {
            mode,
            bits,
            group_size,
        } = self.default;
        let differs = |o: &Option<Packing>| o.is_some_and(|packing| packing != self.default);
        let mixed = if self.overrides.values().any(differs) {
            ", mixed"
        } else {
            ""
        };
        match mode {
            Mode::Affine => format!("{bits}-bit, group {group_size}{mixed}"),
            _ => format!("{}{mixed}", mode.name()),
        }
    }
}

/// `packing` if MLX has it.
pub fn check(packing: Packing, key: &str) -> Result<Packing, LoadError> {
    let Packing {
        mode,
        bits,
        group_size,
    } = packing;
    let there = match mode.packing() {
        Some(only) => packing == only,
        None => BITS.contains(&bits) && GROUP_SIZES.contains(&group_size),
    };
    if there {
        return Ok(packing);
    }
    let supported = match mode.packing() {
        Some(only) => format!(
            "{} has {} in groups of {}",
            mode.name(),
            only.bits,
            only.group_size
        ),
        None => format!("bits are one of {BITS:?}, group sizes one of {GROUP_SIZES:?}"),
    };
    Err(LoadError::config(
        key,
        format!("{bits} bits in groups of {group_size} are not supported; {supported}"),
    ))
}

/// The mode of floating-point numbers with this width and group, of those that there are.
pub fn of_floats(bits: i32, group_size: i32) -> Option<Packing> {
    [Mode::Mxfp4, Mode::Nvfp4, Mode::Mxfp8]
        .into_iter()
        .filter_map(Mode::packing)
        .find(|packing| (packing.bits, packing.group_size) == (bits, group_size))
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
    let default = packing(section, key, None)?;
    let mut overrides = HashMap::new();
    for (path, value) in section {
        let entry = match value {
            Value::Object(fields) => {
                Some(packing(fields, &format!("{key}.{path}"), Some(default))?)
            }
            Value::Bool(true) => Some(default),
            Value::Bool(false) => None,
            // "group_size", "bits" and "mode" are the default itself.
            _ => continue,
        };
        overrides.insert(path.clone(), entry);
    }
    Ok(Quantization { default, overrides })
}

fn packing(
    fields: &Map<String, Value>,
    key: &str,
    default: Option<Packing>,
) -> Result<Packing, LoadError> {
    let mode = match fields.get("mode") {
        // As in mlx-lm: an override without a mode is affine.
        None | Some(Value::Null) => Mode::Affine,
        Some(value) => value.as_str().and_then(Mode::named).ok_or_else(|| {
            LoadError::config(
                format!("{key}.mode"),
                format!("{value} is none of affine, mxfp4, nvfp4, mxfp8"),
            )
        })?,
    };
    let number = |name: &str, fallback: Option<i32>| match fields.get(name) {
        None | Some(Value::Null) => {
            fallback.ok_or_else(|| LoadError::config(format!("{key}.{name}"), "is missing"))
        }
        Some(value) => value
            .as_i64()
            .and_then(|n| i32::try_from(n).ok())
            .ok_or_else(|| {
                LoadError::config(format!("{key}.{name}"), format!("{value} is not a number"))
            }),
    };
    let usual = mode.packing().or(default.map(|default| match default.mode {
        Mode::Affine => default,
        _ => USUAL,
    }));
    let parsed = Packing {
        mode,
        group_size: number("group_size", usual.map(|d| d.group_size))?,
        bits: number("bits", usual.map(|d| d.bits))?,
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
        let (four, six) = (Packing::affine(4, 64), Packing::affine(6, 32));
        let of = |path| quantization.override_of(path);
        assert_eq!(quantization.default, four);
        assert_eq!(of("model.layers.0.mlp.down_proj"), Some(Some(six)));
        assert_eq!(
            of("model.layers.1.mlp.down_proj"),
            Some(Some(Packing::affine(8, 64)))
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
                json!({"group_size": 64, "bits": 4, "mode": "mxfp4"}),
                "mxfp4 has 4 in groups of 32",
            ),
            (
                json!({"group_size": 64, "bits": 4, "lm_head": {"bits": 4, "mode": "fp4"}}),
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
    fn modes_of_floating_point_numbers_have_one_packing_each() {
        for (mode, group_size, bits) in [("mxfp4", 32, 4), ("nvfp4", 16, 4), ("mxfp8", 32, 8)] {
            let section = json!({"group_size": group_size, "bits": bits, "mode": mode,
                "lm_head": {"group_size": 64, "bits": 8}, "other": {"mode": mode}});
            let quantization = read(json!({"quantization": section})).unwrap().unwrap();
            let packing = quantization.default;
            assert_eq!(
                (packing.mode.name(), packing.group_size, packing.bits),
                (mode, group_size, bits)
            );
            assert_eq!(
                quantization.override_of("lm_head"),
                Some(Some(Packing::affine(8, 64)))
            );
            assert_eq!(quantization.override_of("other"), Some(Some(packing)));
            assert_eq!(quantization.describe(), format!("{mode}, mixed"));
        }
    }

    #[test]
    fn transformers_names_of_these_modes_are_understood() {
        let section = json!({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]});
        let quantization = read(json!({"quantization_config": section}))
            .unwrap()
            .unwrap();
        assert_eq!(quantization.describe(), "mxfp4");
    }

    #[test]
    fn formats_of_others_are_named() {
        for (section, name) in [
            (json!({"quant_method": "gptq", "bits": 4}), "gptq"),
            (
                json!({"quant_method": "awq", "bits": 4, "group_size": 128}),
                "awq",
            ),
            (
                json!({"quant_method": "fp8", "weight_block_size": [128, 128]}),
                "fp8",
            ),
            (
                json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
                "bitsandbytes",
            ),
            (
                json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}),
                "modelopt (NVFP4)",
            ),
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
