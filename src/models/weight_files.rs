//! Which files of a model's folder hold its weights.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::error::LoadError;

const INDEX: &str = "model.safetensors.index.json";

/// How files end that hold weights in formats we do not read.
const FOREIGN: [&str; 5] = [".gguf", ".bin", ".pt", ".pth", ".npz"];

/// Those that the index names, else `model.safetensors`, else every `model*.safetensors`.
pub fn find(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let index = dir.join(INDEX);
    if index.is_file() {
        return indexed_files(dir, &index);
    }
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let entries = dir.read_dir().map_err(|source| LoadError::Io {
        path: dir.to_owned(),
        source,
    })?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let files: Vec<PathBuf> = names
        .iter()
        .filter(|name| name.starts_with("model") && name.ends_with(".safetensors"))
        .map(|name| dir.join(name))
        .collect();
    if files.is_empty() {
        let foreign = |name: &String| FOREIGN.iter().any(|suffix| name.ends_with(suffix));
        return Err(LoadError::NoWeights {
            dir: dir.to_owned(),
            other: names.into_iter().find(foreign),
        });
    }
    Ok(files)
}

/// The files that the index names, all of them there.
fn indexed_files(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, LoadError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let json = |message: String| LoadError::Json {
        path: index.to_owned(),
        message,
    };
    let text = std::fs::read(index).map_err(|source| LoadError::Io {
        path: index.to_owned(),
        source,
    })?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| json(error.to_string()))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    if names.is_empty() {
        return Err(json("weight_map is empty".to_owned()));
    }
    names
        .into_iter()
        .map(|name| {
            if Path::new(name)
                .file_name()
                .is_none_or(|file| file != name.as_str())
            {
                return Err(json(format!(
                    "{name:?} is not the name of a file in this folder"
                )));
            }
            let path = dir.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(LoadError::MissingShard(path))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A folder of empty files.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        dir
    }

    fn write_index(dir: &Path, second: &str) {
        let index = json!({"weight_map": {"a": "one.safetensors", "b": second, "c": second}});
        std::fs::write(dir.join(INDEX), index.to_string()).unwrap();
    }

    fn error(dir: &Path) -> String {
        find(dir).unwrap_err().to_string()
    }

    #[test]
    fn the_index_decides_then_the_single_file_then_the_names() {
        let names = |dir: &Path| -> Vec<String> {
            let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            find(dir).unwrap().iter().map(name).collect()
        };
        let shards = ["model-2.safetensors", "model-1.safetensors"];
        let dir = folder(&[&shards[..], &["other.safetensors", "model.gguf"]].concat());
        assert_eq!(
            names(dir.path()),
            ["model-1.safetensors", "model-2.safetensors"]
        );
        std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
        assert_eq!(names(dir.path()), ["model.safetensors"]);
        std::fs::write(dir.path().join("one.safetensors"), "").unwrap();
        write_index(dir.path(), "other.safetensors");
        assert_eq!(names(dir.path()), ["one.safetensors", "other.safetensors"]);
    }

    #[test]
    fn a_missing_shard_is_named() {
        let dir = folder(&["one.safetensors"]);
        write_index(dir.path(), "two.safetensors");
        let error = error(dir.path());
        assert!(error.contains("two.safetensors is missing"), "{error}");
    }

    #[test]
    fn an_index_cannot_point_out_of_the_folder() {
        let dir = folder(&["one.safetensors", "two.safetensors"]);
        for name in ["../two.safetensors", "/etc/passwd", "..", ""] {
            write_index(dir.path(), name);
            let error = error(dir.path());
            assert!(error.contains("not the name of a file"), "{name}: {error}");
        }
        std::fs::write(dir.path().join(INDEX), "[]").unwrap();
        assert!(error(dir.path()).contains(INDEX));
    }

    #[test]
    fn a_folder_without_weights_says_so() {
        let dir = folder(&[]);
        assert!(error(dir.path()).contains("holds no weights"));
        std::fs::write(dir.path().join("model.Q4_0.gguf"), "GGUF").unwrap();
        let error = error(dir.path());
        assert!(error.contains("model.Q4_0.gguf is not read"), "{error}");
    }
}
