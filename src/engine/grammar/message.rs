//! The grammar of a chat message: perhaps a thought, then an answer, or calls of tools.

use std::fmt::Write;

use serde_json::Value;

use super::GrammarError;
use crate::text::Tokenizer;

/// What a message may be. Thoughts come first, calls last.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MessageSpec {
    /// How a thought is marked that comes before all else.
    pub thought: Option<Thought>,
    /// What else than calls there may be.
    pub answer: Option<Answer>,
    /// Calls that may be made; that must be made where there is no answer.
    pub calls: Option<Calls>,
}

/// The tags of a thought. Both have to be tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Thought {
    /// For instance `<think>`.
    pub open: String,
    /// For instance `</think>`.
    pub close: String,
    /// Whether the prompt ends within it; otherwise the model decides whether to think.
    pub opened: bool,
    /// Most tokens between the tags; `None` is any number.
    pub budget: Option<usize>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// JSON that a schema accepts, and no call.
    Json(Value),
    /// What a Lark grammar derives, and no call.
    Lark(String),
    /// Any text, perhaps followed by calls, whose first marker has to be a token.
    Text,
}

/// How calls are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Calls {
    /// Before the first.
    pub open: Vec<Part>,
    /// One of each function.
    pub each: Vec<Vec<Part>>,
    /// Between two; `None` allows one call only.
    pub between: Option<Vec<Part>>,
    /// Behind the last.
    pub close: Vec<Part>,
}

/// A part of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// These very characters.
    Text(String),
    /// A token of this name, or where there is none its characters.
    Marker(String),
    /// JSON that a schema accepts.
    Json(Value),
}

impl MessageSpec {
    /// In llguidance's dialect of Lark. `schema` turns a schema into the one to compile.
    ///
    /// # Errors
    /// Those of `schema`; [`GrammarError::Vocabulary`] where a marker has to be a token and is none.
    pub(super) fn lark(
        &self,
        tokenizer: &Tokenizer,
        schema: impl Fn(&Value) -> Result<Value, GrammarError>,
    ) -> Result<String, GrammarError> {
        let mut lark = Lark {
            tokenizer,
            schema,
            rules: String::new(),
        };
        let mut start = String::new();
        if let Some(thought) = &self.thought {
            start = lark.thought(thought)?;
            if self.answer != Some(Answer::Text) {
                // Models part the two by an empty line.
                lark.rule("GAP", r"/\n{1,2}/");
                start.push_str("GAP? ");
            }
        }
        let calls = self.calls.as_ref().map(|calls| lark.calls(calls));
        let calls = calls.transpose()?.map_or("", |()| "calls");
        let body = match &self.answer {
            None => calls.to_owned(),
            Some(answer @ (Answer::Json(_) | Answer::Lark(_))) => {
                let body = match answer {
                    Answer::Json(schema) => lark.json(schema)?,
                    Answer::Lark(grammar) => format!("%lark {{\n{grammar}}}"),
                    Answer::Text => String::new(),
                };
                lark.rule("answer", &body);
                let or = if calls.is_empty() { "" } else { " | " };
                format!("( answer{or}{calls} )")
            }
            Some(Answer::Text) => {
                if let Some(calls) = &self.calls {
                    let first = calls.first_marker().unwrap_or_default();
                    lark.token(first)?;
                    lark.rule("TEXT", &without(first));
                    "TEXT? ( calls )?".to_owned()
                } else {
                    lark.rule("TEXT", r"/(.|\n)+/");
                    "TEXT?".to_owned()
                }
            }
        };
        lark.rule("start", &[start, body].concat());
        Ok(lark.rules)
    }
}

impl Calls {
    /// What every list of calls begins with, if that is a marker.
    pub fn first_marker(&self) -> Option<&str> {
        let each = self.each.first()?;
        match self.open.first().or_else(|| each.first())? {
            Part::Marker(marker) => Some(marker),
            Part::Text(_) | Part::Json(_) => None,
        }
    }
}

struct Lark<'a, F> {
    tokenizer: &'a Tokenizer,
    schema: F,
    rules: String,
}

impl<F: Fn(&Value) -> Result<Value, GrammarError>> Lark<'_, F> {
    fn rule(&mut self, name: &str, body: &str) {
        // Writing to a string does not fail.
        let _always = writeln!(self.rules, "{name}: {body}");
    }

    fn thought(&mut self, thought: &Thought) -> Result<String, GrammarError> {
        let close = self.token(&thought.close)?;
        self.rule("THOUGHT", &without(&thought.close));
        let mut within = "THOUGHT";
        if let Some(budget) = thought.budget {
            // Only rules can be bounded, not terminals.
            within = "within";
            self.rule(&format!("{within}[max_tokens={budget}]"), "THOUGHT");
        }
        if thought.opened {
            return Ok(format!("{within}? {close} "));
        }
        let open = self.token(&thought.open)?;
        self.rule("thought", &format!("{open} {within}? {close}"));
        Ok("thought? ".to_owned())
    }

    fn calls(&mut self, calls: &Calls) -> Result<(), GrammarError> {
        let mut names = Vec::with_capacity(calls.each.len());
        for (index, call) in calls.each.iter().enumerate() {
            let body = self.parts(call)?;
            let name = format!("call{index}");
            self.rule(&name, &body);
            names.push(name);
        }
        self.rule("call", &names.join(" | "));
        let more = match &calls.between {
            Some(between) => format!("( {} call )*", self.parts(between)?),
            None => String::new(),
        };
        let (open, close) = (self.parts(&calls.open)?, self.parts(&calls.close)?);
        self.rule("calls", &format!("{open} call {more} {close}"));
        Ok(())
    }

    fn parts(&self, parts: &[Part]) -> Result<String, GrammarError> {
        let mut line = String::new();
        for part in parts {
            let part = match part {
                Part::Text(text) => literal(text),
                Part::Marker(marker) => self.token(marker).unwrap_or_else(|_| literal(marker)),
                Part::Json(schema) => self.json(schema)?,
            };
            line.push_str(&part);
            line.push(' ');
        }
        Ok(line)
    }

    fn token(&self, marker: &str) -> Result<String, GrammarError> {
        let id = self.tokenizer.token_id(marker).ok_or_else(|| {
            GrammarError::Vocabulary(format!("the marker {marker:?} is not one token"))
        })?;
        Ok(format!("<[{id}]>"))
    }

    fn json(&self, schema: &Value) -> Result<String, GrammarError> {
        Ok(format!("%json {}", (self.schema)(schema)?))
    }
}

fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// Any text that does not spell the marker.
fn without(marker: &str) -> String {
    let marker: String = marker
        .chars()
        .map(|c| format!(r"\x{{{:x}}}", u32::from(c)))
        .collect();
    format!(r"/(.|\n)+/ & ~/(.|\n)*{marker}(.|\n)*/")
}
