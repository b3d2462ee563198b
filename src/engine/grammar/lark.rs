//! Writes rules in llguidance's dialect of Lark.

use std::fmt::Write;

use serde_json::Value;

use super::GrammarError;
use crate::text::Tokenizer;

/// Turns a schema into the one to compile.
pub(super) type Prepare = fn(&Value) -> Result<Value, GrammarError>;

/// Rules in the making.
pub(super) struct Lark<'a> {
    tokenizer: &'a Tokenizer,
    prepare: Prepare,
    rules: String,
    names: usize,
}

impl<'a> Lark<'a> {
    pub fn new(tokenizer: &'a Tokenizer, prepare: Prepare) -> Self {
        Self {
            tokenizer,
            prepare,
            rules: String::new(),
            names: 0,
        }
    }

    /// Adds a rule, or a terminal, whose name is in capitals.
    pub fn rule(&mut self, name: &str, body: &str) {
        // Writing to a string does not fail.
        let _always = writeln!(self.rules, "{name}: {body}");
    }

    /// A name that no other rule has.
    pub fn fresh(&mut self, stem: &str) -> String {
        self.names += 1;
        format!("{stem}{}", self.names)
    }

    /// Adds a rule with a name of its own, which is returned.
    pub fn add(&mut self, stem: &str, body: &str) -> String {
        let name = self.fresh(stem);
        self.rule(&name, body);
        name
    }

    /// The marker's token.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] where it is none.
    pub fn token(&self, marker: &str) -> Result<String, GrammarError> {
        let id = self.tokenizer.token_id(marker).ok_or_else(|| {
            GrammarError::Vocabulary(format!("the marker {marker:?} is not one token"))
        })?;
        Ok(format!("<[{id}]>"))
    }

    /// JSON that a schema accepts.
    ///
    /// # Errors
    /// Those of preparing it.
    pub fn json(&self, schema: &Value) -> Result<String, GrammarError> {
        Ok(format!("%json {}", (self.prepare)(schema)?))
    }

    /// All rules.
    pub fn finish(self) -> String {
        self.rules
    }
}

/// These very characters.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A regular expression that matches a text and nothing else.
pub(super) fn exactly(text: &str) -> String {
    text.chars()
        .map(|char| format!(r"\x{{{:x}}}", u32::from(char)))
        .collect()
}

/// Any text that does not hold `regex`.
pub(super) fn without(regex: &str) -> String {
    format!(r"/(.|\n)+/ & ~/(.|\n)*({regex})(.|\n)*/")
}
