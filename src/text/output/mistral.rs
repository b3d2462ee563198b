//! `[TOOL_CALLS][{"name": "f", "arguments": {…}}, …]`, and since tokenizer v11
//! `[TOOL_CALLS]f[ARGS]{…}`, with `[CALL_ID]…` between the two in some versions.
//!
//! After mistral-common's instruct tokenizers. Behind the first marker there are only calls.

use super::Format;
use super::call_object::{CallObject, Progress};
use super::marker::{Found, Markers};
use super::pieces::Pieces;

const CALLS: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";
pub(super) const MARKERS: [&str; 3] = [CALLS, ARGS, ID];

pub(super) struct Mistral {
    place: Place,
    markers: Markers,
    calls: usize,
}

enum Place {
    Answer,
    /// Behind the marker: a list of objects, or a name.
    Begin,
    /// In the list, between two objects.
    List,
    Object(Box<CallObject>),
    /// What came of a name.
    Name(String),
    /// Behind a name, in an id that nobody needs.
    Id(String),
    /// In the arguments of the current call.
    Arguments(Quotes),
    /// In the white space behind them.
    Behind,
    /// Behind a list, or in one that cannot be read.
    Rest,
}

/// Whether JSON is within a string, where a marker is part of the text, and how deep in objects and lists.
#[derive(Default)]
struct Quotes {
    inside: bool,
    escaped: bool,
    depth: usize,
    /// What is no JSON goes on to the next marker.
    broken: bool,
}

impl Quotes {
    fn of_no_json() -> Self {
        Self {
            broken: true,
            ..Self::default()
        }
    }

