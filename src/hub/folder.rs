//! Whether a folder on disk holds a whole model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::HubError;
use super::files;

/// Gives back `path` if it is a folder with a configuration and all its weights.
pub(super) fn check(path: PathBuf) -> Result<PathBuf, HubError> {
    if path.is_file() {
        let format = files::describe(&path.to_string_lossy());
        return Err(HubError::NotAFolder { path, format });
    }
    if !path.is_dir() {
        return Err(HubError::FolderNotFound { path });
    }
    let place = path.display().to_string();
    let present = present(&path)?;
    let present: BTreeSet<&str> = present.iter().map(String::as_str).collect();
    files::check(&place, &present)?;
    for index in present.iter().filter(|name| files::is_index(name)) {
        let file = path.join(index);
        let bytes = std::fs::read(&file).map_err(HubError::io("read", &file))?;
        let shards = files::shards(&bytes).map_err(|error| HubError::Incomplete {
            place: place.clone(),
            missing: format!("{index} is no index of shards: {error}"),
        })?;
        if let Some(shard) = shards.iter().find(|shard| !path.join(shard).is_file()) {
            let missing = format!("{index} names {shard}, which is not there");
            return Err(HubError::Incomplete { place, missing });
        }
    }
    Ok(path)
}

/// The names of the files in a folder. A link whose target is gone is not a file.
fn present(folder: &Path) -> Result<Vec<String>, HubError> {
    let unreadable = || HubError::io("read", folder);
    let mut names = Vec::new();
    for entry in folder.read_dir().map_err(unreadable())? {
        let entry = entry.map_err(unreadable())?;
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn error(path: PathBuf) -> String {
        check(path).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_model_passes() {
        let model = folder(&[("config.json", "{}"), ("model.safetensors", "")]);
        assert_eq!(check(model.path().to_owned()).unwrap(), model.path());
    }

    #[test]
    fn what_is_not_one_says_what_it_is() {
        assert!(error("/no/such/folder".into()).contains("there is no folder /no/such/folder"));
        let model = folder(&[("q.gguf", ""), ("notes.txt", "")]);
        assert!(error(model.path().join("q.gguf")).contains("GGUF"));
        assert!(error(model.path().join("notes.txt")).contains("is a file; mlxcel loads a folder"));
        assert!(error(model.path().to_owned()).contains("GGUF only"));
    }

    #[test]
    fn a_shard_that_is_not_there_is_named() {
        let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
        let model = folder(&[
            ("config.json", "{}"),
            ("model-1.safetensors", ""),
            ("model.safetensors.index.json", index),
        ]);
        assert!(error(model.path().to_owned()).contains("names model-2.safetensors"));
        std::fs::write(model.path().join("model.safetensors.index.json"), "[]").unwrap();
        assert!(error(model.path().to_owned()).contains("no index of shards"));
    }
}
