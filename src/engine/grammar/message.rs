//! The grammar of a chat message: perhaps a thought, then an answer, or calls of tools.

use serde_json::Value;

use super::GrammarError;
use super::lark::{Lark, Prepare, exactly, literal, without};
use crate::text::Tokenizer;
use crate::text::output::ToolFormat;

/// What a message may be. Thoughts come first, calls last.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MessageSpec {
    /// How a thought is marked that comes before all else.
    pub thought: Option<Thought>,
    /// What stands before the answer.
    pub heading: Vec<Part>,
    /// What else than calls there may be.
    pub answer: Option<Answer>,
    /// Calls that may be made; that must be made where there is no answer.
    pub calls: Option<Calls>,
}

/// How a thought is marked.
#[derive(Debug, Clone, PartialEq)]
pub struct Thought {
    /// Before it, for instance `<think>`.
    pub open: Vec<Part>,
    /// What ends it, for instance `</think>`; has to be a token.
    pub close: String,
    /// What comes behind that.
    pub behind: Vec<Part>,
    /// Whether the prompt ends within it; otherwise the model decides whether to think.
    pub opened: bool,
    /// Most tokens of it; `None` is any number.
    pub budget: Option<usize>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// JSON that a schema accepts, and no call.
    Json(Value),
    /// What a Lark grammar derives, and no call.
    Lark(String),
    /// Any text, which calls may follow.
    Text,
}

/// How calls are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Calls {
    /// How they are told from text.
    pub mark: Mark,
    /// Before the first.
    pub open: Vec<Part>,
    /// One of each function.
    pub each: Vec<Call>,
    /// Between two; `None` allows one call only.
    pub between: Option<Vec<Part>>,
    /// Behind the last.
    pub close: Vec<Part>,
}

/// A call of one function.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The function's name.
    pub function: String,
    /// Whether arguments that cannot be held to their schema are refused, rather than held to what of
    /// it can be enforced.
    pub strict: bool,
    /// How it is written.
    pub parts: Vec<Part>,
}

/// How calls are told from text.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// Every list of them begins with it. Where there is no token of this name, they are not told
    /// from text in time.
    Marker(String),
    /// By what is read of them: no marker does it. Each call begins with a text, and so does what
    /// comes before the first.
    Text,
    /// The same, where text is as good as calls: a call begins where [`CallReader`] says, and each is
    /// told from there on, with the function's name and what the beginning ends with before it.
    ///
    /// [`CallReader`]: crate::text::output::CallReader
    Read(ToolFormat),
}

/// A part of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// These very characters.
    Text(String),
    /// A token of this name, or where there is none its characters.
    Marker(String),
    /// One of these.
    OneOf(Vec<Vec<Part>>),
    /// JSON that a schema accepts.
    Json(Value),
    /// Python's keyword arguments, by the schema of all.
    Keywords(Value),
    /// Qwen's parameters in tags, likewise.
    Parameters(Value),
    /// Any keyword arguments.
    AnyKeywords,
    /// Any parameters in tags.
    AnyParameters,
}

impl MessageSpec {
    /// In llguidance's dialect of Lark. `prepare` turns a schema into the one to compile.
    ///
    /// # Errors
    /// Those of `prepare`; [`GrammarError::Unsupported`] for what the format of the calls cannot say;
    /// [`GrammarError::Vocabulary`] where a marker has to be a token and is none.
    pub(super) fn lark(
        &self,
        tokenizer: &Tokenizer,
        prepare: Prepare,
    ) -> Result<String, GrammarError> {
        let mut lark = Lark::new(tokenizer, prepare);
        let mut start = String::new();
        if let Some(thought) = &self.thought {
            start = lark.thought(thought)?;
            if self.answer != Some(Answer::Text) && thought.behind.is_empty() {
                // Models part the two by an empty line.
                lark.rule("GAP", r"/\n{1,2}/");
                start.push_str("GAP? ");
            }
        }
        let calls = self.calls.as_ref().map(|calls| lark.calls(calls));
        let calls = calls.transpose()?.map_or("", |()| "calls");
        let heading = lark.parts(&self.heading)?;
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
                format!("( {heading} answer{or}{calls} )")
            }
            Some(Answer::Text) => {
                let mark = self.calls.as_ref().map(|calls| &calls.mark);
                let text = match mark {
                    None => r"/(.|\n)+/".to_owned(),
                    Some(Mark::Marker(marker)) => {
                        lark.token(marker)?;
                        without(&exactly(marker))
                    }
                    Some(Mark::Text | Mark::Read(_)) => {
                        let reason = "text and calls are told apart by reading them";
                        return Err(GrammarError::Vocabulary(reason.to_owned()));
                    }
                };
                lark.rule("TEXT", &text);
                match mark {
                    None => format!("{heading} TEXT?"),
                    Some(_) if self.heading.is_empty() => "TEXT? ( calls )?".to_owned(),
                    Some(_) => format!("( calls | {heading} TEXT? )"),
                }
            }
        };
        lark.rule("start", &[start, body].concat());
        Ok(lark.finish())
    }
}

