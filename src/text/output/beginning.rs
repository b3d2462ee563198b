//! Where calls begin that no marker of their own tells from text.

use super::harmony::Harmony;
use super::llama3::Llama3;
use super::pieces::Pieces;
use super::pythonic::Pythonic;
use super::{Format, Functions, ToolFormat};

/// Reads an answer as [`OutputParser`](super::OutputParser) does, and says where it has become a call:
/// what comes then is its arguments (in harmony the rest of its header), and nothing makes it text
/// again.
#[derive(Debug, Clone)]
pub struct CallReader {
    format: Reading,
    /// The beginning of a character.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Reading {
    Llama3(Llama3),
    Pythonic(Pythonic),
    Harmony(Harmony),
}

impl CallReader {
    /// `None` for formats whose calls begin with a marker.
    pub fn new(format: ToolFormat, functions: Functions) -> Option<Self> {
        let format = match format {
            ToolFormat::Llama3Json => Reading::Llama3(Llama3::new(functions)),
            ToolFormat::Pythonic => Reading::Pythonic(Pythonic::new(functions)),
            ToolFormat::Harmony => Reading::Harmony(Harmony::default()),
            ToolFormat::Hermes | ToolFormat::Mistral | ToolFormat::QwenXml => return None,
        };
        let bytes = Vec::new();
        Some(Self { format, bytes })
    }

    /// What the format's calls are recognized by.
    pub fn markers(&self) -> &'static [&'static str] {
        match self.format {
            Reading::Llama3(_) => ToolFormat::Llama3Json.markers(),
            Reading::Pythonic(_) => ToolFormat::Pythonic.markers(),
            Reading::Harmony(_) => ToolFormat::Harmony.markers(),
        }
    }

    /// The character that the beginning of a call ends with.
    pub fn trigger(&self) -> u8 {
        match self.format {
            Reading::Llama3(_) => b':',
            Reading::Pythonic(_) => b'(',
            Reading::Harmony(_) => b'=',
        }
    }

    /// Takes the next byte of the text.
    pub fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
        match str::from_utf8(&self.bytes) {
            Ok(text) => text
                .chars()
                .for_each(|character| step(&mut self.format, character)),
            Err(error) if error.error_len().is_none() => return,
            Err(_) => step(&mut self.format, char::REPLACEMENT_CHARACTER),
        }
        self.bytes.clear();
    }

    /// The function that is called, where a call has just begun. In harmony its name comes only now,
    /// and is empty here.
    pub fn begun(&self) -> Option<&str> {
        match &self.format {
            Reading::Llama3(format) => format.begun(),
            Reading::Pythonic(format) => format.begun(),
            Reading::Harmony(format) => format.has_begun().then_some(""),
        }
    }

    /// Whether one token may be enough to begin a call.
    pub fn may_begin(&self) -> bool {
        match &self.format {
            Reading::Llama3(format) => format.may_begin(),
            Reading::Pythonic(format) => format.may_begin(),
            Reading::Harmony(format) => format.may_begin(),
        }
    }
}

fn step(format: &mut Reading, character: char) {
    let mut out = Pieces::default();
    match format {
        Reading::Llama3(format) => format.step(character, &mut out),
        Reading::Pythonic(format) => format.step(character, &mut out),
        Reading::Harmony(format) => format.step(character, &mut out),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{call, functions, parse};
    use super::*;

    /// Where calls begin: how many bytes came, and the function.
    fn beginnings(format: ToolFormat, text: &str) -> Vec<(usize, String)> {
        let mut reader = CallReader::new(format, functions()).unwrap();
        let mut found = Vec::new();
        for (index, byte) in text.bytes().enumerate() {
            let (near, held) = (reader.may_begin(), reader.begun().is_some());
            reader.push(byte);
            if let (Some(name), false) = (reader.begun(), held) {
                assert!(near && byte == reader.trigger(), "{text}");
                found.push((index + 1, name.to_owned()));
            }
        }
        found
    }

    #[test]
    fn a_call_begins_where_it_is_no_text_any_more() {
        use ToolFormat::{Harmony, Llama3Json, Pythonic};
        for (format, before, behind, name) in [
            (
                Llama3Json,
                r#" {"name": "f", "parameters":"#,
                r#" {"a": ":"}}"#,
                "f",
            ),
            (
                Llama3Json,
                r#"é<|python_tag|>{"x": [":"], "name": "g", "arguments":"#,
                "{}}",
                "g",
            ),
            (Pythonic, "\n[ f(", "a='(')]", "f"),
            (
                Harmony,
                "<|channel|>commentary to=",
                "functions.f <|message|>{}",
                "",
            ),
            (
                Harmony,
                "<|channel|>analysis<|message|>to=me<|end|><|start|>assistant to=",
                "functions.f<|channel|>commentary<|message|>{}",
                "",
            ),
        ] {
            let text = [before, behind].concat();
            let found = beginnings(format, &text);
            assert_eq!(found, [(before.len(), name.to_owned())], "{text}");
            assert_eq!(parse(format, &text).calls.len(), 1, "{text}");
        }
        let twice = r#"{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}"#;
        assert_eq!(beginnings(Llama3Json, twice).len(), 2);
        assert_eq!(
            parse(Llama3Json, twice).calls,
            [call("f", "{}"), call("g", "{}")]
        );
        assert_eq!(beginnings(Pythonic, "[f(a=1), g()]").len(), 2);
    }

    #[test]
    fn other_text_begins_none() {
        use ToolFormat::{Harmony, Llama3Json, Pythonic};
        for (format, text) in [
            (Llama3Json, r#"{"name": "Ada", "parameters": {"a": 1}}"#),
            (Llama3Json, r#"{"parameters": {"a": 1}, "name": "f"}"#),
            (Llama3Json, r#"{"name": "f", "age": {"parameters": 1}}"#),
            (Llama3Json, r#"So: {"name": "f", "parameters": {}}"#),
            (Pythonic, "[1, f(x)]"),
            (Pythonic, "[f, (g)]"),
            (Pythonic, "f(a=1)"),
            (Harmony, "<|channel|>final<|message|>to=functions.f"),
        ] {
            assert_eq!(beginnings(format, text), [], "{text}");
            assert_eq!(parse(format, text).calls, [], "{text}");
        }
    }
}
