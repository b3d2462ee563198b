//! What a model argument means.

use std::fmt;
use std::path::{Path, PathBuf};

use super::builtin::BUILTIN_MODEL;
use super::error::HubError;
use super::options::expand_home;

/// What a model argument stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// A path, whether or not something is there.
    Folder(PathBuf),
    /// The model that comes with the executable.
    BuiltIn,
    /// A repository of the hub.
    Repo(RepoId),
}

/// A repository and a revision of it; `Display` gives back `owner/name[@revision]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId {
    /// The user or organization.
    pub owner: String,
    /// The repository's own name.
    pub name: String,
    /// A branch, tag or commit; `None` for the branch `main`.
    pub revision: Option<String>,
}

impl RepoId {
    /// `owner/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The revision, `main` where none is named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        self.revision
            .iter()
            .try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// Reads a model argument.
///
/// `mlxcel-tiny` is always the built-in model (a folder of that name is `./mlxcel-tiny`). Else a
/// folder that `exists` wins over a repository of the same name, as it does in transformers.
pub(super) fn parse(
    model: &str,
    home: Option<&Path>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<ModelRef, HubError> {
    let invalid = |reason: &str| HubError::InvalidModel {
        model: model.to_owned(),
        reason: reason.to_owned(),
    };
    if model == BUILTIN_MODEL {
        return Ok(ModelRef::BuiltIn);
    }
    if model.trim().is_empty() {
        return Err(invalid("it is empty"));
    }
    if model.contains('\0') {
        return Err(invalid("it contains a NUL character"));
    }
    if model.contains("://") {
        return Err(invalid("it is a URL"));
    }
    let (id, revision) = match model.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (model, None),
    };
    let path = expand_home(Path::new(model), home);
    let path_like = model.starts_with(['/', '.', '~'])
        || id.matches('/').count() > 1
        || model.contains('\\')
        || path.is_absolute();
    if path_like || exists(&path) {
        return Ok(ModelRef::Folder(path));
    }

    let Some((owner, name)) = id.split_once('/') else {
        return Err(invalid(
            "there is no such folder, and a repository has an owner",
        ));
    };
    for (part, what) in [(owner, "owner"), (name, "name")] {
        if let Err(reason) = check_part(part) {
            return Err(invalid(&format!("its {what} {reason}")));
        }
    }
    if let Some(Err(reason)) = revision.map(check_revision) {
        return Err(invalid(&format!("its revision {reason}")));
    }
    Ok(ModelRef::Repo(RepoId {
        owner: owner.to_owned(),
        name: name.to_owned(),
        revision: revision.map(str::to_owned),
    }))
}

/// The hub's rules for an owner or a name, as `validate_repo_id` of `huggingface_hub` has them.
fn check_part(part: &str) -> Result<(), &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if part.is_empty() {
        Err("is empty")
    } else if part.len() > 96 {
        Err("is longer than 96 characters")
    } else if !part.chars().all(allowed) {
        Err("may have letters, digits, `-`, `_` and `.` only")
    } else if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
        Err("may not start or end with `-` or `.`")
    } else if part.contains("--") || part.contains("..") {
        Err("may not contain `--` or `..`")
    } else if part.ends_with(".git") {
        Err("may not end with `.git`")
    } else {
        Ok(())
    }
}

/// Git's rules for the name of a reference. They also keep `refs/<revision>` inside its folder.
fn check_revision(revision: &str) -> Result<(), &'static str> {
    if revision.is_empty() {
        return Err("is empty");
    }
    if revision.len() > 255 {
        return Err("is longer than 255 characters");
    }
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c);
    if revision.contains(forbidden) || revision.contains("@{") {
        return Err("has characters that no branch, tag or commit has");
    }
    let bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    if revision.split('/').any(bad) || revision.contains("..") || revision.ends_with('.') {
        return Err("is not the name of a branch, tag or commit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(model: &str) -> Result<ModelRef, HubError> {
        let exists = |path: &Path| {
            ["here", "o/here", "mlxcel-tiny"]
                .map(Path::new)
                .contains(&path)
        };
        parse(model, Some(Path::new("/home/u")), &exists)
    }

    fn repo(model: &str) -> RepoId {
        match parsed(model) {
            Ok(ModelRef::Repo(repo)) => repo,
            other => panic!("{model}: {other:?}"),
        }
    }

    #[test]
    fn the_built_in_name_wins_over_a_folder() {
        assert_eq!(parsed("mlxcel-tiny").unwrap(), ModelRef::BuiltIn);
        assert_eq!(
            parsed("./mlxcel-tiny").unwrap(),
            ModelRef::Folder("./mlxcel-tiny".into())
        );
    }

    #[test]
    fn paths_are_folders_whether_they_exist_or_not() {
        for path in [
            "/m",
            "./m",
            "../m",
            ".",
            "a/b/c",
            "owner/name/",
            "here",
            "o/here",
        ] {
            assert_eq!(
                parsed(path).unwrap(),
                ModelRef::Folder(path.into()),
                "{path}"
            );
        }
        assert_eq!(parsed("~/m").unwrap(), ModelRef::Folder("/home/u/m".into()));
        assert_eq!(parsed("~").unwrap(), ModelRef::Folder("/home/u".into()));
    }

    #[test]
    fn repositories_with_and_without_a_revision() {
        let plain = repo("mlx-community/Llama-3.2-1B_4bit");
        assert_eq!(plain.id(), "mlx-community/Llama-3.2-1B_4bit");
        assert_eq!(
            (plain.revision(), plain.revision.as_deref()),
            ("main", None)
        );
        let pull = repo("o/n@refs/pr/1");
        assert_eq!((pull.id().as_str(), pull.revision()), ("o/n", "refs/pr/1"));
        assert_eq!(pull.to_string(), "o/n@refs/pr/1");
    }

    #[test]
    fn what_is_none_of_them_says_why() {
        for (model, reason) in [
            ("", "empty"),
            ("  ", "empty"),
            ("gpt2", "no such folder"),
            ("https://huggingface.co/o/n", "URL"),
            ("o/", "name is empty"),
            ("o/n@", "revision is empty"),
            ("o/a b", "letters"),
            ("o/n--m", "`--`"),
            ("o/-n", "start or end"),
            ("o/n.git", ".git"),
            ("o/n@../../x", "revision"),
            ("o/n@a..b", "revision"),
            ("o/n@/x", "revision"),
            ("o/n@a b", "revision"),
            ("o/n\0", "NUL"),
        ] {
            let error = parsed(model).unwrap_err().to_string();
            assert!(error.contains(reason), "{model}: {error}");
            assert!(error.contains("owner/name@revision"), "{error}");
        }
    }
}
