//! `{"name": "f", "parameters": {…}}`, several parted by `;`, after `<|python_tag|>` or bare.
//!
//! The format of Llama 3.1's model card. An object counts only at the start of the output or behind
//! the tag, and from where it has named one of the functions and then a key of arguments: any other
//! JSON is an answer.

use super::call_object::{CallObject, Progress};
use super::marker::{Found, Markers};
use super::pieces::Pieces;
use super::{Format, Functions};

pub(super) const TAG: &str = "<|python_tag|>";

#[derive(Debug, Clone)]
pub(super) struct Llama3 {
    functions: Functions,
    place: Place,
    tag: Markers,
    calls: usize,
    /// White space and separators before an object that may be a call.
    layout: String,
}

#[derive(Debug, Clone)]
enum Place {
    /// An object may begin here.
    Before,
    Call(Box<CallObject>),
    /// Arguments that are no JSON any more go on to the end.
    Broken(Box<CallObject>),
    Answer,
}

impl Llama3 {
    pub fn new(functions: Functions) -> Self {
        Self {
            functions,
            place: Place::Before,
            tag: Markers::new(&[TAG]),
            calls: 0,
            layout: String::new(),
        }
    }

    /// The function of a call whose arguments are next.
    pub fn begun(&self) -> Option<&str> {
        match &self.place {
            Place::Call(call) => call.begun(),
            _ => None,
        }
    }

    /// Whether a few characters may begin a call.
    pub fn may_begin(&self) -> bool {
        matches!(&self.place, Place::Call(call) if call.may_begin())
    }

    fn answer(&mut self, text: &str, out: &mut Pieces) -> Place {
        out.content(&std::mem::take(&mut self.layout));
        out.content(text);
        Place::Answer
    }

    /// Text that is certainly no tag.
    fn text(&mut self, place: Place, text: &str, out: &mut Pieces) -> Place {
        text.chars().fold(place, |place, character| {
            self.character(place, character, out)
        })
    }

    fn character(&mut self, place: Place, character: char, out: &mut Pieces) -> Place {
        match place {
            Place::Before => {
                let between = self.calls > 0 && (character == ';' || character == ',');
                if character.is_whitespace() || between {
                    self.layout.push(character);
                    return Place::Before;
                }
                if character != '{' {
                    return self.answer(character.encode_utf8(&mut [0; 4]), out);
                }
                let call = CallObject::of(Functions::clone(&self.functions), self.calls);
                self.object(Box::new(call), character, out)
            }
            Place::Call(call) => self.object(call, character, out),
            Place::Broken(mut call) => {
                call.verbatim(character.encode_utf8(&mut [0; 4]), out);
                Place::Broken(call)
            }
            Place::Answer => {
                out.content_char(character);
                Place::Answer
            }
        }
    }

    fn object(&mut self, mut call: Box<CallObject>, character: char, out: &mut Pieces) -> Place {
        match call.step(character, out) {
            Progress::More => Place::Call(call),
            Progress::Done if call.told() => {
                self.calls += 1;
                self.layout.clear();
                Place::Before
            }
            Progress::Done => self.answer(call.raw(), out),
            Progress::Broken if call.told() => {
                call.verbatim(character.encode_utf8(&mut [0; 4]), out);
                Place::Broken(call)
            }
            Progress::Broken => {
                self.answer(call.raw(), out);
                out.content_char(character);
                Place::Answer
            }
        }
    }
}

impl Format for Llama3 {
    fn step(&mut self, character: char, out: &mut Pieces) {
        let place = std::mem::replace(&mut self.place, Place::Answer);
        self.place = match self.tag.step(character) {
            Found::Text(text) => self.text(place, &text, out),
            Found::Marker(text, _) => match self.text(place, &text, out) {
                Place::Answer => Place::Before,
                place @ Place::Before => place,
                // In a call the tag can only be part of a string.
                inside => self.text(inside, TAG, out),
            },
        };
    }

    fn end(&mut self, out: &mut Pieces) {
        let rest = self.tag.end();
        let place = std::mem::replace(&mut self.place, Place::Answer);
        match self.text(place, &rest, out) {
            Place::Call(call) if !call.told() => {
                self.answer(call.raw(), out);
            }
            Place::Before if self.calls == 0 => {
                self.answer("", out);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ToolFormat::Llama3Json;
    use super::super::testing::{Whole, call, parse};

    #[test]
    fn calls_are_read_bare_and_tagged() {
        let f = call("f", r#"{"a": "x"}"#);
        let text = r#"{"name": "f", "parameters": {"a": "x"}}"#;
        assert_eq!(parse(Llama3Json, text), Whole::calls([f.clone()]));
        let text = r#"<|python_tag|>{"type": "function", "name": "f", "parameters": {"a": "x"}}; {"name": "g", "parameters": {}}"#;
        assert_eq!(
            parse(Llama3Json, text),
            Whole::calls([f.clone(), call("g", "{}")])
        );
        let text = r#"I look it up.<|python_tag|>{"name": "f", "parameters": {"a": "x"}}"#;
        let whole = parse(Llama3Json, text);
        assert_eq!(
            (whole.content.as_str(), whole.calls),
            ("I look it up.", vec![f])
        );
    }

    #[test]
    fn other_json_and_text_are_answers() {
        for text in [
            r#"{"name": "Ada", "age": 36}"#,
            r#"{"name": "Ada"}"#,
            r#"{"answer": [1, 2]} and more"#,
            "{ not json",
            " Hello {\"name\": \"f\", \"parameters\": {}}",
            r#"{"name": "Ada", "parameters": {"age": 36}}"#,
            r#"{"parameters": {"a": "x"}, "name": "f"}"#,
            r#"{"name": "f", "age": 36}"#,
            "{\"name\": \"f\"",
            "[1]",
            " ",
        ] {
            let whole = parse(Llama3Json, text);
            assert_eq!((whole.content.as_str(), whole.calls.len()), (text, 0));
        }
    }

    #[test]
    fn arguments_in_quotes_are_what_they_say() {
        let text = r#"{"name": "f", "arguments": "{\"a\": 1}"}"#;
        assert_eq!(parse(Llama3Json, text).calls, [call("f", r#"{"a": 1}"#)]);
    }

    #[test]
    fn malformed_arguments_stay_as_they_are() {
        let text = r#"{"name": "f", "parameters": 5}"#;
        assert_eq!(parse(Llama3Json, text).calls, [call("f", "5")]);
        let text = "{\"name\": \"f\", \"parameters\": {\"a\": \"x\n\"}}";
        assert_eq!(
            parse(Llama3Json, text).calls,
            [call("f", "{\"a\": \"x\n\"}}")]
        );
    }
}
