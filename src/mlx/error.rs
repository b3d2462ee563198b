//! What MLX reports.

use std::panic::Location;

/// An exception of MLX, with the place in our code that asked for the operation.
///
/// A lazy operation checks its shapes and types when it is built; what fails while it runs is
/// reported by the `eval` (or the read) that waits for it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message} (at {location})")]
pub struct MlxError {
    message: String,
    location: &'static Location<'static>,
}

impl MlxError {
    /// An error found on our side of the bridge.
    #[track_caller]
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            location: Location::caller(),
        }
    }

    /// MLX's own words.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Carries an exception over, keeping the caller's place.
pub(super) trait OrMlxError<T> {
    #[track_caller]
    fn or_mlx(self) -> Result<T, MlxError>;
}

impl<T> OrMlxError<T> for Result<T, cxx::Exception> {
    #[track_caller]
    fn or_mlx(self) -> Result<T, MlxError> {
        match self {
            Ok(value) => Ok(value),
            Err(exception) => Err(MlxError::new(exception.what())),
        }
    }
}
