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
//! is for the tool's schema to say; arguments are told as JSON.

use super::marker::{Found, Markers};
use super::pieces::Pieces;
use super::{Format, IsString};

const TOOL: &str = "<tool_call>";
const TOOL_END: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
pub(super) const MARKERS: [&str; 2] = [TOOL, TOOL_END];

pub(super) struct QwenXml {
    is_string: IsString,
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
}

impl QwenXml {
    pub fn new(is_string: IsString) -> Self {
        Self {
            is_string,
            place: Place::Answer,
            tags: Markers::new(&[TOOL, TOOL_END, FUNCTION, FUNCTION_END, PARAMETER]),
            value_end: Markers::new(&[PARAMETER_END]),
            calls: 0,
            function: String::new(),
            parameters: 0,
            space: String::new(),
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
        let streamed = (self.is_string)(&self.function, name);
        let quote = if streamed { "\"" } else { "" };
        self.arguments(&format!("{open}{}: {quote}", quoted(name)), out);
        Place::Value(Value {
            streamed,
            text: String::new(),
            begun: false,
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
            trimmed if serde_json::from_str::<serde_json::Value>(trimmed).is_ok() => {
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
                    self.value_done(&value, out);
                    Place::Function
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
        // Parameters whose name begins with `text` are strings in these tests.
        let text = "<tool_call>\n<function=f>\n<parameter=text_a>\n5\n</parameter>\n\
                    <parameter=b>\n5\n</parameter>\n<parameter=c>\n{\"x\": [1]}\n</parameter>\n\
                    <parameter=d>\nTrue\n</parameter>\n<parameter=e>\nplain words\n</parameter>\n\
                    </function>\n</tool_call>";
        let json = r#"{"text_a": "5", "b": 5, "c": {"x": [1]}, "d": true, "e": "plain words"}"#;
        assert_eq!(parse(QwenXml, text), Whole::calls([call("f", json)]));
    }

    #[test]
    fn a_program_stays_as_it_is() {
        let text = "<tool_call><function=f><parameter=text>\n\n<function=g>\n  \"é\\\n\n</parameter></function></tool_call>";
        let json = r#"{"text": "\n<function=g>\n  \"é\\\n"}"#;
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
