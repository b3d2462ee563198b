//! Why a model could not be loaded.

use std::path::PathBuf;

use crate::mlx::MlxError;

/// Why a model could not be loaded: one line that says what, and where.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The path is no folder.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// The folder has no `config.json`.
    #[error("{} has no config.json: it is not a model folder", .0.display())]
    NoConfig(PathBuf),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A JSON file does not hold what it should.
    #[error("{}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        message: String,
    },
    /// `model_type` is none that we know.
    #[error("model type \"{model_type}\" is not supported; supported are: {supported}")]
    UnknownArchitecture {
        /// As `config.json` says.
        model_type: String,
        /// All that are, comma-separated.
        supported: String,
    },
    /// A field of `config.json` has a value that we cannot compute with.
    #[error("config.json: {key}: {message}")]
    Config {
        /// The field, with its path.
        key: String,
        /// What is wrong, or what is supported.
        message: String,
    },
    /// The weights are packed in a way that we cannot read.
    #[error("the weights are quantized as {format}, which is not supported; {remedy}")]
    Quantization {
        /// The format's name.
        format: String,
        /// What to use instead.
        remedy: &'static str,
    },
    /// The cache cannot be kept in the format that was asked for.
    #[error("--kv-bits does not fit this model: {0}")]
    KvFormat(String),
    /// The cache cannot be kept to so many positions.
    #[error("--max-kv-size does not fit this model: {0}")]
    KvSize(String),
    /// An adapter is not one for this model.
    #[error("the adapter in {} cannot be used: {message}", path.display())]
    Adapter {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The folder has no weights in safetensors.
    #[error(
        "{} holds no weights in safetensors: neither model.safetensors, nor \
         model.safetensors.index.json, nor model*.safetensors{}",
        dir.display(),
        other.as_ref().map_or(String::new(), |file| format!("; the format of {file} is not read"))
    )]
    NoWeights {
        /// The model's folder.
        dir: PathBuf,
        /// A file in the folder that holds weights in another format.
        other: Option<String>,
    },
    /// The index names a file that is not there.
    #[error("{} is missing: model.safetensors.index.json names it", .0.display())]
    MissingShard(PathBuf),
    /// A weights file ends too early.
    #[error(
        "{} is cut off: it has {size} bytes, but tensor {tensor} ends at byte {needed}; \
         download it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The first tensor that is not whole.
        tensor: String,
        /// Where the tensor ends.
        needed: u64,
        /// The file's size.
        size: u64,
    },
    /// A weights file is damaged otherwise.
    #[error("{} is not a valid safetensors file: {message}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// No file holds a tensor that the architecture needs.
    #[error("tensor {name} is missing in the weights of {}", dir.display())]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The model's folder.
        dir: PathBuf,
    },
    /// A tensor's shape contradicts `config.json`.
    #[error(
        "tensor {name} in {} has shape {found:?}, but config.json asks for {expected:?}",
        path.display()
    )]
    ShapeMismatch {
        /// The tensor.
        name: String,
        /// Its file.
        path: PathBuf,
        /// What the configuration says.
        expected: Vec<i64>,
        /// What the file says.
        found: Vec<usize>,
    },
    /// A tensor's element type is of no use here.
    #[error("tensor {name} in {} has type {found}; {expected}", path.display())]
    DtypeMismatch {
        /// The tensor.
        name: String,
        /// Its file.
        path: PathBuf,
        /// The file's name for the type.
        found: String,
        /// What is supported there.
        expected: &'static str,
    },
    /// Tensors that the architecture has no place for.
    #[error(
        "the weights hold {count} tensors that {architecture} has no place for, first {first}; \
         config.json does not describe this checkpoint"
    )]
    UnusedTensors {
        /// How many.
        count: usize,
        /// The first by name.
        first: String,
        /// The architecture.
        architecture: String,
    },
    /// The weights do not fit.
    #[error(
        "the weights take {}, but only {} of memory are available; \
         use a smaller or more strongly quantized model, or --force to try all the same",
        human(*needed),
        human(*available)
    )]
    TooLarge {
        /// Bytes that the weights take after conversion.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// MLX failed.
    #[error(transparent)]
    Mlx(#[from] MlxError),
}

impl LoadError {
    /// A field of `config.json` that we cannot compute with.
    pub(crate) fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config {
            key: key.into(),
            message: message.into(),
        }
    }
}

/// Bytes as people say them (decimal units).
fn human(bytes: u64) -> String {
    let (unit, size) = match bytes {
        1_000_000_000.. => ("GB", 1e9),
        1_000_000.. => ("MB", 1e6),
        _ => ("kB", 1e3),
    };
    format!("{:.1} {unit}", bytes as f64 / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_do_not_fit_name_both_numbers_and_the_way_out() {
        let error = LoadError::TooLarge {
            needed: 14_500_000_000,
            available: 800_000_000,
        };
        let text = error.to_string();
        assert!(
            text.contains("14.5 GB") && text.contains("800.0 MB"),
            "{text}"
        );
        assert!(text.contains("--force"), "{text}");
    }
}
