//! Which files make a model. Names only: nothing here touches a disk or the network.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::error::HubError;

/// The file that every model has, and that says what it is.
pub(super) const CONFIG: &str = "config.json";

const INDEX_SUFFIX: &str = ".safetensors.index.json";
const WEIGHTS_SUFFIX: &str = ".safetensors";

/// What the loaders of `models` and `text` read beside the weights.
const METADATA: [&str; 11] = [
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
];

/// The one folder that is part of a model: templates beside the default one.
const TEMPLATES: &str = "additional_chat_templates/";

/// Formats of weights that are not loaded: pickles run code, the others are other engines' own.
const OTHER_FORMATS: [(&str, &str); 9] = [
    (".gguf", "GGUF"),
    (".bin", "PyTorch .bin"),
    (".pt", "PyTorch .pt"),
    (".pth", "PyTorch .pth"),
    (".ckpt", "checkpoint .ckpt"),
    (".h5", "TensorFlow .h5"),
    (".msgpack", "Flax .msgpack"),
    (".onnx", "ONNX"),
    (".npz", "NumPy .npz"),
];

/// The files of a repository that a model needs, out of all its files.
///
/// Beside the templates only the top folder counts: below it repositories keep other engines' copies of
/// the model. Where
/// there are `model*.safetensors` they are the weights; some repositories hold the same weights
/// again under another name (`consolidated.safetensors`), which would double the download.
pub(super) fn wanted<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let (templates, names): (BTreeSet<_>, BTreeSet<_>) =
        names.into_iter().partition(|name| is_template(name));
    let top = names.into_iter().filter(|name| !name.contains(['/', '\\']));
    let (mut weights, others): (BTreeSet<_>, BTreeSet<_>) =
        top.partition(|name| name.ends_with(WEIGHTS_SUFFIX));
    if weights.iter().any(|name| name.starts_with("model")) {
        weights.retain(|name| name.starts_with("model"));
    }
    let metadata = others
        .into_iter()
        .filter(|name| METADATA.contains(name) || name.ends_with(INDEX_SUFFIX));
    weights.extend(metadata);
    weights.extend(templates);
    weights
}

fn is_template(name: &str) -> bool {
    name.strip_prefix(TEMPLATES)
        .and_then(|name| name.strip_suffix(".jinja"))
        .is_some_and(|name| !name.is_empty() && !name.contains(['/', '\\']))
}

/// Whether the files of `place` can be a model at all.
pub(super) fn check(place: &str, names: &BTreeSet<&str>) -> Result<(), HubError> {
    if !names.iter().any(|name| name.ends_with(WEIGHTS_SUFFIX)) {
        let formats = formats(names);
        if !formats.is_empty() {
            return Err(HubError::NoSafetensors {
                place: place.to_owned(),
                formats,
            });
        }
    }
    let has_weights = names.iter().any(|name| name.ends_with(WEIGHTS_SUFFIX));
    let missing = match (names.contains(CONFIG), has_weights) {
        (true, true) => return Ok(()),
        (true, false) => "it has no *.safetensors file",
        (false, true) => "it has no config.json",
        (false, false) => "it has neither config.json nor a *.safetensors file",
    };
    Err(HubError::Incomplete {
        place: place.to_owned(),
        missing: missing.to_owned(),
    })
}

/// What a file that was named as a model is, by its extension.
pub(super) fn describe(name: &str) -> String {
    match OTHER_FORMATS
        .iter()
        .find(|(suffix, _)| name.ends_with(suffix))
    {
        Some((_, format)) => format!("a single file of another format ({format})"),
        None => "a file".to_owned(),
    }
}

fn formats(names: &BTreeSet<&str>) -> String {
    let found = OTHER_FORMATS
        .iter()
        .filter(|(suffix, _)| names.iter().any(|name| name.ends_with(suffix)))
        .map(|(_, format)| *format);
    found.collect::<Vec<_>>().join(", ")
}

/// The index of a sharded checkpoint.
pub(super) fn is_index(name: &str) -> bool {
    name.ends_with(INDEX_SUFFIX)
}

/// The shards that an index (`{"weight_map": {tensor: file}}`) names.
pub(super) fn shards(index: &[u8]) -> Result<BTreeSet<String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index)?;
    Ok(index.weight_map.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_its_top_folders_safetensors_and_metadata() {
        let names = [
            ".gitattributes",
            "README.md",
            "additional_chat_templates/../../escape.jinja",
            "additional_chat_templates/notes.md",
            "additional_chat_templates/tool_use.jinja",
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "modeling_custom.py",
            "onnx/model.onnx",
            "original/model.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
            "../../escape.safetensors",
        ];
        let expected = BTreeSet::from([
            "additional_chat_templates/tool_use.jinja",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
        ]);
        assert_eq!(wanted(names), expected);
        assert_eq!(
            wanted(["weights.safetensors"]),
            BTreeSet::from(["weights.safetensors"])
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |names: &[&str]| {
            check("o/n", &names.iter().copied().collect())
                .unwrap_err()
                .to_string()
        };
        assert!(error(&["config.json"]).contains("no *.safetensors"));
        assert!(error(&["model.safetensors"]).contains("no config.json"));
        assert!(error(&["README.md"]).contains("neither"));
        let formats = error(&["config.json", "pytorch_model.bin", "q4.gguf"]);
        assert!(formats.contains("GGUF, PyTorch .bin"), "{formats}");
        assert!(check("o/n", &BTreeSet::from(["config.json", "a.safetensors"])).is_ok());
    }
}
