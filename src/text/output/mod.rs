//! What a model's output means: reasoning, an answer, tool calls.
//!
//! Models write tool calls and thoughts into their text, each family in a way of its own.
//! [`OutputParser`] reads such text as it streams. It works character by character and looks at
//! nothing but what came before, so which piece a character comes in makes no difference: the
//! streamed pieces always join to what the whole text would have given.
//!
//! What does not parse is never lost and never replaced: arguments that are not JSON are passed on
//! as they were written, and text that only looked like a call becomes content again.

mod beginning;
mod call_object;
mod harmony;
mod hermes;
mod llama3;
mod marker;
mod mistral;
mod pieces;
mod python_literal;
mod pythonic;
mod qwen_xml;
mod reasoning;
#[cfg(test)]
mod testing;

pub use beginning::CallReader;
pub use pieces::Piece;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use harmony::Harmony;
use hermes::Hermes;
use llama3::Llama3;
use mistral::Mistral;
use pieces::Pieces;
use pythonic::Pythonic;
use qwen_xml::QwenXml;
use reasoning::Reasoning;

/// How a family writes its tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes 2 Pro, Qwen 2.5 and 3.
    Hermes,
    /// `{"name": …, "parameters": …}`, after `<|python_tag|>` or bare: Llama 3.1 and later.
    Llama3Json,
    /// `[f(a=1), g()]`: Llama 3.2 and 4.
    Pythonic,
    /// `[TOOL_CALLS][{…}]`, or `[TOOL_CALLS]f[ARGS]{…}` since v11: Mistral.
    Mistral,
    /// `<tool_call><function=f><parameter=a>…`: Qwen3-Coder.
    QwenXml,
    /// Channels with recipients: gpt-oss.
    Harmony,
}

impl ToolFormat {
    /// The format that a chat template teaches, by the words it uses for it.
    pub fn of_template(template: &str) -> Option<Self> {
        // GLM and Seed borrow tags for formats of their own.
        if ["<arg_key>", "<seed:tool_call>"]
            .iter()
            .any(|sign| template.contains(sign))
        {
            return None;
        }
        let signs = [
            ("<|channel|>", Self::Harmony),
            ("<function=", Self::QwenXml),
            ("<tool_call>", Self::Hermes),
            ("[TOOL_CALLS]", Self::Mistral),
            ("[func_name1(", Self::Pythonic),
            ("<|python_tag|>", Self::Llama3Json),
            ("\"parameters\": dictionary", Self::Llama3Json),
        ];
        let found = signs.iter().find(|(sign, _)| template.contains(sign));
        found.map(|(_, format)| *format)
    }

    /// What the format's calls are recognized by. Where the tokenizer has special tokens for them, the
    /// parser has to see these.
    pub fn markers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &hermes::MARKERS,
            Self::Llama3Json => &[llama3::TAG],
            Self::Pythonic => &[],
            Self::Mistral => &mistral::MARKERS,
            Self::QwenXml => &qwen_xml::MARKERS,
            Self::Harmony => &harmony::MARKERS,
        }
    }
}

/// Which reasoning tags a family uses, and whether the prompt has opened them already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasoningTags {
    /// For instance `<think>`.
    pub open: String,
    /// For instance `</think>`.
    pub close: String,
    /// Whether the output begins inside, because the template wrote the opening tag.
    pub opened: bool,
}

impl ReasoningTags {
    /// The tags that a chat template speaks of, for the output behind a prompt.
    pub fn of_template(template: &str, prompt: &str) -> Option<Self> {
        let families = [("<think>", "</think>"), ("[THINK]", "[/THINK]")];
        let (open, close) = families
            .iter()
            .find(|(open, close)| template.contains(open) || template.contains(close))?;
        Some(Self {
            open: (*open).to_owned(),
            close: (*close).to_owned(),
            opened: prompt.trim_end().ends_with(open),
        })
    }
}

/// The functions that may be called, each with those of its parameters that are text.
///
/// Where calls look like text, only the name of a function tells the two apart. And formats that are
/// not JSON write `5` for the number and for the text alike; only the tool's schema knows which is
/// meant.
pub type Functions = Arc<HashMap<String, HashSet<String>>>;

/// Reads an output as it streams.
pub struct OutputParser {
    reasoning: Option<Reasoning>,
    format: Option<Box<dyn Format>>,
}

/// One family's way to write tool calls (and, in harmony, reasoning).
trait Format: Send {
    fn step(&mut self, character: char, out: &mut Pieces);
    /// The output ended: what was held back has to go somewhere.
    fn end(&mut self, out: &mut Pieces);
}

impl OutputParser {
    /// Without a format all text that is not reasoning is content.
    ///
    /// Harmony has its own reasoning channel, so `reasoning` is for the other formats.
    pub fn new(
        format: Option<ToolFormat>,
        reasoning: Option<ReasoningTags>,
        functions: Functions,
    ) -> Self {
        let format: Option<Box<dyn Format>> = format.map(|format| match format {
            ToolFormat::Hermes => Box::new(Hermes::default()) as Box<dyn Format>,
            ToolFormat::Llama3Json => Box::new(Llama3::new(functions)),
            ToolFormat::Pythonic => Box::new(Pythonic::new(functions)),
            ToolFormat::Mistral => Box::new(Mistral::default()),
            ToolFormat::QwenXml => Box::new(QwenXml::new(functions)),
            ToolFormat::Harmony => Box::new(Harmony::default()),
        });
        Self {
            reasoning: reasoning.map(Reasoning::new),
            format,
        }
    }

    /// Takes the next piece of text; what became certain with it.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut out = Pieces::default();
        for character in text.chars() {
            match &mut self.reasoning {
                None => answer(&mut self.format, character, &mut out),
                Some(reasoning) => {
                    for character in reasoning.step(character, &mut out) {
                        answer(&mut self.format, character, &mut out);
                    }
                }
            }
        }
        out.take()
    }

    /// The output ended: what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut out = Pieces::default();
        if let Some(reasoning) = &mut self.reasoning {
            for character in reasoning.end(&mut out) {
                answer(&mut self.format, character, &mut out);
            }
        }
        if let Some(format) = &mut self.format {
            format.end(&mut out);
        }
        out.take()
    }
}

fn answer(format: &mut Option<Box<dyn Format>>, character: char, out: &mut Pieces) {
    match format {
        None => out.content_char(character),
        Some(format) => format.step(character, out),
    }
}
