//! Where a model keeps its templates.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::TemplateError;
use crate::text::TextError;
use crate::text::files::{invalid, read_json, read_text};
use crate::text::special_tokens::TokenizerConfig;

/// The templates of a model, at least one.
pub(super) struct Sources(Vec<Source>);

pub(super) struct Source {
    pub name: String,
    pub text: String,
    /// The file it was read from.
    pub path: PathBuf,
}

impl Sources {
    pub(super) fn load(dir: &Path, config: &TokenizerConfig) -> Result<Option<Self>, TextError> {
        let mut sources = jinja_files(dir)?;
        if sources.is_empty() {
            let path = dir.join("tokenizer_config.json");
            sources = from_json(&path, config.get("chat_template"))?;
        }
        if sources.is_empty() {
            // Of processors, which models with images have: it is often the only place.
            let path = dir.join("chat_template.json");
            let json = read_json(&path)?.unwrap_or_default();
            sources = from_json(&path, json.get("chat_template"))?;
        }
        Ok(if sources.is_empty() {
            None
        } else {
            Some(Self(sources))
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// `tool_use` for a request with tools, if there is one, otherwise `default`.
    pub(super) fn choose(&self, with_tools: bool) -> Result<&Source, TemplateError> {
        let named = |name: &str| self.0.iter().find(|source| source.name == name);
        let tool_use = if with_tools { named("tool_use") } else { None };
        tool_use.or_else(|| named("default")).ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|source| source.name.as_str()).collect();
            TemplateError::Input(format!(
                "the model has no default chat template, only {}",
                names.join(", ")
            ))
        })
    }
}

fn jinja_files(dir: &Path) -> Result<Vec<Source>, TextError> {
    let mut sources = Vec::new();
    let path = dir.join("chat_template.jinja");
    if let Some(text) = read_text(&path)? {
        sources.push(Source {
            name: "default".to_owned(),
            text,
            path,
        });
    }
    let Ok(entries) = dir.join("additional_chat_templates").read_dir() else {
        return Ok(sources);
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    for path in paths {
        let Some(name) = path
            .file_name()
            .and_then(|n| n.to_str()?.strip_suffix(".jinja"))
        else {
            continue;
        };
        let name = name.to_owned();
        if let Some(text) = read_text(&path)? {
            sources.push(Source { name, text, path });
        }
    }
    Ok(sources)
}

fn from_json(path: &Path, templates: Option<&Value>) -> Result<Vec<Source>, TextError> {
    let source = |name: &str, text: &str| Source {
        name: name.to_owned(),
        text: text.to_owned(),
        path: path.to_owned(),
    };
    match templates {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![source("default", text)]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|entry| Some(source(entry["name"].as_str()?, entry["template"].as_str()?)))
            .collect::<Option<_>>()
            .ok_or_else(|| invalid(path, "chat_template: an entry lacks its name or template")),
        Some(_) => Err(invalid(path, "chat_template is neither a text nor a list")),
    }
}
