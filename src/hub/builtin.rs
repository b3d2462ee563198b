//! The model that comes with the executable.

use std::path::{Path, PathBuf};

use super::error::HubError;

/// The name of the built-in model.
pub const BUILTIN_MODEL: &str = "mlxcel-tiny";

/// The built-in model's folder: in the Python package that holds the executable, or in the checkout
/// whose `target/` does.
pub(super) fn find(executable: &Path) -> Result<PathBuf, HubError> {
    let mut looked = Vec::new();
    let folder = executable.parent().unwrap_or(Path::new("."));
    let package = folder
        .parent()
        .unwrap_or(folder)
        .join("_models")
        .join(BUILTIN_MODEL);
    let checkouts = folder
        .ancestors()
        .skip(1)
        .map(|root| root.join("tiny-model").join(BUILTIN_MODEL));
    for candidate in std::iter::once(package).chain(checkouts) {
        if candidate.join("config.json").is_file() {
            return Ok(candidate);
        }
        looked.push(candidate);
    }
    Err(HubError::BuiltInMissing { looked })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(model: &Path) {
        std::fs::create_dir_all(model).unwrap();
        std::fs::write(model.join("config.json"), "{}").unwrap();
    }

    #[test]
    fn it_is_found_in_a_package_and_in_a_checkout() {
        let root = tempfile::tempdir().unwrap();
        let package = root.path().join("site-packages/mlxcel/_models/mlxcel-tiny");
        put(&package);
        assert_eq!(
            find(&root.path().join("site-packages/mlxcel/bin/mlxcel")).unwrap(),
            package
        );

        let checkout = root.path().join("checkout");
        let model = checkout.join("tiny-model/mlxcel-tiny");
        put(&model);
        for binary in [
            "target/release/mlxcel",
            "target/debug/deps/hub-1f",
            "target/x/release/m",
        ] {
            assert_eq!(find(&checkout.join(binary)).unwrap(), model, "{binary}");
        }
    }

    #[test]
    fn where_it_was_looked_for_is_told() {
        let error = find(Path::new("/opt/p/bin/mlxcel"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/opt/p/_models/mlxcel-tiny"), "{error}");
        assert!(error.contains("/opt/p/tiny-model/mlxcel-tiny"), "{error}");
    }
}