impl Lark<'_> {
    fn thought(&mut self, thought: &Thought) -> Result<String, GrammarError> {
        let close = self.token(&thought.close)?;
        let behind = self.parts(&thought.behind)?;
        self.rule("THOUGHT", &without(&exactly(&thought.close)));
        let within = match thought.budget {
            None => "THOUGHT?",
            Some(0) => "",
            Some(budget) => {
                // Only rules can be bounded, not terminals.
                self.rule(&format!("within[max_tokens={budget}]"), "THOUGHT");
                "within?"
            }
        };
        if thought.opened {
            return Ok(format!("{within} {close} {behind} "));
        }
        let open = self.parts(&thought.open)?;
        self.rule("thought", &format!("{open} {within} {close} {behind}"));
        Ok("thought? ".to_owned())
    }

    fn calls(&mut self, calls: &Calls) -> Result<(), GrammarError> {
        let (mut all, mut first) = (Vec::new(), Vec::new());
        for call in &calls.each {
            let name = match (&calls.mark, call.parts.split_first()) {
                (Mark::Text, Some((Part::Text(head), rest))) => {
                    let rest = self.parts(rest)?;
                    let rest = self.add("rest", &rest);
                    // One terminal from the beginning on: text is another one, and which of the two
                    // it is must not be decided before they part.
                    let before: String = calls.open.iter().filter_map(Part::as_text).collect();
                    let opening = format!(r"/\n{{0,2}}{}/", exactly(&(before + head)));
                    let opening = self.add("OPENING", &opening);
                    first.push(format!("{opening} {rest}"));
                    format!("{} {rest}", literal(head))
                }
                _ => {
                    let body = self.parts(&call.parts)?;
                    self.add("call", &body)
                }
            };
            all.push(name);
        }
        self.rule("call", &all.join(" | "));
        let more = match &calls.between {
            Some(between) => format!("( {} call )*", self.parts(between)?),
            None => String::new(),
        };
        let first = match first.is_empty() {
            true => format!("{} call", self.parts(&calls.open)?),
            false => format!("( {} )", first.join(" | ")),
        };
        let close = self.parts(&calls.close)?;
        self.rule("calls", &format!("{first} {more} {close}"));
        Ok(())
    }

    fn parts(&mut self, parts: &[Part]) -> Result<String, GrammarError> {
        let mut line = String::new();
        for part in parts {
            let part = match part {
                Part::Text(text) => literal(text),
                Part::Marker(marker) => self.token(marker).unwrap_or_else(|_| literal(marker)),
                Part::OneOf(choices) => {
                    let choices = choices.iter().map(|parts| match parts.as_slice() {
                        [] => Ok(literal("")),
                        parts => self.parts(parts),
                    });
                    let choices: Vec<String> = choices.collect::<Result<_, GrammarError>>()?;
                    format!("( {} )", choices.join(" | "))
                }
                Part::Json(schema) => self.json(schema)?,
                Part::Keywords(schema) => self.keywords(schema)?,
                Part::Parameters(schema) => self.parameters(schema)?,
                Part::AnyKeywords => self.any_keywords(),
                Part::AnyParameters => self.any_parameters(),
            };
            line.push_str(&part);
            line.push(' ');
        }
        Ok(line)
    }
}

impl Part {
    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}
