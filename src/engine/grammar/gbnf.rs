//! llama.cpp's GBNF, turned into llguidance's dialect of Lark.
//!
//! The notation is that of `grammars/README.md` in llama.cpp. Every character becomes a lexeme of its
//! own: a longer one would be matched greedily, and hide where a shorter one could have ended.

use std::collections::HashMap;
use std::fmt::Write;

/// Whether a grammar is written in GBNF: Lark defines its rules by a colon.
pub fn is_gbnf(grammar: &str) -> bool {
    grammar.contains("::=")
}

/// The same grammar in Lark, its `root` as `start`; or what is wrong with it.
pub fn to_lark(grammar: &str) -> Result<String, String> {
    let tokens = tokens(grammar)?;
    let mut names = HashMap::from([("root", "start".to_owned())]);
    let mut defined = Vec::new();
    for pair in tokens.windows(2) {
        if let [Token::Name(name), Token::Defines] = pair {
            if defined.contains(name) {
                return Err(format!("the rule `{name}` is defined twice"));
            }
            defined.push(name);
            let next = names.len();
            names.entry(name).or_insert_with(|| format!("rule{next}"));
        }
    }
    if !defined.contains(&"root") {
        return Err("there is no rule `root`".to_owned());
    }
    let mut lark = String::new();
    for (index, token) in tokens.iter().enumerate() {
        let begins = matches!(tokens.get(index + 1), Some(Token::Defines));
        match token {
            Token::Defines if index > 0 && matches!(tokens[index - 1], Token::Name(_)) => {}
            Token::Defines => return Err("`::=` without a name before it".to_owned()),
            _ if lark.is_empty() && !begins => {
                return Err("the grammar does not begin with a rule".to_owned());
            }
            Token::Name(name) => {
                let name_in_lark = names
                    .get(name)
                    .ok_or_else(|| format!("the rule `{name}` is not defined"))?;
                match begins {
                    true => lark.push_str(&format!("\n{name_in_lark}: ")),
                    false => lark.push_str(&format!("{name_in_lark} ")),
                }
            }
            Token::Chars(regexes) if regexes.is_empty() => lark.push_str("\"\" "),
            Token::Chars(regexes) => {
                // A group, so that what repeats it repeats all of it.
                let body: Vec<String> = regexes.iter().map(|regex| format!("/{regex}/")).collect();
                lark.push_str(&format!("({}) ", body.join(" ")));
            }
            Token::Sign(sign) => {
                // What repeats stands directly behind what it repeats.
                if !matches!(sign.as_str(), "(" | ")" | "|") {
                    lark.truncate(lark.trim_end().len());
                }
                lark.push_str(sign);
                lark.push(' ');
            }
        }
    }
    lark.push('\n');
    Ok(lark)
}

enum Token<'a> {
    Name(&'a str),
    /// `::=`
    Defines,
    /// Characters behind one another, each as a regular expression.
    Chars(Vec<String>),
    /// A parenthesis, a bar, or a count.
    Sign(String),
}

fn tokens(grammar: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = grammar.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, behind) = match first {
            '#' => {
                let end = rest.find('\n').unwrap_or(rest.len());
                rest = rest[end..].trim_start();
                continue;
            }
            ':' if rest.starts_with("::=") => (Token::Defines, &rest[3..]),
            '"' => literal(&rest[1..])?,
            '[' => class(&rest[1..])?,
            '.' => (Token::Chars(vec![r"(.|\n)".to_owned()]), &rest[1..]),
            '(' | ')' | '|' | '*' | '+' | '?' => (Token::Sign(first.to_string()), &rest[1..]),
            '{' => count(rest)?,
            _ if is_name(first) => {
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                (Token::Name(&rest[..end]), &rest[end..])
            }
            other => return Err(format!("{other:?} does not belong into GBNF")),
        };
        tokens.push(token);
        rest = behind.trim_start();
    }
    Ok(tokens)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// The characters of a literal, behind its opening quote.
fn literal(mut rest: &str) -> Result<(Token<'_>, &str), String> {
    let mut chars = Vec::new();
    loop {
        if let Some(behind) = rest.strip_prefix('"') {
            return Ok((Token::Chars(chars), behind));
        }
        let (char, behind) = character(rest)?.ok_or("a literal has no end")?;
        chars.push(escaped(char));
        rest = behind;
    }
}

