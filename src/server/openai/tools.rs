//! `tools`, `tool_choice` and `parallel_tool_calls`: which functions the model may call.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::engine::grammar::bare_texts;
use crate::server::error::ApiError;
use crate::text::output::Functions;

/// Most tools of one request, and the longest name: OpenAI's limits.
const MAX_TOOLS: usize = 128;
const MAX_NAME: usize = 64;

/// The functions that a request offers, and whether one has to be called.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// As they came: the template writes them.
    definitions: Value,
    functions: Vec<Function>,
    texts: Functions,
    choice: Choice,
    parallel: bool,
}

/// A function that can be called.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Its name, of letters, digits, `_` and `-`.
    pub name: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
    /// Whether calls must keep to the schema, also where the model is free to call.
    pub strict: bool,
}

/// Whether something has to be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// Nothing can be.
    #[default]
    None,
    /// As the model likes.
    Auto,
    /// At least one function.
    Required,
    /// This one, once.
    Named(String),
}

impl Tools {
    /// Checks the request's fields.
    pub fn parse(
        tools: Option<Value>,
        choice: Option<Value>,
        parallel: Option<bool>,
    ) -> Result<Self, ApiError> {
        let mut definitions = match tools {
            None => Value::Array(Vec::new()),
            Some(list @ Value::Array(_)) => list,
            Some(_) => return Err(ApiError::wrong_type("tools", "`tools` must be a list")),
        };
        let list = definitions.as_array().map_or(&[][..], Vec::as_slice);
        if list.len() > MAX_TOOLS {
            let message = format!(
                "{} tools are too many, {MAX_TOOLS} are the most",
                list.len()
            );
            return Err(ApiError::invalid("tools", message));
        }
        let function = |(index, tool)| function(&format!("tools[{index}]"), tool);
        let mut functions: Vec<Function> = list
            .iter()
            .enumerate()
            .map(function)
            .collect::<Result<_, _>>()?;
        let mut seen = HashSet::new();
        if let Some(twice) = functions.iter().find(|f| !seen.insert(f.name.as_str())) {
            let message = format!("two tools have the name `{}`", twice.name);
            return Err(ApiError::invalid("tools", message));
        }
        let choice = match choice {
            Some(choice) if choice["type"] == "allowed_tools" => {
                let (allowed, mode) = allowed(&choice, &functions)?;
                // The model is told of these only.
                let mut keep = functions.iter().map(|f| allowed.contains(&f.name));
                if let Some(list) = definitions.as_array_mut() {
                    list.retain(|_| keep.next().unwrap_or(false));
                }
                functions.retain(|function| allowed.contains(&function.name));
                mode
            }
            choice => choice_of(choice, &functions)?,
        };
        Ok(Self {
            definitions,
            texts: Arc::new(functions.iter().map(texts).collect()),
            functions,
            choice,
            parallel: parallel.unwrap_or(true),
        })
    }

    /// The tools as the template gets them; `None` where nothing can be called.
    pub fn offered(&self) -> Option<&Value> {
        let any = !self.functions.is_empty() && self.choice != Choice::None;
        any.then_some(&self.definitions)
    }

    /// Whether something has to be called.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The functions that may be called.
    pub fn callable(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|function| match &self.choice {
            Choice::None => false,
            Choice::Auto | Choice::Required => true,
            Choice::Named(name) => function.name == *name,
        })
    }

    /// Calls that an output may make.
    pub fn most_calls(&self) -> usize {
        match self.choice {
            Choice::None => 0,
            Choice::Named(_) => 1,
            _ if self.parallel => usize::MAX,
            _ => 1,
        }
    }

    /// The functions with those of their parameters that are text, by the schemas.
    pub fn functions(&self) -> Functions {
        Arc::clone(&self.texts)
    }
}

fn texts(function: &Function) -> (String, HashSet<String>) {
    (function.name.clone(), bare_texts(&function.parameters))
}

fn function(path: &str, tool: &Value) -> Result<Function, ApiError> {
    let tool = object(path, Some(tool))?;
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => {}
        Some(other) => {
            let message = format!("`{path}` is of type `{other}`; only functions can be called");
            return Err(ApiError::unsupported(&format!("{path}.type"), message));
        }
        None => {
            let path = format!("{path}.type");
            return Err(ApiError::missing(
                &path,
                format!("`{path}` is required: function"),
            ));
        }
    }
    let path = format!("{path}.function");
    let function = object(&path, tool.get("function"))?;
    let name = name(&format!("{path}.name"), function.get("name"))?;
    let wrong = |field: &str, what: &str| {
        let path = format!("{path}.{field}");
        ApiError::wrong_type(&path, format!("`{path}` must be {what}"))
    };
    match function.get("description") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(_) => return Err(wrong("description", "a string")),
    }
    let strict = match function.get("strict") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(strict)) => *strict,
        Some(_) => return Err(wrong("strict", "a boolean")),
    };
    let parameters = match function.get("parameters") {
        // Left out, the function takes none.
        None | Some(Value::Null) => json!({"type": "object", "additionalProperties": false}),
        Some(schema @ Value::Object(fields)) => match fields.get("type") {
            None => schema.clone(),
            Some(kind) if kind == "object" => schema.clone(),
            Some(_) => return Err(wrong("parameters.type", "`object`")),
        },
        Some(_) => return Err(wrong("parameters", "a JSON schema of an object")),
    };
    Ok(Function {
        name,
        parameters,
        strict,
    })
}