    /// Whether the object ends with this character.
    fn step(&mut self, c: char) -> bool {
        let mut ends = false;
        match c {
            // A string of JSON has no line breaks: an unclosed one does not swallow the next call.
            '\n' | '\r' => self.inside = false,
            '"' if !self.escaped => self.inside = !self.inside,
            '{' | '[' if !self.inside => self.depth += 1,
            '}' | ']' if !self.inside => {
                ends = self.depth == 1 && !self.broken;
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
        self.escaped = self.inside && c == '\\' && !self.escaped;
        ends
    }
}

impl Default for Mistral {
    fn default() -> Self {
        Self {
            place: Place::Answer,
            markers: Markers::new(&MARKERS),
            calls: 0,
        }
    }
}

impl Mistral {
    fn character(&mut self, place: Place, c: char, out: &mut Pieces) -> Place {
        let mut bytes = [0; 4];
        let text = &*c.encode_utf8(&mut bytes);
        match place {
            Place::Answer | Place::Rest => {
                out.content(text);
                place
            }
            Place::Behind if c.is_whitespace() => Place::Behind,
            Place::Behind => {
                out.content(text);
                Place::Rest
            }
            Place::Begin if c.is_whitespace() => Place::Begin,
            Place::Begin if c == '[' => Place::List,
            Place::Begin => Place::Name(text.to_owned()),
            Place::List if c.is_whitespace() || c == ',' => Place::List,
            Place::List if c == ']' => Place::Rest,
            Place::List if c == '{' => {
                let mut call = Box::new(CallObject::new(self.calls));
                call.step(c, out);
                Place::Object(call)
            }
            Place::List => {
                out.content(text);
                Place::Rest
            }
            Place::Object(mut call) => match call.step(c, out) {
                Progress::More => Place::Object(call),
                Progress::Done if call.told() => {
                    self.calls += 1;
                    Place::List
                }
                Progress::Done => {
                    out.content(call.raw());
                    Place::List
                }
                Progress::Broken if call.told() => {
                    self.calls += 1;
                    call.verbatim(text, out);
                    Place::Arguments(Quotes::of_no_json())
                }
                Progress::Broken => {
                    out.content(call.raw());
                    out.content(text);
                    Place::Rest
                }
            },
            // Some write no marker between the two; a name has no brace.
            Place::Name(name) | Place::Id(name) if c == '{' => {
                self.call(&name, out);
                self.character(Place::Arguments(Quotes::default()), c, out)
            }
            Place::Name(name) => Place::Name(name + text),
            Place::Id(name) => Place::Id(name),
            Place::Arguments(mut quotes) => {
                let ends = quotes.step(c);
                out.arguments(self.calls - 1, text);
                match ends {
                    true => Place::Behind,
                    false => Place::Arguments(quotes),
                }
            }
        }
    }

    fn call(&mut self, name: &str, out: &mut Pieces) {
        out.call(self.calls, name.trim());
        self.calls += 1;
    }

    fn marker(&mut self, place: Place, marker: usize, out: &mut Pieces) -> Place {
        match (place, MARKERS[marker]) {
            // Inside an object it is part of a string.
            (place @ (Place::Object(_) | Place::Arguments(Quotes { inside: true, .. })), text) => {
                text.chars()
                    .fold(place, |place, c| self.character(place, c, out))
            }
            (Place::Name(name), CALLS) => {
                out.content(&name);
                Place::Begin
            }
            (_, CALLS) => Place::Begin,
            (Place::Name(name) | Place::Id(name), ARGS) => {
                self.call(&name, out);
                Place::Arguments(Quotes::default())
            }
            (Place::Name(name), _) => Place::Id(name),
            (place, text) => text
                .chars()
                .fold(place, |place, c| self.character(place, c, out)),
        }
    }
}

impl Format for Mistral {
    fn step(&mut self, character: char, out: &mut Pieces) {
        let place = std::mem::replace(&mut self.place, Place::Answer);
        let (text, marker) = match self.markers.step(character) {
            Found::Text(text) => (text, None),
            Found::Marker(text, marker) => (text, Some(marker)),
        };
        let place = text
            .chars()
            .fold(place, |place, c| self.character(place, c, out));
        self.place = match marker {
            Some(marker) => self.marker(place, marker, out),
            None => place,
        };
    }

    fn end(&mut self, out: &mut Pieces) {
        let rest = self.markers.end();
        let place = std::mem::replace(&mut self.place, Place::Answer);
        match rest
            .chars()
            .fold(place, |place, c| self.character(place, c, out))
        {
            Place::Object(call) if !call.told() => out.content(call.raw()),
            Place::Name(name) | Place::Id(name) => out.content(&name),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ToolFormat::Mistral;
    use super::super::testing::{Whole, call, parse};

    #[test]
    fn both_ways_are_read() {
        let calls = [call("f", r#"{"a": "[ARGS]"}"#), call("g", "{}")];
        let text = r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": "[ARGS]"}, "id": "123456789"}, {"name": "g", "arguments": {}}]"#;
        assert_eq!(parse(Mistral, text), Whole::calls(calls));
        let text = r#"[TOOL_CALLS]f[CALL_ID]123456789[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}"#;
        assert_eq!(
            parse(Mistral, text),
            Whole::calls([call("f", r#"{"a": 1}"#), call("g", "{}")])
        );
    }

    #[test]
    fn a_marker_in_a_string_is_text_and_a_string_ends_with_its_line() {
        let quoted = r#"{"a": "\"[TOOL_CALLS]", "b": "[ARGS]"}"#;
        let text = format!("[TOOL_CALLS]f[ARGS]{quoted}[TOOL_CALLS]g[ARGS]{{}}");
        assert_eq!(
            parse(Mistral, &text),
            Whole::calls([call("f", quoted), call("g", "{}")])
        );
        let text = "[TOOL_CALLS]f[ARGS]{\"a\": \"oops\n[TOOL_CALLS]g[ARGS]{}";
        assert_eq!(
            parse(Mistral, text),
            Whole::calls([call("f", "{\"a\": \"oops\n"), call("g", "{}")])
        );
    }

    #[test]
    fn the_marker_before_the_arguments_may_be_missing() {
        let text = r#"[TOOL_CALLS]f{"a": "{"}[TOOL_CALLS]g{}"#;
        let calls = [call("f", r#"{"a": "{"}"#), call("g", "{}")];
        assert_eq!(parse(Mistral, text), Whole::calls(calls));
    }

    #[test]
    fn text_before_is_content_and_brackets_are_text() {
        let whole = parse(
            Mistral,
            r#"See [1] and [TOOL].[TOOL_CALLS]f[ARGS]{"a": oops"#,
        );
        assert_eq!(whole.content, "See [1] and [TOOL].");
        assert_eq!(whole.calls, [call("f", r#"{"a": oops"#)]);
    }

    #[test]
    fn arguments_end_with_their_object() {
        let text = "[TOOL_CALLS]f[ARGS]{\"a\": [{\"}\": 1}]}\n and more[TOOL_CALLS]g[ARGS]{} ";
        let whole = parse(Mistral, text);
        assert_eq!(whole.content, "and more");
        let calls = [call("f", r#"{"a": [{"}": 1}]}"#), call("g", "{}")];
        assert_eq!(whole.calls, calls);
    }

    #[test]
    fn what_is_no_call_is_content() {
        assert_eq!(parse(Mistral, "[TOOL_CALLS]hm").content, "hm");
        assert_eq!(
            parse(Mistral, "[TOOL_CALLS][{\"a\": 1}]").content,
            "{\"a\": 1}"
        );
    }
}
