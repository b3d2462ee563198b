//! Qwen3-Coder's calls:
//!
//! ```text
//! <tool_call>
//! <function=f>
//! <parameter=a>
//! value
//! </parameter>
//! </function>
//! </tool_call>
//! ```
//!
//! A value is plain text between one line break on each side. Whether `5` is a number or a string
//! is for the tool's schema to say; arguments are told as JSON. A value that is JSON may hold the tag
//! that ends it, within quotes.

use super::marker::{Found, Markers};
use super::pieces::Pieces;
use super::{Format, Functions};

const TOOL: &str = "<tool_call>";
const TOOL_END: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
pub(super) const MARKERS: [&str; 2] = [TOOL, TOOL_END];

pub(super) struct QwenXml {
    functions: Functions,
    place: Place,
    /// Outside a value: any of the tags.
    tags: Markers,
    /// In a value only its end counts: the value may be a program about XML.
    value_end: Markers,
    calls: usize,
    function: String,
    parameters: usize,
    /// White space that is told only when the answer goes on behind it.
    space: String,
    /// A value that began like JSON was none: further ones end at the first tag.
    bare: bool,
}

enum Place {
    Answer,
    /// In `<tool_call>`, before the function.
    Tool,
    FunctionName(String),
    Function,
    ParameterName(String),
    Value(Value),
}

struct Value {
    /// A string is told as it comes.
    streamed: bool,
    text: String,
    /// The first character was seen (and dropped if it was a line break).
    begun: bool,
    quotes: Quotes,
}

/// Where in JSON a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// Nothing but white space came.
    Before,
    /// It is no JSON with strings in it.
    None,
    /// Between strings.
    Outside,
    Inside,
    /// Inside, behind a backslash.
    Escaped,
}

impl Quotes {
    fn step(self, c: char) -> Self {
        match (self, c) {
            (Self::Before, c) if c.is_whitespace() => Self::Before,
            (Self::Before, '{' | '[') => Self::Outside,
            (Self::Before | Self::Outside, '"') => Self::Inside,
            (Self::Before, _) => Self::None,
            (Self::Inside, '"') => Self::Outside,
            (Self::Inside, '\\') => Self::Escaped,
            (Self::Escaped, _) => Self::Inside,
            (place, _) => place,
        }
    }
}

impl QwenXml {
    pub fn new(functions: Functions) -> Self {
        Self {
            functions,
            place: Place::Answer,
            tags: Markers::new(&[TOOL, TOOL_END, FUNCTION, FUNCTION_END, PARAMETER]),
            value_end: Markers::new(&[PARAMETER_END]),
            calls: 0,
            function: String::new(),
            parameters: 0,
            space: String::new(),
            bare: false,
        }
    }

    fn content(&mut self, text: &str, out: &mut Pieces) {
        for character in text.chars() {
            self.space.push(character);
            if !character.is_whitespace() {
                out.content(&std::mem::take(&mut self.space));
            }
        }
    }

    fn character(&mut self, place: Place, c: char, out: &mut Pieces) -> Place {
        match place {
            Place::FunctionName(name) if c == '>' && !name.trim().is_empty() => {
                self.function = name.trim().to_owned();
                self.parameters = 0;
                out.call(self.calls, &self.function);
                self.calls += 1;
                Place::Function
            }
            Place::FunctionName(mut name) => {
                name.push(c);
                Place::FunctionName(name)
            }
            Place::ParameterName(name) if c == '>' => self.parameter(name.trim(), out),
            Place::ParameterName(mut name) => {
                name.push(c);
                Place::ParameterName(name)
            }
            // Between tags white space is layout.
            Place::Tool | Place::Function if c.is_whitespace() => place,
            place => {
                self.content(c.encode_utf8(&mut [0; 4]), out);
                place
            }
        }
    }

    fn parameter(&mut self, name: &str, out: &mut Pieces) -> Place {
        let open = if self.parameters == 0 { "{" } else { ", " };
        self.parameters += 1;
        let texts = self.functions.get(&self.function);
        let streamed = texts.is_some_and(|names| names.contains(name));
        let quote = if streamed { "\"" } else { "" };
        self.arguments(&format!("{open}{}: {quote}", quoted(name)), out);
        Place::Value(Value {
            streamed,
            text: String::new(),
            begun: false,
            quotes: if streamed || self.bare {
                Quotes::None
            } else {
                Quotes::Before
            },
        })
    }

