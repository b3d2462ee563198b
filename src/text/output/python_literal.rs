//! Keyword arguments of a Python call, as JSON: `a=1, b=['x', None]` → `{"a": 1, "b": ["x", null]}`.

use std::iter::Peekable;
use std::str::Chars;

/// Deepest nesting that is read.
const DEPTH: usize = 128;

/// The JSON object of the arguments; `None` if they are anything but keywords with literal values.
///
/// Literals as in the Python reference's section "Literals": strings without prefixes, numbers,
/// `True`, `False`, `None`, lists, tuples and dictionaries. `true`, `false` and `null` count too.
pub(super) fn keywords_to_json(arguments: &str) -> Option<String> {
    let mut reader = Reader {
        rest: arguments.chars().peekable(),
        json: String::from("{"),
    };
    reader.space();
    while reader.rest.peek().is_some() {
        if reader.json.len() > 1 {
            reader.json.push_str(", ");
        }
        let name = reader.word();
        if name.is_empty() {
            return None;
        }
        reader.quoted(&name);
        reader.json.push_str(": ");
        reader.take('=')?;
        reader.value(0)?;
        if reader.rest.peek().is_some() {
            reader.take(',')?;
        }
    }
    reader.json.push('}');
    Some(reader.json)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    json: String,
}

impl Reader<'_> {
    fn space(&mut self) {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
    }

    /// Takes `c` and the space around it.
    fn take(&mut self, c: char) -> Option<()> {
        self.space();
        self.rest.next_if_eq(&c)?;
        self.space();
        Some(())
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|&c| c.is_alphanumeric() || c == '_') {
            word.push(c);
        }
        word
    }

    fn quoted(&mut self, text: &str) {
        // Serializing a string cannot fail; an empty one would be noticed by every test.
        self.json
            .push_str(&serde_json::to_string(text).unwrap_or_default());
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        self.space();
        match *self.rest.peek()? {
            '\'' | '"' => {
                let text = self.string()?;
                self.quoted(&text);
            }
            '[' => self.list('[', ']', depth)?,
            '(' => self.list('(', ')', depth)?,
            '{' => self.dictionary(depth)?,
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number()?,
            _ => {
                let word = match self.word().as_str() {
                    "True" | "true" => "true",
                    "False" | "false" => "false",
                    "None" | "null" => "null",
                    _ => return None,
                };
                self.json.push_str(word);
            }
        }
        self.space();
        Some(())
    }

    fn list(&mut self, open: char, close: char, depth: usize) -> Option<()> {
        self.take(open)?;
        self.json.push('[');
        let mut first = true;
        while self.rest.peek() != Some(&close) {
            if !first {
                self.json.push_str(", ");
            }
            first = false;
            self.value(depth + 1)?;
            if self.rest.peek() != Some(&close) {
                self.take(',')?;
            }
        }
        self.rest.next();
        self.json.push(']');
        Some(())
    }

    fn dictionary(&mut self, depth: usize) -> Option<()> {
        self.take('{')?;
        self.json.push('{');
        let mut first = true;
        while self.rest.peek() != Some(&'}') {
            if !first {
                self.json.push_str(", ");
            }
            first = false;
            let key = self.string()?;
            self.quoted(&key);
            self.take(':')?;
            self.json.push_str(": ");
            self.value(depth + 1)?;
            if self.rest.peek() != Some(&'}') {
                self.take(',')?;
            }
        }
        self.rest.next();
        self.json.push('}');
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let mut text = String::new();
        while let Some(c) = self
            .rest
            .next_if(|&c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_'))
        {
            if c != '_' {
                text.push(c);
            }
        }
        let text = text.strip_prefix('+').unwrap_or(&text);
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
            // An integer of any size stays what it is, digit by digit.
            let trimmed = digits.trim_start_matches('0');
            if text.starts_with('-') {
                self.json.push('-');
            }
            self.json
                .push_str(if trimmed.is_empty() { "0" } else { trimmed });
            return Some(());
        }
        if is_json_number(text) {
            self.json.push_str(text);
            return Some(());
        }
        let number = serde_json::Number::from_f64(text.parse().ok()?)?;
        self.json.push_str(&number.to_string());
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.rest.next_if(|&c| c == '\'' || c == '"')?;
        let mut text = String::new();
        loop {
            match self.rest.next()? {
                c if c == quote => return Some(text),
                '\n' => return None,
                '\\' => self.escape(&mut text)?,
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let meant = match self.rest.next()? {
            '\n' => return Some(()),
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'a' => '\u{7}',
            '0' => '\0',
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            c @ ('\\' | '\'' | '"') => c,
            c => {
                // An escape that Python does not know means itself.
                text.push('\\');
                c
            }
        };
        text.push(meant);
        Some(())
    }

    fn code(&mut self, digits: usize) -> Option<char> {
        let mut code = 0;
        for _ in 0..digits {
            code = code * 16 + self.rest.next()?.to_digit(16)?;
        }
        char::from_u32(code)
    }
}

/// Whether JSON has this number too: it then stays digit by digit, however large.
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            exponent.strip_prefix(['-', '+']).unwrap_or(exponent),
        ),
        None => (text, "0"),
    };
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let leading = whole.len() > 1 && whole.starts_with('0');
    digits(whole) && !leading && digits(fraction) && digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_json() {
        for (python, json) in [
            ("", "{}"),
            ("a=1", r#"{"a": 1}"#),
            (
                r#"a = "x", b='it\'s', c=True ,d=None,"#,
                r#"{"a": "x", "b": "it's", "c": true, "d": null}"#,
            ),
            (
                r"a=[1, -2.5, (3,), []], b={'k': {'n': .5}}",
                r#"{"a": [1, -2.5, [3], []], "b": {"k": {"n": 0.5}}}"#,
            ),
            (r"a='\n\x41\u00e9\q'", r#"{"a": "\nAé\\q"}"#),
            (
                "a=123456789012345678901234567890, b=1_000, c=007",
                r#"{"a": 123456789012345678901234567890, "b": 1000, "c": 7}"#,
            ),
            (
                "a=1e999, b=-2.50E+3, c=1_0.5",
                r#"{"a": 1e999, "b": -2.50E+3, "c": 10.5}"#,
            ),
        ] {
            assert_eq!(keywords_to_json(python).as_deref(), Some(json), "{python}");
        }
    }

    #[test]
    fn what_is_no_keyword_with_a_literal_is_refused() {
        for python in [
            "1",
            "a",
            "a=",
            "a=b",
            "a='x",
            "a=1 b=2",
            "a=1,,b=2",
            "a={1: 2}",
            "a=inf",
            "a=f(1)",
            "a='\n'",
            ",",
            "a=01e999",
            "a=\"\\u12\"",
        ] {
            assert_eq!(keywords_to_json(python), None, "{python}");
        }
        assert_eq!(
            keywords_to_json(&format!("a={}", "[".repeat(100_000))),
            None
        );
    }
}
