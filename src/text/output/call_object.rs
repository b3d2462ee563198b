//! A call written as a JSON object: `{"name": "f", "arguments": {…}}`.

use super::Functions;
use super::pieces::Pieces;

/// Deepest nesting that is followed; what goes deeper is no call anybody could execute.
const DEPTH: usize = 128;

/// Reads one object as it streams and tells the call as soon as its name and the beginning of its
/// arguments are known. The arguments are told as they are written.
#[derive(Debug, Clone)]
pub(super) struct CallObject {
    index: usize,
    at: At,
    /// Everything so far, for the case that it is no call.
    raw: String,
    key: String,
    name: Option<String>,
    /// Arguments that came before the name.
    early: String,
    arguments: bool,
    /// The functions that make an object a call, where it may be something else.
    functions: Option<Functions>,
    told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Open,
    /// Before a key, or the end of the object where `first`.
    Key {
        first: bool,
    },
    InKey {
        escaped: bool,
    },
    Colon,
    Value,
    /// In the name, a string.
    InName {
        escaped: bool,
    },
    /// In the arguments or in a value that is of no interest.
    In(Nested),
    Comma,
    Done,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Nested {
    of: Of,
    depth: usize,
    string: bool,
    escaped: bool,
    /// A number or a word: it has no end of its own.
    bare: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// An object of arguments, told as it comes.
    Arguments,
    /// Arguments in a JSON string, told when it is complete.
    Quoted,
    Other,
}

/// How far the object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// The closing brace came.
    Done,
    /// This is not the object of a call (any more).
    Broken,
}

impl CallObject {
    /// A call that will have this number.
    pub fn new(index: usize) -> Self {
        Self {
            index,
            at: At::Open,
            raw: String::new(),
            key: String::new(),
            name: None,
            early: String::new(),
            arguments: false,
            functions: None,
            told: false,
        }
    }

    /// An object that is a call only if it names one of the functions and then has arguments:
    /// `{"name": "Ada"}` may be an answer.
    pub fn of(functions: Functions, index: usize) -> Self {
        Self {
            functions: Some(functions),
            ..Self::new(index)
        }
    }

    /// The function that the object calls, if that is certain and its arguments are next.
    pub fn begun(&self) -> Option<&str> {
        let begins = self.told && self.at == At::Value && !self.arguments;
        self.name.as_deref().filter(|_| begins)
    }

    /// Whether the object names a function, or may be about to.
    pub fn may_begin(&self) -> bool {
        let named = || self.name.is_some() && self.is_callable();
        !self.told && (matches!(self.at, At::InName { .. }) || named())
    }

    fn is_callable(&self) -> bool {
        match (&self.functions, &self.name) {
            (Some(functions), Some(name)) => functions.contains_key(name),
            (functions, _) => functions.is_none(),
        }
    }

    /// Whether the value that comes is arguments.
    fn awaits_arguments(&self) -> bool {
        matches!(self.key.as_str(), "arguments" | "parameters") && !self.arguments
    }

    /// Whether the call was told: then all of it is in the pieces, otherwise nothing.
    pub fn told(&self) -> bool {
        self.told
    }

    /// All that was read.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Takes the next character. One that breaks the object is not taken: it is the caller's.
    pub fn step(&mut self, character: char, out: &mut Pieces) -> Progress {
        self.at = self.next(character, out);
        match self.at {
            At::Broken => return Progress::Broken,
            At::Done => self.complete(out),
            _ => {}
        }
        self.raw.push(character);
        if self.at == At::Done {
            Progress::Done
        } else {
            Progress::More
        }
    }

    /// Takes text that is no JSON any more: arguments stay as they were written.
    pub fn verbatim(&mut self, text: &str, out: &mut Pieces) {
        self.raw.push_str(text);
        if self.told {
            out.arguments(self.index, text);
        }
    }

    /// A call without arguments has none to be malformed.
    fn complete(&mut self, out: &mut Pieces) {
        if self.functions.is_some() {
            return;
        }
        self.tell(out);
        if self.told && !self.arguments {
            out.arguments(self.index, "{}");
        }
    }

