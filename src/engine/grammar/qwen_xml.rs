//! Arguments as Qwen3-Coder writes them: `<parameter=a>`, the value between line breaks,
//! `</parameter>`. Strings are bare text, everything else is JSON.

use std::collections::HashSet;

use llguidance::regex_to_lark;
use serde_json::{Map, Value};

use super::GrammarError;
use super::arguments::{self, Argument, Definitions, unsupported};
use super::lark::{Lark, exactly, literal};

const END: &str = "</parameter>";

/// Keywords that say nothing of a text.
const NEUTRAL: [&str; 10] = [
    "type",
    "title",
    "description",
    "default",
    "examples",
    "$defs",
    "definitions",
    "$schema",
    "$comment",
    "deprecated",
];

impl Lark<'_> {
    /// The parameters that a schema accepts, each with the line break behind it.
    ///
    /// # Errors
    /// [`GrammarError::Unsupported`], and those of preparing a schema.
    pub fn parameters(&mut self, schema: &Value) -> Result<String, GrammarError> {
        self.json(schema)?;
        let definitions = Definitions::of(schema);
        let mut line = String::new();
        for Argument {
            name,
            schema,
            required,
        } in &arguments::of(schema)?
        {
            if name.trim() != *name || name.is_empty() || name.contains(['>', '\n']) {
                let reason = format!("`{name}` cannot be the name of a parameter in such a call");
                return Err(unsupported("properties", &reason));
            }
            let target = definitions.target(schema)?;
            let value = match target.as_object() {
                Some(keywords) if is_text(target) => {
                    let text = text(name, keywords)?;
                    let content = self.add("CONTENT", &text);
                    self.add(
                        "VALUE",
                        &format!("{content} {}", literal(&format!("\n{END}\n"))),
                    )
                }
                _ => {
                    let json = self.json(&definitions.complete(schema)?)?;
                    let json = self.add("json", &json);
                    format!("{json} {}", literal(&format!("\n{END}\n")))
                }
            };
            let open = literal(&format!("<parameter={name}>\n"));
            let parameter = self.add("parameter", &format!("{open} {value}"));
            line.push_str(&parameter);
            line.push_str(if *required { " " } else { "? " });
        }
        Ok(line)
    }

    /// Any parameters, each with the line break behind it.
    pub fn any_parameters(&mut self) -> String {
        let name = self.add("NAME", "/[^<>\\n]+/");
        let content = self.add("CONTENT", &format!("/(.|\\n)*/ & {}", not_end()));
        let end = literal(&format!("\n{END}\n"));
        let value = self.add("VALUE", &format!("{content} {end}"));
        let open = literal("<parameter=");
        let parameter = format!("{open} {name} \">\\n\" {value}");
        format!("{}*", self.add("parameter", &parameter))
    }
}

/// A terminal that does not hold the tag which ends a parameter.
fn not_end() -> String {
    format!(r"~/(.|\n)*{}(.|\n)*/", exactly(END))
}

/// The arguments that are bare text, by the schema of all.
pub fn bare_texts(schema: &Value) -> HashSet<String> {
    let definitions = Definitions::of(schema);
    let object = definitions.target(schema).unwrap_or(schema);
    let properties = object.get("properties").and_then(Value::as_object);
    let text = |(name, schema): (&String, &Value)| {
        let is = definitions.target(schema).is_ok_and(is_text);
        is.then(|| name.clone())
    };
    properties.into_iter().flatten().filter_map(text).collect()
}

fn is_text(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "string")
}

/// The terminal of a text that a schema accepts.
fn text(name: &str, keywords: &Map<String, Value>) -> Result<String, GrammarError> {
    let mut parts = Vec::new();
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("enum", Value::Array(values)) => parts.push(one_of(name, values)?),
            ("const", value) => parts.push(one_of(name, std::slice::from_ref(value))?),
            ("format", Value::String(format)) => parts.push(formatted(name, format)?),
            ("pattern", Value::String(pattern)) => parts.push(searched(pattern)?),
            ("minLength" | "maxLength", _) => {}
            (keyword, _) if NEUTRAL.contains(&keyword) => {}
            (keyword, _) => {
                let reason = format!("not for the text of `{name}` in this model's calls");
                return Err(unsupported(keyword, &reason));
            }
        }
    }
    let length = |keyword: &str| match keywords.get(keyword) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| {
            GrammarError::Invalid(format!("{keyword} must be a length, not {value}"))
        }),
    };
    let (least, most) = (length("minLength")?, length("maxLength")?);
    parts.push(match (least.unwrap_or(0), most) {
        (0, None) => r"/(.|\n)*/".to_owned(),
        (least, None) => format!(r"/(.|\n){{{least},}}/"),
        (least, Some(most)) => format!(r"/(.|\n){{{least},{most}}}/"),
    });
    parts.push(not_end());
    Ok(parts.join(" & "))
}

fn one_of(name: &str, values: &[Value]) -> Result<String, GrammarError> {
    let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
    let texts = texts.unwrap_or_default();
    if texts.is_empty() || texts.iter().any(|text| text.contains(END)) {
        let reason = format!("`{name}` must be one of some texts without `{END}`");
        return Err(unsupported("enum", &reason));
    }
    let texts: Vec<String> = texts.into_iter().map(exactly).collect();
    Ok(format!("/({})/", texts.join("|")))
}

/// A text of a well-known format.
fn formatted(name: &str, format: &str) -> Result<String, GrammarError> {
    const DATE: &str = "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])\
                        |(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))";
    const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?\
                        (Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
    const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    let regex = match format {
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "date-time" => format!("{DATE}T{TIME}"),
        "uuid" => "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}".to_owned(),
        "ipv4" => format!(r"{BYTE}(\.{BYTE}){{3}}"),
        other => {
            let reason =
                format!("`{other}` is not known for the text of `{name}` in this model's calls");
            return Err(unsupported("format", &reason));
        }
    };
    Ok(format!("/{regex}/"))
}

/// A text in which a pattern is found: JSON Schema does not anchor patterns. `^` and `$` are known at
/// its ends.
fn searched(pattern: &str) -> Result<String, GrammarError> {
    let inner = pattern.strip_prefix('^');
    let from_start = inner.is_some();
    let inner = inner.unwrap_or(pattern);
    let (mut escaped, mut class, mut depth, mut choice) = (false, false, 0_usize, false);
    let mut anchors = Vec::new();
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => class = false,
            _ if class => {}
            '[' => class = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => choice = true,
            '^' | '$' => anchors.push(at),
            _ => {}
        }
    }
    let last = inner.len().checked_sub(1);
    let to_end = last.is_some() && anchors.last().copied() == last && inner.ends_with('$');
    let elsewhere = anchors.len() > usize::from(to_end);
    if elsewhere || choice && (from_start || to_end) {
        let reason = "`^` and `$` can only be its first and its last character, around all of it";
        return Err(unsupported("pattern", reason));
    }
    let inner = if to_end {
        &inner[..inner.len() - 1]
    } else {
        inner
    };
    let inner = regex_to_lark(inner, "dw");
    let (before, behind) = (any_unless(from_start), any_unless(to_end));
    Ok(format!("/{before}({inner}){behind}/"))
}

fn any_unless(anchored: bool) -> &'static str {
    if anchored { "" } else { r"(.|\n)*" }
}
