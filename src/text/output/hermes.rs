//! `<tool_call>{"name": "f", "arguments": {…}}</tool_call>`
//!
//! The format of Hermes 2 Pro's model card, used by Qwen 2.5, Qwen 3 and many others.

use super::Format;
use super::call_object::{CallObject, Progress};
use super::marker::{Found, Markers};
use super::pieces::Pieces;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
pub(super) const MARKERS: [&str; 2] = [OPEN, CLOSE];

pub(super) struct Hermes {
    place: Place,
    open: Markers,
    close: Markers,
    /// Behind an object a call may begin although the last was not closed.
    either: Markers,
    calls: usize,
    /// White space that is told only when the answer goes on behind it.
    space: String,
}

enum Place {
    Answer,
    Call(CallObject),
    /// The object was no good: the rest up to the closing tag goes where the beginning went.
    Broken(CallObject),
    /// The object is complete, its closing tag is not there yet.
    Closing,
}

impl Default for Hermes {
    fn default() -> Self {
        Self {
            place: Place::Answer,
            open: Markers::new(&[OPEN]),
            close: Markers::new(&[CLOSE]),
            either: Markers::new(&MARKERS),
            calls: 0,
            space: String::new(),
        }
    }
}

impl Hermes {
    /// White space between calls is layout, so it waits for a word.
    fn content(&mut self, text: &str, out: &mut Pieces) {
        for character in text.chars() {
            self.space.push(character);
            if !character.is_whitespace() {
                out.content(&std::mem::take(&mut self.space));
            }
        }
    }

    /// A call that was not told was none: its text is content.
    fn leave(&mut self, call: &CallObject, rest: &str, out: &mut Pieces) {
        if call.told() {
            self.calls += 1;
        } else {
            self.content(&format!("{OPEN}{}{rest}", call.raw()), out);
        }
    }

    fn broken(&mut self, mut call: CallObject, character: char, out: &mut Pieces) -> Place {
        match self.close.step(character) {
            Found::Text(text) => {
                call.verbatim(&text, out);
                Place::Broken(call)
            }
            Found::Marker(text, _) => {
                call.verbatim(&text, out);
                self.leave(&call, CLOSE, out);
                Place::Answer
            }
        }
    }
}

impl Format for Hermes {
    fn step(&mut self, character: char, out: &mut Pieces) {
        self.place = match std::mem::replace(&mut self.place, Place::Answer) {
            Place::Answer => match self.open.step(character) {
                Found::Text(text) => {
                    self.content(&text, out);
                    Place::Answer
                }
                Found::Marker(text, _) => {
                    self.content(&text, out);
                    Place::Call(CallObject::new(self.calls))
                }
            },
            Place::Call(mut call) => match call.step(character, out) {
                Progress::More => Place::Call(call),
                Progress::Done => {
                    if call.told() {
                        self.leave(&call, "", out);
                        Place::Closing
                    } else {
                        Place::Broken(call)
                    }
                }
                Progress::Broken => self.broken(call, character, out),
            },
            Place::Broken(call) => self.broken(call, character, out),
            Place::Closing => match self.either.step(character) {
                Found::Text(text) => {
                    // A model that writes on behind the object meant it for somebody.
                    self.content(&text, out);
                    Place::Closing
                }
                Found::Marker(text, marker) => {
                    self.content(&text, out);
                    match MARKERS[marker] {
                        OPEN => Place::Call(CallObject::new(self.calls)),
                        _ => Place::Answer,
                    }
                }
            },
        };
    }

    fn end(&mut self, out: &mut Pieces) {
        match std::mem::replace(&mut self.place, Place::Answer) {
            Place::Answer => {
                let rest = self.open.end();
                self.content(&rest, out);
            }
            Place::Call(call) => self.leave(&call, "", out),
            Place::Broken(mut call) => {
                call.verbatim(&self.close.end(), out);
                self.leave(&call, "", out);
            }
            Place::Closing => {
                let rest = self.either.end();
                self.content(&rest, out);
            }
        }
        // Without a call the white space at the end is the answer's own.
        if self.calls == 0 {
            out.content(&std::mem::take(&mut self.space));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ToolFormat::Hermes;
    use super::super::testing::{Whole, call, parse};

    #[test]
    fn a_call_is_read() {
        let text = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [\"}\"]}}\n</tool_call>";
        assert_eq!(
            parse(Hermes, text),
            Whole::calls([call("add", r#"{"a": 1, "b": ["}"]}"#)])
        );
    }

    #[test]
    fn text_before_and_several_calls_keep_their_order() {
        let text = "Let me see.\n<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>\n\
                    <tool_call>{\"arguments\":{\"x\":null},\"name\":\"b\"}</tool_call>\n";
        let whole = parse(Hermes, text);
        assert_eq!(whole.content, "Let me see.");
        assert_eq!(whole.calls, [call("a", "{}"), call("b", r#"{"x":null}"#)]);
    }

    #[test]
    fn a_call_that_was_not_closed_does_not_hide_the_next() {
        let one = r#"<tool_call>{"name": "f", "arguments": {}}"#;
        let whole = parse(Hermes, &[one, "\n", one].concat());
        assert_eq!(whole, Whole::calls([call("f", "{}"), call("f", "{}")]));
    }

    #[test]
    fn a_call_without_arguments_has_none() {
        let whole = parse(Hermes, "<tool_call>{\"name\": \"now\"}</tool_call>");
        assert_eq!(whole.calls, [call("now", "{}")]);
    }

    #[test]
    fn arguments_in_quotes_are_what_they_say() {
        let text = r#"<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>"#;
        assert_eq!(parse(Hermes, text).calls, [call("f", r#"{"a": 1}"#)]);
    }

    #[test]
    fn malformed_arguments_stay_as_they_are() {
        let text = r#"<tool_call>{"name": "f", "arguments": {"a": 1, oops</tool_call>after"#;
        let whole = parse(Hermes, text);
        assert_eq!(whole.calls, [call("f", r#"{"a": 1, oops"#)]);
        assert_eq!(whole.content, "after");
        let text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b\nc}}</tool_call>after";
        let whole = parse(Hermes, text);
        assert_eq!(whole.calls, [call("f", "{\"a\": \"b\nc}}")]);
        assert_eq!(whole.content, "after");
    }

    #[test]
    fn a_missing_brace_before_the_tag_is_not_part_of_the_arguments() {
        let text = r#"<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>"#;
        assert_eq!(parse(Hermes, text).calls, [call("f", r#"{"a": 1}"#)]);
    }

    #[test]
    fn what_is_no_call_is_content() {
        for text in [
            "<tool_call>hello</tool_call>",
            "<tool_call>{\"name\": 5}</tool_call>",
            "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>",
            "<tool_call>{\"arguments\": {}}</tool_call>",
            "a <tool_cal",
            "<tool_call>{\"name\": \"f\"",
            " spaced out \n",
        ] {
            let whole = parse(Hermes, text);
            assert_eq!((whole.content.as_str(), whole.calls.len()), (text, 0));
        }
    }
}