/// The characters of a class, behind its opening bracket.
fn class(rest: &str) -> Result<(Token<'_>, &str), String> {
    let (mut rest, mut regex) = match rest.strip_prefix('^') {
        Some(rest) => (rest, "[^".to_owned()),
        None => (rest, "[".to_owned()),
    };
    loop {
        if let Some(behind) = rest.strip_prefix(']') {
            regex.push(']');
            return Ok((Token::Chars(vec![regex]), behind));
        }
        let no_end = "a character class has no end";
        let (from, behind) = character(rest)?.ok_or(no_end)?;
        regex.push_str(&escaped(from));
        rest = behind;
        if let Some(range) = rest.strip_prefix('-').filter(|r| !r.starts_with(']')) {
            let (to, behind) = character(range)?.ok_or(no_end)?;
            if to < from {
                return Err(format!("the range {from:?} to {to:?} is empty"));
            }
            regex.push('-');
            regex.push_str(&escaped(to));
            rest = behind;
        }
    }
}

/// `{m}`, `{m,}` or `{m,n}`.
fn count(rest: &str) -> Result<(Token<'_>, &str), String> {
    let end = rest.find('}').ok_or("a count has no end")?;
    let inner = &rest[1..end];
    let number = |text: &str| text.is_empty() || text.parse::<u32>().is_ok();
    let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
    let (least, most) = (least.trim(), most.trim());
    if !number(least) || !number(most) || (least.is_empty() && most.is_empty()) {
        return Err(format!("{{{inner}}} is not a count"));
    }
    let least = if least.is_empty() { "0" } else { least };
    let sign = match inner.contains(',') {
        true => format!("{{{least},{most}}}"),
        false => format!("{{{least}}}"),
    };
    Ok((Token::Sign(sign), &rest[end + 1..]))
}

/// One character, perhaps escaped; `None` at the end.
fn character(rest: &str) -> Result<Option<(char, &str)>, String> {
    let mut chars = rest.chars();
    let Some(first) = chars.next() else {
        return Ok(None);
    };
    if first != '\\' {
        return Ok(Some((first, chars.as_str())));
    }
    let Some(kind) = chars.next() else {
        return Ok(None);
    };
    let behind = chars.as_str();
    let hex = |digits: usize| {
        let code = behind.get(..digits);
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        code.and_then(char::from_u32)
            .map(|char| Some((char, &behind[digits..])))
            .ok_or_else(|| format!("\\{kind} wants {digits} hexadecimal digits of a character"))
    };
    match kind {
        'n' => Ok(Some(('\n', behind))),
        'r' => Ok(Some(('\r', behind))),
        't' => Ok(Some(('\t', behind))),
        'x' => hex(2),
        'u' => hex(4),
        'U' => hex(8),
        '"' | '\\' | '[' | ']' | '-' | '^' => Ok(Some((kind, behind))),
        other => Err(format!("\\{other} is not an escape of GBNF")),
    }
}

/// A character in a regular expression.
fn escaped(char: char) -> String {
    let mut regex = String::new();
    // Writing to a string does not fail.
    let _always = write!(regex, r"\x{{{:x}}}", u32::from(char));
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_lark() {
        let gbnf = "# a list\nroot ::= item (\",\" ws item)*\nitem ::= [a-c]{2,} |\n  \"é\\n\"?\nws ::= \"\" | .";
        let lark = to_lark(gbnf).unwrap();
        assert_eq!(
            lark,
            "\nstart: rule1 ( (/\\x{2c}/) rule2 rule1 )* \
             \nrule1: (/[\\x{61}-\\x{63}]/){2,} | (/\\x{e9}/ /\\x{a}/)? \
             \nrule2: \"\" | (/(.|\\n)/) \n"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (gbnf, word) in [
            ("item ::= \"a\"", "root"),
            ("root ::= item", "item"),
            ("root ::= \"a\nitem", "no end"),
            ("root ::= [a", "no end"),
            ("root ::= [z-a]", "empty"),
            ("root ::= \"\\q\"", "escape"),
            ("root ::= \"\\x4\"", "hexadecimal"),
            ("root ::= \"a\"{x}", "count"),
            ("root ::= \"a\"{2", "no end"),
            ("root ::= <think>", "'<'"),
            ("root ::= \"a\"\nroot ::= \"b\"", "twice"),
            ("root ::= \"a\" ::= \"b\"", "name"),
            ("\"a\" root ::= \"a\"", "begin"),
        ] {
            let error = to_lark(gbnf).unwrap_err();
            assert!(error.contains(word), "{gbnf}: {error}");
        }
    }
}
