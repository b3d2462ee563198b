//! `[f(a=1, b='x'), g()]`: a list of Python calls, and nothing else, as Llama 3.2 and 4 write it.
//!
//! A list counts as far as it calls functions that there are. A call is told when its closing
//! parenthesis came, as JSON.

use super::pieces::Pieces;
use super::python_literal::keywords_to_json;
use super::{Format, Functions};

#[derive(Debug, Clone)]
pub(super) struct Pythonic {
    functions: Functions,
    place: Place,
    calls: usize,
    /// What was not told yet: the list's start, white space, the call in progress.
    raw: String,
}

#[derive(Debug, Clone, Default)]
enum Place {
    /// A list may begin.
    #[default]
    Start,
    /// A name may begin.
    Item,
    Name(String),
    Arguments(Arguments),
    /// A comma or the end of the list.
    Comma,
    Answer,
}

#[derive(Debug, Clone)]
struct Arguments {
    name: String,
    text: String,
    depth: usize,
    quote: Option<char>,
    escaped: bool,
}

impl Pythonic {
    pub fn new(functions: Functions) -> Self {
        Self {
            functions,
            place: Place::Start,
            calls: 0,
            raw: String::new(),
        }
    }

    /// The function of a call whose arguments are next.
    pub fn begun(&self) -> Option<&str> {
        match &self.place {
            Place::Arguments(arguments) if arguments.text.is_empty() => Some(&arguments.name),
            _ => None,
        }
    }

    /// Whether a few characters may begin a call.
    pub fn may_begin(&self) -> bool {
        match &self.place {
            Place::Start | Place::Item | Place::Comma => true,
            Place::Name(begun) => self.functions.keys().any(|name| name.starts_with(begun)),
            Place::Arguments(_) | Place::Answer => false,
        }
    }

    fn next(&mut self, place: Place, c: char, out: &mut Pieces) -> Place {
        match place {
            Place::Answer => Place::Answer,
            Place::Start | Place::Item | Place::Comma if c.is_whitespace() => place,
            Place::Start if c == '[' => Place::Item,
            Place::Item if is_name(c) => Place::Name(c.to_string()),
            Place::Name(name) if c == '(' && self.functions.contains_key(&name) => {
                Place::Arguments(Arguments {
                    name,
                    text: String::new(),
                    depth: 0,
                    quote: None,
                    escaped: false,
                })
            }
            Place::Name(mut name) if is_name(c) => {
                name.push(c);
                Place::Name(name)
            }
            Place::Arguments(mut arguments) => {
                if arguments.ends_with(c) {
                    self.tell(&arguments, out)
                } else {
                    Place::Arguments(arguments)
                }
            }
            Place::Comma if c == ',' => Place::Item,
            Place::Item | Place::Comma if c == ']' && self.calls > 0 => {
                self.raw.clear(); // the bracket is layout; an answer may follow
                Place::Answer
            }
            _ => Place::Answer,
        }
    }

    fn tell(&mut self, arguments: &Arguments, out: &mut Pieces) -> Place {
        let json = keywords_to_json(&arguments.text);
        // `[note(s)]` is text; `f(a=<nonsense>)` is a call that went wrong.
        if json.is_none() && !arguments.are_keywords() {
            return Place::Answer;
        }
        self.raw.clear();
        out.call(self.calls, &arguments.name);
        out.arguments(self.calls, json.as_ref().unwrap_or(&arguments.text));
        self.calls += 1;
        Place::Comma
    }
}

/// Whether a function's name may have it.
fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

impl Arguments {
    /// Whether they begin as a call's do.
    fn are_keywords(&self) -> bool {
        self.text.split_once('=').is_some_and(|(name, _)| {
            let name = name.trim();
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        })
    }

    /// Whether this character is the parenthesis that closes the call.
    fn ends_with(&mut self, c: char) -> bool {
        match self.quote {
            Some(quote) => {
                if c == quote && !self.escaped {
                    self.quote = None;
                }
                self.escaped = c == '\\' && !self.escaped;
            }
            None => match c {
                ')' if self.depth == 0 => return true,
                '\'' | '"' => self.quote = Some(c),
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            },
        }
        self.text.push(c);
        false
    }
}

impl Format for Pythonic {
    fn step(&mut self, character: char, out: &mut Pieces) {
        if matches!(self.place, Place::Answer) {
            out.content_char(character);
            return;
        }
        self.raw.push(character);
        let place = std::mem::take(&mut self.place);
        self.place = self.next(place, character, out);
        if matches!(self.place, Place::Comma) && character == ')' {
            self.raw.clear();
        }
        if matches!(self.place, Place::Answer) {
            out.content(&std::mem::take(&mut self.raw));
        }
    }

    fn end(&mut self, out: &mut Pieces) {
        // A call that was cut off is one, with what there is of its arguments.
        if let Place::Arguments(arguments) = &self.place
            && (self.calls > 0 || arguments.are_keywords())
        {
            self.raw.clear();
            out.call(self.calls, &arguments.name);
            out.arguments(self.calls, &arguments.text);
            self.calls += 1;
            return;
        }
        // After a call, commas and white space are layout.
        let raw = std::mem::take(&mut self.raw);
        let layout = self.calls > 0 && matches!(self.place, Place::Item | Place::Comma);
        if !layout {
            out.content(&raw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ToolFormat::Pythonic;
    use super::super::testing::{Whole, call, parse};

    #[test]
    fn calls_are_read() {
        let text = r#"[get_weather(city="Paris (]", days=[1, 2]), mail-send(to='a'), now()]"#;
        let calls = [
            call("get_weather", r#"{"city": "Paris (]", "days": [1, 2]}"#),
            call("mail-send", r#"{"to": "a"}"#),
            call("now", "{}"),
        ];
        assert_eq!(parse(Pythonic, text), Whole::calls(calls.clone()));
        let spaced = format!("\n {} ", text.replace("), ", ") ,\n"));
        assert_eq!(parse(Pythonic, &spaced).calls, calls);
    }

    #[test]
    fn other_lists_and_text_are_answers() {
        for text in [
            "[1, 2]",
            "[note(s) below]",
            "[]",
            "[f",
            "[f(a",
            "Hello [f(a=1)]",
            "[x] done",
            "[h(a=1)]",
            " ",
        ] {
            let whole = parse(Pythonic, text);
            assert_eq!((whole.content.as_str(), whole.calls.len()), (text, 0));
        }
    }

    #[test]
    fn a_call_that_was_cut_off_is_one() {
        assert_eq!(parse(Pythonic, "[f(a=1").calls, [call("f", "a=1")]);
        let whole = parse(Pythonic, "[f(a=1), g(");
        assert_eq!(
            whole,
            Whole::calls([call("f", r#"{"a": 1}"#), call("g", "")])
        );
    }

    #[test]
    fn malformed_arguments_stay_as_they_are() {
        assert_eq!(
            parse(Pythonic, "[f(a=oops, b=1)]").calls,
            [call("f", "a=oops, b=1")]
        );
    }
}
