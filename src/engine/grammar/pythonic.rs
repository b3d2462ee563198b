//! Arguments as Python writes them: `a=1, b=['x', None]`.
//!
//! JSON is a Python literal but for `true`, `false` and `null`. Where a schema lets these be, its
//! shape is written in Lark with Python's words; what is beyond that stays JSON, which the parser of
//! such calls reads too.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::GrammarError;
use super::arguments::{self, Argument, Definitions, unsupported, with};
use super::lark::{Lark, literal};

/// Deepest nesting that is looked through.
const MAX_DEPTH: usize = 32;

/// Keywords that say something else of a list or an object than what it holds.
const SHAPES: [&str; 3] = ["items", "minItems", "maxItems"];
const OBJECTS: [&str; 3] = ["properties", "required", "additionalProperties"];
const NEUTRAL: [&str; 9] = [
    "type",
    "title",
    "description",
    "default",
    "examples",
    "$defs",
    "definitions",
    "$schema",
    "$comment",
];

impl Lark<'_> {
    /// The keyword arguments that a schema accepts, without the parentheses.
    ///
    /// # Errors
    /// [`GrammarError::Unsupported`], and those of preparing a schema.
    pub fn keywords(&mut self, schema: &Value) -> Result<String, GrammarError> {
        self.json(schema)?;
        let arguments = arguments::of(schema)?;
        let mut python = Python {
            lark: self,
            definitions: Definitions::of(schema),
            followed: HashMap::new(),
        };
        let mut members = Vec::with_capacity(arguments.len());
        for Argument {
            name,
            schema,
            required,
        } in &arguments
        {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) {
                let reason = format!("`{name}` cannot be the name of an argument in a Python call");
                return Err(unsupported("properties", &reason));
            }
            let value = python.value(schema, 0)?;
            members.push((
                format!("{} {value}", literal(&format!("{name}="))),
                *required,
            ));
        }
        Ok(self.listed(&members))
    }

    /// Any keyword arguments.
    pub fn any_keywords(&mut self) -> String {
        let text = self.add("json", "%json {\"type\": \"string\"}");
        let number = self.add("json", "%json {\"type\": \"number\"}");
        let value = self.fresh("value");
        let items = format!("( {value} ( \", \" {value} )* )?");
        let item = self.add("item", &format!("{text} \": \" {value}"));
        let pairs = format!("( {item} ( \", \" {item} )* )?");
        self.rule(
            &value,
            &format!(
                "{text} | {number} | \"True\" | \"False\" | \"None\" | \"[\" {items} \"]\" | \"{{\" {pairs} \"}}\""
            ),
        );
        let name = self.add("NAME", "/[A-Za-z_][A-Za-z0-9_]*/");
        let member = self.add("member", &format!("{name} \"=\" {value}"));
        format!("( {member} ( \", \" {member} )* )?")
    }

    /// Members in their order with commas between, those that are not required perhaps left out.
    fn listed(&mut self, members: &[(String, bool)]) -> String {
        // From the last to the first: what may come behind a member, and what in front of all.
        let (mut behind, mut front) = (String::new(), String::new());
        for (member, required) in members.iter().rev() {
            let member = self.add("member", member);
            let first = format!("{member} {behind}");
            front = match (required, front.is_empty()) {
                (true, _) => first,
                (false, true) => format!("( {first} )?"),
                (false, false) => format!("( {first} | {front} )"),
            };
            front = self.add("front", &front);
            let next = match required {
                true => format!("\", \" {member} {behind}"),
                false => format!("( \", \" {member} )? {behind}"),
            };
            behind = self.add("behind", &next);
        }
        front
    }
}

struct Python<'l, 'a, 't> {
    lark: &'l mut Lark<'t>,
    definitions: Definitions<'a>,
    /// The rules of definitions.
    followed: HashMap<String, String>,
}

