//! Reading a model folder's files within a limit.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use crate::python_json;

use super::TextError;

/// Far above any real tokenizer (the largest today are about 40 MB).
const MAX_BYTES: u64 = 512 << 20;

/// The file's content, or `None` if there is no such file.
///
/// # Errors
/// [`TextError::Read`], or [`TextError::Invalid`] for a file that is too large.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    let read = |source| TextError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(read)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid(
            path,
            format!("larger than {} MiB", MAX_BYTES >> 20),
        ));
    }
    Ok(Some(bytes))
}

/// The file's text, or `None` if there is no such file.
///
/// # Errors
/// As [`read_bytes`], and [`TextError::Invalid`] for a file that is not UTF-8.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, TextError> {
    read_bytes(path)?
        .map(String::from_utf8)
        .transpose()
        .map_err(|error| invalid(path, error))
}

/// The file's JSON, or `None` if there is no such file.
///
/// # Errors
/// As [`read_text`], and [`TextError::Invalid`] for what is not a JSON object.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>, TextError> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    let value: Value =
        python_json::from_slice(text.as_bytes()).map_err(|error| invalid(path, error))?;
    if !value.is_object() {
        return Err(invalid(path, "not a JSON object"));
    }
    Ok(Some(value))
}

pub(super) fn invalid(path: &Path, message: impl ToString) -> TextError {
    TextError::Invalid {
        path: path.to_owned(),
        message: message.to_string(),
    }
}