    fn arguments(&self, text: &str, out: &mut Pieces) {
        if let Some(call) = self.calls.checked_sub(1) {
            out.arguments(call, text);
        }
    }

    /// More of a value. The last line break stays behind: it may be layout.
    fn value(&self, value: &mut Value, text: &str, out: &mut Pieces) {
        for c in text.chars() {
            value.quotes = value.quotes.step(c);
            if !std::mem::replace(&mut value.begun, true) && c == '\n' {
                continue;
            }
            if value.streamed && value.text == "\n" {
                value.text.clear();
                self.arguments(r"\n", out);
            }
            if value.streamed && c != '\n' {
                let quoted = quoted(c.encode_utf8(&mut [0; 4]));
                self.arguments(&quoted[1..quoted.len() - 1], out);
            } else {
                value.text.push(c);
            }
        }
    }

    fn value_done(&self, value: &Value, out: &mut Pieces) {
        if value.streamed {
            self.arguments("\"", out);
            return;
        }
        let text = value.text.strip_suffix('\n').unwrap_or(&value.text);
        let json = match text.trim() {
            "True" => "true".to_owned(),
            "False" => "false".to_owned(),
            "None" => "null".to_owned(),
            // Also a number that is out of every range.
            trimmed if serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok() => {
                trimmed.to_owned()
            }
            _ => quoted(text),
        };
        self.arguments(&json, out);
    }

    fn tag(&mut self, place: Place, tag: &str, out: &mut Pieces) -> Place {
        match (place, tag) {
            (Place::Answer | Place::Tool | Place::Function, FUNCTION) => {
                Place::FunctionName(String::new())
            }
            (Place::Function, PARAMETER) => Place::ParameterName(String::new()),
            (Place::Function, FUNCTION_END | TOOL_END) => {
                self.arguments(if self.parameters == 0 { "{}" } else { "}" }, out);
                if tag == TOOL_END {
                    Place::Answer
                } else {
                    Place::Tool
                }
            }
            (Place::Answer | Place::Tool, TOOL) => Place::Tool,
            (Place::Tool, TOOL_END) => Place::Answer,
            (place, tag) => tag
                .chars()
                .fold(place, |place, c| self.character(place, c, out)),
        }
    }
}

impl Format for QwenXml {
    fn step(&mut self, character: char, out: &mut Pieces) {
        let place = std::mem::replace(&mut self.place, Place::Answer);
        if let Place::Value(mut value) = place {
            self.place = match self.value_end.step(character) {
                Found::Text(text) => {
                    self.value(&mut value, &text, out);
                    Place::Value(value)
                }
                Found::Marker(text, _) => {
                    self.value(&mut value, &text, out);
                    if matches!(value.quotes, Quotes::Inside | Quotes::Escaped) {
                        self.value(&mut value, PARAMETER_END, out);
                        Place::Value(value)
                    } else {
                        self.value_done(&value, out);
                        Place::Function
                    }
                }
            };
            return;
        }
        let (text, tag) = match self.tags.step(character) {
            Found::Text(text) => (text, None),
            Found::Marker(text, tag) => (text, Some(tag)),
        };
        let place = text
            .chars()
            .fold(place, |place, c| self.character(place, c, out));
        self.place = match tag {
            Some(tag) => {
                let tags = [TOOL, TOOL_END, FUNCTION, FUNCTION_END, PARAMETER];
                self.tag(place, tags[tag], out)
            }
            None => place,
        };
    }

    fn end(&mut self, out: &mut Pieces) {
        let place = std::mem::replace(&mut self.place, Place::Answer);
        if let Place::Value(mut value) = place {
            // Cut off: what there is stays open, so that nobody takes it for the whole.
            let rest = self.value_end.end();
            self.value(&mut value, &rest, out);
            // The quotes never closed: it was no JSON, and ended where its tag says.
            if let Some((text, behind)) = value.text.split_once(PARAMETER_END) {
                let text = Value {
                    text: text.to_owned(),
                    quotes: Quotes::None,
                    ..value
                };
                self.value_done(&text, out);
                self.bare = true;
                self.place = Place::Function;
                for character in behind.chars() {
                    self.step(character, out);
                }
                return self.end(out);
            }
            if !value.streamed {
                self.arguments(&value.text, out);
            }
            return;
        }
        let rest = self.tags.end();
        match rest
            .chars()
            .fold(place, |place, c| self.character(place, c, out))
        {
            Place::FunctionName(name) => self.content(&format!("{FUNCTION}{name}"), out),
            Place::ParameterName(_) | Place::Function | Place::Tool | Place::Value(_) => {}
            Place::Answer => {}
        }
        if self.calls == 0 {
            out.content(&std::mem::take(&mut self.space));
        }
    }
}