impl Python<'_, '_, '_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Result<String, GrammarError> {
        if depth > MAX_DEPTH {
            return Err(GrammarError::TooComplex(format!(
                "it is nested deeper than {MAX_DEPTH}"
            )));
        }
        match schema.as_object() {
            Some(keywords) => match self.shape(keywords, depth)? {
                Some(shape) => Ok(shape),
                None => self.json(schema),
            },
            None => self.json(schema),
        }
    }

    fn json(&mut self, schema: &Value) -> Result<String, GrammarError> {
        let json = self.lark.json(&self.definitions.complete(schema)?)?;
        Ok(self.lark.add("json", &json))
    }

    /// The schema in Python's words; `None` where it is left to JSON.
    fn shape(
        &mut self,
        keywords: &Map<String, Value>,
        depth: usize,
    ) -> Result<Option<String>, GrammarError> {
        let says_only = |names: &[&str]| {
            keywords.keys().all(|keyword| {
                NEUTRAL.contains(&keyword.as_str()) || names.contains(&keyword.as_str())
            })
        };
        if let (Some(reference), true) = (keywords.get("$ref"), says_only(&["$ref"])) {
            return self.followed(reference, depth).map(Some);
        }
        if let Some(Value::Array(options)) = keywords.get("anyOf")
            && !keywords.contains_key("type")
            && says_only(&["anyOf"])
        {
            let options = options.iter().map(|option| self.value(option, depth + 1));
            return either(options.collect::<Result<_, _>>()?);
        }
        if let (Some(Value::Array(values)), None) = (keywords.get("enum"), keywords.get("type"))
            && says_only(&["enum"])
        {
            return either(values.iter().map(|value| literal(&python(value))).collect());
        }
        match keywords.get("type") {
            Some(Value::Array(types)) => {
                let one = types.iter().map(|kind| {
                    let schema = with(keywords, "type", kind.clone());
                    self.value(&schema, depth + 1)
                });
                either(one.collect::<Result<_, _>>()?)
            }
            Some(Value::String(kind)) => match kind.as_str() {
                "boolean" if says_only(&[]) => either(vec![literal("True"), literal("False")]),
                "null" if says_only(&[]) => Ok(Some(literal("None"))),
                "array" if says_only(&SHAPES) && keywords.contains_key("items") => {
                    self.list(keywords, depth)
                }
                "object" if says_only(&OBJECTS) && keywords.contains_key("properties") => {
                    self.dictionary(keywords, depth)
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn followed(&mut self, reference: &Value, depth: usize) -> Result<String, GrammarError> {
        let name = reference.to_string();
        if let Some(rule) = self.followed.get(&name) {
            return Ok(rule.clone());
        }
        let rule = self.lark.fresh("definition");
        self.followed.insert(name, rule.clone());
        let schema = serde_json::json!({"$ref": reference});
        let target = self.definitions.target(&schema)?.clone();
        let body = self.value(&target, depth + 1)?;
        self.lark.rule(&rule, &body);
        Ok(rule)
    }

    fn list(
        &mut self,
        keywords: &Map<String, Value>,
        depth: usize,
    ) -> Result<Option<String>, GrammarError> {
        let bound = |name: &str| keywords.get(name).map(Value::as_u64);
        let (least, most) = match (bound("minItems"), bound("maxItems")) {
            (Some(None), _) | (_, Some(None)) => return Ok(None),
            (least, most) => (least.flatten().unwrap_or(0), most.flatten()),
        };
        if most.is_some_and(|most| most < least) {
            let message = format!("minItems is {least}, more than maxItems");
            return Err(GrammarError::Invalid(message));
        }
        if most == Some(0) {
            return Ok(Some(literal("[]")));
        }
        let item = keywords.get("items").unwrap_or(&Value::Null);
        let item = self.value(item, depth + 1)?;
        let more = self.lark.add("more", &format!("\", \" {item}"));
        let further = match (least.saturating_sub(1), most) {
            (_, Some(1)) => String::new(),
            (least, None) => format!("{more}{{{least},}}"),
            (least, Some(most)) => format!("{more}{{{least},{}}}", most - 1),
        };
        let items = format!("{item} {further}");
        let items = match least {
            0 => format!("( {items} )?"),
            _ => items,
        };
        let list = self.lark.add("list", &format!("\"[\" {items} \"]\""));
        Ok(Some(list))
    }

    fn dictionary(
        &mut self,
        keywords: &Map<String, Value>,
        depth: usize,
    ) -> Result<Option<String>, GrammarError> {
        let schema = Value::Object(keywords.clone());
        let mut members = Vec::new();
        for argument in arguments::of(&schema)? {
            let value = self.value(&argument.schema, depth + 1)?;
            let key = literal(&format!("{}: ", Value::from(argument.name)));
            members.push((format!("{key} {value}"), argument.required));
        }
        let members = self.lark.listed(&members);
        let body = format!("\"{{\" {members} \"}}\"");
        Ok(Some(self.lark.add("dictionary", &body)))
    }
}

fn either(options: Vec<String>) -> Result<Option<String>, GrammarError> {
    if options.is_empty() {
        return Err(GrammarError::Invalid("no value satisfies it".to_owned()));
    }
    Ok(Some(format!("( {} )", options.join(" | "))))
}

/// A value as a Python literal.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(python).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let item = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), python(value))
            };
            let items: Vec<String> = map.iter().map(item).collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}
