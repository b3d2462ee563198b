//! `{"name": "f", "parameters": {…}}`, several parted by `;`, after `<|python_tag|>` or bare.
//!
//! The format of Llama 3.1's model card. A bare object counts only at the start of the output and
//! only with both keys: any other JSON is an answer.

use super::Format;
use super::call_object::{CallObject, Progress};
use super::marker::{Found, Markers};
use super::pieces::Pieces;

pub(super) const TAG: &str = "<|python_tag|>";

pub(super) struct Llama3 {
    place: Place,
    tag: Markers,
    calls: usize,
    /// White space and separators before an object that may be a call.
    layout: String,
}

enum Place {
    /// An object may begin here.
    Before,
    Call(Box<CallObject>),
    /// Arguments that are no JSON any more go on to the end.
    Broken(Box<CallObject>),
    Answer,
}

impl Default for Llama3 {
    fn default() -> Self {
        Self {
            place: Place::Before,
            tag: Markers::new(&[TAG]),
            calls: 0,
            layout: String::new(),
        }
    }
}

impl Llama3 {
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
                self.object(
                    Box::new(CallObject::with_arguments(self.calls)),
                    character,
                    out,
                )
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
            "{\"name\": \"f\"",
            "[1]",
            " ",
        ] {
            let whole = parse(Llama3Json, text);
            assert_eq!((whole.content.as_str(), whole.calls.len()), (text, 0));
        }
    }

    #[test]
    fn malformed_arguments_stay_as_they_are() {
        let text = "{\"name\": \"f\", \"parameters\": {\"a\": \"x\n\"}}";
        assert_eq!(
            parse(Llama3Json, text).calls,
            [call("f", "{\"a\": \"x\n\"}}")]
        );
    }
}