fn name(path: &str, name: Option<&Value>) -> Result<String, ApiError> {
    let Some(name) = name.filter(|name| !name.is_null()) else {
        return Err(ApiError::missing(path, format!("`{path}` is required")));
    };
    let Some(name) = name.as_str() else {
        return Err(ApiError::wrong_type(
            path,
            format!("`{path}` must be a string"),
        ));
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        let message = format!("`{path}` must be 1 to {MAX_NAME} letters, digits, `_` and `-`");
        return Err(ApiError::invalid(path, message));
    }
    Ok(name.to_owned())
}

fn object<'a>(path: &str, value: Option<&'a Value>) -> Result<&'a Map<String, Value>, ApiError> {
    match value {
        Some(Value::Object(object)) => Ok(object),
        None | Some(Value::Null) => Err(ApiError::missing(path, format!("`{path}` is required"))),
        Some(_) => Err(ApiError::wrong_type(
            path,
            format!("`{path}` must be an object"),
        )),
    }
}

/// The functions that a request narrows its tools to, and whether one has to be called.
fn allowed(choice: &Value, functions: &[Function]) -> Result<(HashSet<String>, Choice), ApiError> {
    const FIELD: &str = "tool_choice.allowed_tools";
    let allowed = object(FIELD, choice.get("allowed_tools"))?;
    let mode = match allowed.get("mode").and_then(Value::as_str) {
        Some("auto") => Choice::Auto,
        Some("required") => Choice::Required,
        _ => {
            let path = format!("{FIELD}.mode");
            let message = format!("`{path}` must be auto or required");
            return Err(ApiError::invalid(&path, message));
        }
    };
    let tools = allowed.get("tools").and_then(Value::as_array);
    let Some(tools) = tools.filter(|tools| !tools.is_empty()) else {
        let path = format!("{FIELD}.tools");
        let message = format!("`{path}` must be a list of at least one tool");
        return Err(ApiError::invalid(&path, message));
    };
    let one = |(index, tool): (usize, &Value)| {
        let path = format!("{FIELD}.tools[{index}].function.name");
        let name = name(&path, tool.pointer("/function/name"))?;
        if functions.iter().all(|function| function.name != name) {
            return Err(ApiError::invalid(
                &path,
                format!("no tool has the name `{name}`"),
            ));
        }
        Ok(name)
    };
    let names = tools
        .iter()
        .enumerate()
        .map(one)
        .collect::<Result<_, _>>()?;
    Ok((names, mode))
}

