//! How a model's template says what an output means.

use std::sync::Arc;

use super::call_grammar::{self, Wish, Writing};
use super::error::ApiError;
use super::openai::tools::Tools;
use super::reader::{Reader, Telling};
use super::thinking::{Effort, Habits, Switches};
use crate::engine::grammar::GrammarSpec;
use crate::text::output::{OutputParser, ReasoningTags, ToolFormat};
use crate::text::{ChatTemplate, Tokenizer};

/// The conventions of one model.
#[derive(Debug, Clone, Default)]
pub struct Dialect {
    tools: Option<ToolFormat>,
    switches: Switches,
    /// The template's words, with tools and without.
    template: String,
}

/// What gpt-oss was trained with; its template writes down whatever it is told.
const HARMONY_EFFORTS: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High];

impl Dialect {
    /// By the words of the template; `tools` overrides what they say about tool calls.
    pub fn new(template: Option<&ChatTemplate>, tools: Option<ToolFormat>) -> Self {
        let switches = template.map_or_else(Switches::default, Switches::of);
        let template = template.map_or_else(String::new, |template| {
            // A template that has no default says so when it is rendered.
            let source = |with_tools| template.source(with_tools).unwrap_or_default();
            match (source(true), source(false)) {
                (with, without) if with == without => with.to_owned(),
                (with, without) => [with, without].join("\n"),
            }
        });
        Self {
            tools: tools.or_else(|| ToolFormat::of_template(&template)),
            switches,
            template,
        }
    }

    /// How calls are written.
    pub fn tools(&self) -> Option<ToolFormat> {
        self.tools
    }

    /// The tags of thoughts, for the output behind a prompt.
    pub fn thoughts(&self, prompt: &str) -> Option<ReasoningTags> {
        // Harmony has a channel for them.
        if self.tools == Some(ToolFormat::Harmony) {
            return None;
        }
        ReasoningTags::of_template(&self.template, prompt)
    }

    /// How the model thinks.
    pub fn habits(&self) -> Habits {
        let harmony = self.tools == Some(ToolFormat::Harmony);
        Habits {
            switches: self.switches,
            thinks: harmony || self.thoughts("").is_some(),
            efforts: harmony.then_some(HARMONY_EFFORTS),
        }
    }

    /// Refuses tools that the model could not be told of.
    pub fn check(&self, tools: &Tools, model: &str) -> Result<(), ApiError> {
        if tools.offered().is_none() || self.tools.is_some() {
            return Ok(());
        }
        let message = format!(
            "the chat template of `{model}` teaches no tool calls that this server reads; start it with \
             --tool-call-parser if you know the format, or describe the tools in a system message"
        );
        Err(ApiError::unsupported("tools", message))
    }

    /// What the outputs of a request have to be.
    pub fn grammar(
        &self,
        tokenizer: &Tokenizer,
        wish: Wish<'_>,
    ) -> Result<Option<GrammarSpec>, ApiError> {
        let writing = Writing {
            format: self.format(wish.tools),
            thoughts: self.thoughts(wish.prompt),
        };
        call_grammar::message(wish, &writing, tokenizer)
    }

    /// How calls are written, where there may be some; harmony's channels are there with tools and
    /// without.
    fn format(&self, tools: &Tools) -> Option<ToolFormat> {
        self.tools
            .filter(|format| tools.offered().is_some() || *format == ToolFormat::Harmony)
    }

    /// Readers for the outputs of a request.
    pub fn readers(
        &self,
        tokenizer: &Tokenizer,
        tools: &Tools,
        prompt: &str,
        telling: Telling,
        count: usize,
    ) -> Result<Vec<Reader>, ApiError> {
        let format = self.format(tools);
        if telling == Telling::InContent && format == Some(ToolFormat::Harmony) {
            let message = "`reasoning_format` cannot be `none`: this model's thoughts are messages of \
                           their own";
            return Err(ApiError::unsupported("reasoning_format", message));
        }
        let thoughts = self.thoughts(prompt);
        let tags = thoughts
            .iter()
            .flat_map(|tags| [tags.open.as_str(), tags.close.as_str()]);
        let markers = format.map_or(&[][..], ToolFormat::markers).iter().copied();
        let shown: Arc<[u32]> = tags
            .chain(markers)
            .filter_map(|marker| tokenizer.token_id(marker))
            .filter(|id| tokenizer.is_special(*id))
            .collect();
        let reader = || {
            let apart = thoughts.clone().filter(|_| telling != Telling::InContent);
            let opened = apart.as_ref().is_some_and(|tags| tags.opened);
            let parser = OutputParser::new(format, apart, tools.functions());
            let mut reader = Reader::new(parser, Arc::clone(&shown), tools.most_calls());
            if opened {
                reader = reader.within_thought();
            }
            match telling {
                Telling::Not => reader.silent(),
                Telling::Apart | Telling::InContent => reader,
            }
        };
        Ok((0..count).map(|_| reader()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::output::Piece;
    use std::path::Path;

    fn tiny() -> (Tokenizer, Dialect) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
        let template = ChatTemplate::load(&dir).unwrap();
        (
            Tokenizer::load(&dir).unwrap(),
            Dialect::new(template.as_ref(), None),
        )
    }

    #[test]
    fn the_template_says_what_is_a_call_and_what_a_thought() {
        let (_, dialect) = tiny();
        assert_eq!(dialect.tools(), Some(ToolFormat::Hermes));
        let opened = |prompt| dialect.thoughts(prompt).map(|tags| tags.opened);
        assert_eq!(opened("…assistant\n<think>\n"), Some(true));
        assert_eq!(opened("…assistant\n<think>\n\n</think>\n\n"), Some(false));
        let harmony = Dialect {
            tools: Some(ToolFormat::Harmony),
            ..dialect
        };
        assert_eq!(harmony.thoughts(""), None);
        assert_eq!(Dialect::default().thoughts(""), None);
    }

    #[test]
    fn calls_are_only_looked_for_where_tools_are_offered() {
        let (tokenizer, dialect) = tiny();
        let text = r#"<tool_call>{"name": "f", "arguments": {}}</tool_call>"#;
        let mut readers = dialect
            .readers(&tokenizer, &Tools::default(), "", Telling::Apart, 2)
            .unwrap();
        assert_eq!(readers.len(), 2);
        let mut pieces = readers[0].push(text);
        pieces.extend(readers[0].finish());
        assert_eq!(pieces, [Piece::Content(text.to_owned())]);
    }

    /// A tokenizer that marks the format's tokens special, as Mistral's does.
    #[test]
    fn special_markers_are_shown_to_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        let token = |id, content| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        };
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [token(2, "[TOOL_CALLS]"), token(3, "[ARGS]"), token(4, "[PAD]")],
            "model": {"type": "BPE", "vocab": {"f": 0, "x": 1}, "merges": []},
            "decoder": {"type": "Fuse"},
        });
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let dialect = Dialect::new(None, Some(ToolFormat::Mistral));
        let tools = serde_json::json!([{"type": "function", "function": {"name": "f"}}]);
        let tools = Tools::parse(Some(tools), None, None).unwrap();
        let readers = dialect
            .readers(&tokenizer, &tools, "", Telling::Apart, 1)
            .unwrap();
        assert_eq!(*readers[0].shown(), [2, 3]);
    }
}