fn quoted(text: &str) -> String {
    // Serializing a string cannot fail; the quotes alone keep what is built around it whole.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::ToolFormat::QwenXml;
    use super::super::testing::{Whole, call, parse};

    #[test]
    fn values_follow_the_schema() {
        // `text` and `text_a` are strings in these tests.
        let text = "<tool_call>\n<function=f>\n<parameter=text_a>\n5\n</parameter>\n\
                    <parameter=b>\n5\n</parameter>\n<parameter=c>\n{\"x\": [1]}\n</parameter>\n\
                    <parameter=d>\nTrue\n</parameter>\n<parameter=e>\nplain words\n</parameter>\n\
                    </function>\n</tool_call>";
        let json = r#"{"text_a": "5", "b": 5, "c": {"x": [1]}, "d": true, "e": "plain words"}"#;
        assert_eq!(parse(QwenXml, text), Whole::calls([call("f", json)]));
    }

    #[test]
    fn a_number_stays_as_large_as_it_is() {
        let text = "<tool_call><function=f><parameter=b>-2E479</parameter></function></tool_call>";
        assert_eq!(parse(QwenXml, text).calls, [call("f", r#"{"b": -2E479}"#)]);
    }

    #[test]
    fn a_program_stays_as_it_is() {
        let text = "<tool_call><function=f><parameter=text>\n\n<function=g>\n  \"é\\\n\n</parameter></function></tool_call>";
        let json = r#"{"text": "\n<function=g>\n  \"é\\\n"}"#;
        assert_eq!(parse(QwenXml, text).calls, [call("f", json)]);
    }

    #[test]
    fn json_may_hold_the_tag_that_ends_it() {
        let text = r#"<tool_call><function=f><parameter=b>
{"x": "\"</parameter>", "y": ["</parameter>"]}
</parameter><parameter=c>1</parameter></function></tool_call>"#;
        let json = r#"{"b": {"x": "\"</parameter>", "y": ["</parameter>"]}, "c": 1}"#;
        assert_eq!(parse(QwenXml, text).calls, [call("f", json)]);
        // What only began like it ends at the first one.
        let text = "<tool_call><function=f><parameter=b>{\"x</parameter><parameter=c>1</parameter>\
                    </function></tool_call>";
        let json = r#"{"b": "{\"x", "c": 1}"#;
        assert_eq!(parse(QwenXml, text).calls, [call("f", json)]);
    }

    #[test]
    fn several_calls_and_text_before() {
        let text = "Now:\n<tool_call>\n<function=f>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>";
        let whole = parse(QwenXml, text);
        assert_eq!(whole.content, "Now:");
        assert_eq!(whole.calls, [call("f", "{}"), call("g", "{}")]);
        assert_eq!(
            parse(QwenXml, &format!("{text}\nDone")).content,
            "Now:\n\n\nDone"
        );
    }

    #[test]
    fn the_end_of_the_call_ends_its_function() {
        let text = "<tool_call><function=f><parameter=b>\n1\n</parameter></tool_call>after";
        let whole = parse(QwenXml, text);
        assert_eq!(whole.calls, [call("f", r#"{"b": 1}"#)]);
        assert_eq!(whole.content, "after");
    }

    #[test]
    fn a_value_that_was_cut_off_stays_open() {
        let text = "<tool_call><function=f><parameter=text>\nhalf a";
        assert_eq!(
            parse(QwenXml, text).calls,
            [call("f", r#"{"text": "half a"#)]
        );
    }

    #[test]
    fn what_is_no_call_is_content() {
        for text in ["a < b </function>", "<function=unfinished", "<tool", "x \n"] {
            assert_eq!(parse(QwenXml, text).content, text);
        }
    }
}