fn choice_of(choice: Option<Value>, functions: &[Function]) -> Result<Choice, ApiError> {
    const FIELD: &str = "tool_choice";
    let Some(choice) = choice else {
        return Ok(if functions.is_empty() {
            Choice::None
        } else {
            Choice::Auto
        });
    };
    let choice = match (choice.as_str(), choice.get("type").and_then(Value::as_str)) {
        (Some("none"), _) => return Ok(Choice::None),
        (Some("auto"), _) if functions.is_empty() => return Ok(Choice::None),
        (Some("auto"), _) => return Ok(Choice::Auto),
        (Some("required"), _) => Choice::Required,
        (Some(other), _) => {
            let message = format!("`{other}` is no choice: none, auto, required or a function are");
            return Err(ApiError::invalid(FIELD, message));
        }
        (None, Some("function")) => {
            let function = object("tool_choice.function", choice.get("function"))?;
            Choice::Named(name("tool_choice.function.name", function.get("name"))?)
        }
        (None, Some(other)) => {
            let message = format!("a choice of type `{other}` is not supported; `function` is");
            return Err(ApiError::unsupported("tool_choice.type", message));
        }
        (None, None) => {
            let message = "`tool_choice` must be none, auto, required, or \
                           {\"type\": \"function\", \"function\": {\"name\": …}}";
            return Err(ApiError::wrong_type(FIELD, message));
        }
    };
    match &choice {
        _ if functions.is_empty() => {
            let message = "`tool_choice` asks for a call, and there are no `tools`";
            Err(ApiError::invalid(FIELD, message))
        }
        Choice::Named(name) if functions.iter().all(|function| function.name != *name) => {
            let message = format!("no tool has the name `{name}`");
            Err(ApiError::invalid("tool_choice.function.name", message))
        }
        _ => Ok(choice),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn choices() {
        let named = json!({"type": "function", "function": {"name": "g"}});
        for (tools, choice, want) in [
            (None, None, Choice::None),
            (Some(json!([])), Some(json!("auto")), Choice::None),
            (Some(json!([tool("f")])), None, Choice::Auto),
            (Some(json!([tool("f")])), Some(json!("none")), Choice::None),
            (
                Some(json!([tool("f")])),
                Some(json!("required")),
                Choice::Required,
            ),
            (
                Some(json!([tool("f"), tool("g")])),
                Some(named),
                Choice::Named("g".into()),
            ),
        ] {
            let tools = Tools::parse(tools, choice, None).unwrap();
            assert_eq!(tools.choice, want);
            assert_eq!(tools.offered().is_some(), want != Choice::None);
            let callable: Vec<_> = tools.callable().map(|f| f.name.as_str()).collect();
            match want {
                Choice::None => assert!(callable.is_empty()),
                Choice::Named(_) => assert_eq!(callable, ["g"]),
                _ => assert_eq!(callable, ["f"]),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let of = |function: Value| json!([{"type": "function", "function": function}]);
        for (tools, choice, param) in [
            (json!({}), json!(null), "tools"),
            (json!([3]), json!(null), "tools[0]"),
            (json!([{}]), json!("none"), "tools[0].type"),
            (
                json!([{"type": "web_search"}]),
                json!(null),
                "tools[0].type",
            ),
            (
                json!([{"type": "function"}]),
                json!(null),
                "tools[0].function",
            ),
            (of(json!({})), json!(null), "tools[0].function.name"),
            (
                of(json!({"name": "a b"})),
                json!(null),
                "tools[0].function.name",
            ),
            (
                of(json!({"name": "a".repeat(65)})),
                json!(null),
                "tools[0].function.name",
            ),
            (
                of(json!({"name": "f", "description": 1})),
                json!(null),
                "tools[0].function.description",
            ),
            (
                of(json!({"name": "f", "strict": "yes"})),
                json!(null),
                "tools[0].function.strict",
            ),
            (
                of(json!({"name": "f", "parameters": []})),
                json!(null),
                "tools[0].function.parameters",
            ),
            (
                of(json!({"name": "f", "parameters": {"type": "array"}})),
                json!(null),
                "tools[0].function.parameters.type",
            ),
            (json!([tool("f"), tool("f")]), json!(null), "tools"),
            (Value::from(vec![tool("f"); 129]), json!(null), "tools"),
            (json!([]), json!("required"), "tool_choice"),
            (json!([tool("f")]), json!("always"), "tool_choice"),
            (json!([tool("f")]), json!(1), "tool_choice"),
            (
                json!([tool("f")]),
                json!({"type": "custom"}),
                "tool_choice.type",
            ),
            (
                json!([tool("f")]),
                json!({"type": "function"}),
                "tool_choice.function",
            ),
            (
                json!([tool("f")]),
                json!({"type": "function", "function": {"name": "g"}}),
                "tool_choice.function.name",
            ),
        ] {
            let choice = Some(choice).filter(|choice| !choice.is_null());
            let error = Tools::parse(Some(tools.clone()), choice, None).unwrap_err();
            assert_eq!(error.param(), Some(param), "{tools}");
        }
    }

    #[test]
    fn some_of_the_tools_can_be_allowed() {
        let allow = |mode: &str, names: &[&str]| {
            let names: Vec<Value> = names.iter().map(|name| tool(name)).collect();
            let choice = json!({"type": "allowed_tools",
                                "allowed_tools": {"mode": mode, "tools": names}});
            let tools = json!([tool("f"), tool("g"), tool("h")]);
            Tools::parse(Some(tools), Some(choice), None)
        };
        let tools = allow("required", &["g", "h"]).unwrap();
        assert_eq!(tools.choice, Choice::Required);
        assert_eq!(tools.offered(), Some(&json!([tool("g"), tool("h")])));
        let callable: Vec<_> = tools.callable().map(|f| f.name.as_str()).collect();
        assert_eq!(callable, ["g", "h"]);
        for (mode, names, param) in [
            ("none", &["g"][..], "tool_choice.allowed_tools.mode"),
            ("auto", &[], "tool_choice.allowed_tools.tools"),
            (
                "auto",
                &["g", "x"],
                "tool_choice.allowed_tools.tools[1].function.name",
            ),
        ] {
            assert_eq!(allow(mode, names).unwrap_err().param(), Some(param));
        }
    }

    #[test]
    fn one_call_at_a_time_where_that_is_asked_for() {
        let most = |choice: Value, parallel| {
            let tools = Tools::parse(Some(json!([tool("f")])), Some(choice), parallel);
            tools.unwrap().most_calls()
        };
        assert_eq!(most(json!("auto"), None), usize::MAX);
        assert_eq!(most(json!("none"), None), 0);
        assert_eq!(most(json!("required"), Some(false)), 1);
        let named = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(most(named, Some(true)), 1);
    }

    #[test]
    fn schemas_tell_text_from_numbers() {
        let parameters = json!({"type": "object", "properties": {
            "text": {"type": "string"}, "count": {"type": "integer"}, "any": true}});
        let tools =
            json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
        let functions = Tools::parse(Some(tools), None, None).unwrap().functions();
        let texts = HashSet::from(["text".to_owned()]);
        assert_eq!(*functions, HashMap::from([("f".to_owned(), texts)]));
    }
}