    fn next(&mut self, c: char, out: &mut Pieces) -> At {
        let space = c.is_ascii_whitespace();
        match self.at {
            At::Done | At::Broken => At::Broken,
            At::Open if c == '{' => At::Key { first: true },
            At::Key { first: true } if c == '}' => At::Done,
            At::Key { .. } if c == '"' => {
                self.key.clear();
                At::InKey { escaped: false }
            }
            At::InKey { escaped: false } if c == '"' => At::Colon,
            At::InKey { escaped } => {
                self.key.push(c);
                At::InKey {
                    escaped: c == '\\' && !escaped,
                }
            }
            At::Colon if c == ':' => {
                if self.functions.is_some() && self.awaits_arguments() && self.is_callable() {
                    self.tell(out);
                }
                At::Value
            }
            At::Comma if c == ',' => At::Key { first: false },
            At::Comma if c == '}' => At::Done,
            At::Open | At::Key { .. } | At::Colon | At::Value | At::Comma if space => self.at,
            At::Value => self.value(c, out),
            At::InName { escaped: false } if c == '"' => {
                self.key.push(c);
                match serde_json::from_str::<String>(&self.key) {
                    Ok(name) if !name.is_empty() => {
                        self.name = Some(name);
                        if self.arguments {
                            self.tell(out);
                        }
                        At::Comma
                    }
                    _ => At::Broken,
                }
            }
            At::InName { .. } if c.is_control() => At::Broken,
            At::InName { escaped } => {
                self.key.push(c);
                At::InName {
                    escaped: c == '\\' && !escaped,
                }
            }
            At::In(nested) => self.nested(nested, c, out),
            At::Open | At::Key { .. } | At::Colon | At::Comma => At::Broken,
        }
    }

    fn value(&mut self, c: char, out: &mut Pieces) -> At {
        let of = match self.key.as_str() {
            "name" if self.name.is_none() => {
                self.key.clear();
                self.key.push(c);
                return if c == '"' {
                    At::InName { escaped: false }
                } else {
                    At::Broken
                };
            }
            _ if self.awaits_arguments() && (self.told || self.functions.is_none()) => {
                self.arguments = true;
                if c == '"' { Of::Quoted } else { Of::Arguments }
            }
            _ => Of::Other,
        };
        if of == Of::Arguments {
            self.tell(out);
        }
        let nested = Nested {
            of,
            depth: 0,
            string: false,
            escaped: false,
            bare: false,
        };
        self.nested(nested, c, out)
    }

    fn nested(&mut self, mut nested: Nested, c: char, out: &mut Pieces) -> At {
        let outside = !nested.string;
        if nested.bare && outside && (c == ',' || c == '}' || c.is_ascii_whitespace()) {
            return match c {
                ',' => At::Key { first: false },
                '}' => At::Done,
                _ => At::Comma,
            };
        }
        let mut end = false;
        match c {
            // A line break in a string is not JSON: without this an unclosed string would swallow all.
            '\n' | '\r' if nested.string => return At::Broken,
            '"' if nested.string && !nested.escaped => {
                nested.string = false;
                end = nested.depth == 0;
            }
            '"' if outside && !nested.bare => nested.string = true,
            '{' | '[' if outside && !nested.bare => {
                nested.depth += 1;
                if nested.depth > DEPTH {
                    return At::Broken;
                }
            }
            '}' | ']' if outside => {
                let Some(depth) = nested.depth.checked_sub(1) else {
                    return At::Broken;
                };
                nested.depth = depth;
                end = depth == 0;
            }
            ',' | ':' if outside && nested.depth == 0 => return At::Broken,
            // Never JSON, and how every closing tag begins.
            '<' if outside => return At::Broken,
            _ if outside && nested.depth == 0 => nested.bare = true,
            _ => {}
        }
        nested.escaped = nested.string && c == '\\' && !nested.escaped;
        match nested.of {
            Of::Arguments if self.told => out.arguments(self.index, c.encode_utf8(&mut [0; 4])),
            Of::Arguments | Of::Quoted => self.early.push(c),
            Of::Other => {}
        }
        if !end {
            return At::In(nested);
        }
        if nested.of == Of::Quoted {
            // Some models quote the object once more: what they mean is what it says.
            if let Ok(text) = serde_json::from_str::<String>(&self.early) {
                self.early = text;
            }
            if self.name.is_some() {
                self.tell(out);
            }
        }
        At::Comma
    }

    /// Tells the call and what of its arguments is held back, if its name is known.
    fn tell(&mut self, out: &mut Pieces) {
        let Some(name) = &self.name else { return };
        if !self.told {
            out.call(self.index, name);
            self.told = true;
        }
        out.arguments(self.index, &std::mem::take(&mut self.early));
    }
}
