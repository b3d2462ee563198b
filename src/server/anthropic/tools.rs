//! `tools` and `tool_choice` in Anthropic's form.

use serde_json::{Map, Value, json};

use super::input::cache_control;
use crate::server::error::ApiError;
use crate::server::openai::refused::Refused;
use crate::server::openai::tools::Tools;

/// Checks the request's fields.
pub fn read(tools: Option<Value>, choice: Option<Value>) -> Result<Tools, ApiError> {
    let list = match tools {
        None => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::wrong_type("tools", "`tools` must be a list")),
    };
    let function = |(index, tool)| function(&format!("tools[{index}]"), tool);
    let functions: Vec<Value> = list
        .iter()
        .enumerate()
        .map(function)
        .collect::<Result<_, _>>()?;
    let (choice, parallel) = chosen(choice)?;
    // Without tools there is nothing that `auto` could call.
    let parsed = Tools::parse(Some(functions.into()), choice, parallel);
    parsed.map_err(|error| error.without(".function"))
}

/// Fields that ask for what is not done here, and the values that do not.
const REFUSED: &[Refused] = &[
    (
        "allowed_callers",
        |value| *value == json!(["direct"]),
        "there is no code execution here",
    ),
    (
        "defer_loading",
        |value| *value == false,
        "there is no tool search here",
    ),
    (
        "input_examples",
        |value| *value == json!([]),
        "put the examples into `description`",
    ),
];

/// A function in chat's form.
fn function(path: &str, tool: &Value) -> Result<Value, ApiError> {
    let Some(fields) = tool.as_object() else {
        let message = format!("`{path}` must be an object");
        return Err(ApiError::wrong_type(path, message));
    };
    match fields.get("type") {
        None | Some(Value::Null) => {}
        Some(kind) if kind == "custom" => {}
        Some(kind) => {
            let kind: String = kind.to_string().chars().take(64).collect();
            let path = format!("{path}.type");
            let message = format!(
                "`{path}` is {kind}, a tool that this server does not know; only tools with a `name` and an \
                 `input_schema` of yours can be called"
            );
            return Err(ApiError::unsupported(&path, message));
        }
    }
    cache_control(path, tool)?;
    for (name, harmless, instead) in REFUSED.iter().copied() {
        let asked = fields.get(name).filter(|value| !value.is_null());
        if asked.is_some_and(|value| !harmless(value)) {
            let path = format!("{path}.{name}");
            let message = format!("`{path}` is not supported: {instead}");
            return Err(ApiError::unsupported(&path, message));
        }
    }
    let path = format!("{path}.input_schema");
    let schema = match fields.get("input_schema") {
        Some(schema) if schema.get("type").is_some_and(|kind| kind == "object") => schema,
        None | Some(Value::Null) => {
            return Err(ApiError::missing(&path, format!("`{path}` is required")));
        }
        Some(_) => {
            let message = format!("`{path}` must be a JSON schema of type `object`");
            return Err(ApiError::wrong_type(&path, message));
        }
    };
    let mut function = Map::new();
    for name in ["name", "description", "strict"] {
        if let Some(value) = fields.get(name).filter(|value| !value.is_null()) {
            function.insert(name.to_owned(), value.clone());
        }
    }
    function.insert("parameters".to_owned(), schema.clone());
    Ok(json!({"type": "function", "function": function}))
}

/// The choice in chat's form, and whether several calls may be made.
fn chosen(choice: Option<Value>) -> Result<(Option<Value>, Option<bool>), ApiError> {
    const FIELD: &str = "tool_choice";
    let Some(choice) = choice else {
        return Ok((None, None));
    };
    if !choice.is_object() {
        let message = "`tool_choice` must be an object, such as {\"type\": \"auto\"}";
        return Err(ApiError::wrong_type(FIELD, message));
    }
    let parallel = match choice.get("disable_parallel_tool_use") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(disabled)) => Some(!disabled),
        Some(_) => {
            let path = format!("{FIELD}.disable_parallel_tool_use");
            let message = format!("`{path}` must be a boolean");
            return Err(ApiError::wrong_type(&path, message));
        }
    };
    let chosen = match choice.get("type").and_then(Value::as_str) {
        Some("auto") => "auto".into(),
        Some("any") => "required".into(),
        Some("none") => "none".into(),
        Some("tool") => json!({"type": "function", "function": {"name": choice.get("name")}}),
        _ => {
            let path = format!("{FIELD}.type");
            let message = format!("`{path}` must be auto, any, tool or none");
            return Err(ApiError::invalid(&path, message));
        }
    };
    Ok((Some(chosen), parallel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::openai::tools::Choice;

    fn tool() -> Value {
        json!({"name": "f", "input_schema": {"type": "object"}})
    }

    #[test]
    fn tools_are_chats_by_other_names() {
        let mut custom = tool();
        custom["type"] = json!("custom");
        custom["description"] = json!("d");
        custom["cache_control"] = json!({"type": "ephemeral"});
        custom["strict"] = json!(true);
        custom["eager_input_streaming"] = json!(true);
        let tools = read(Some(json!([custom])), None).unwrap();
        assert_eq!(
            tools.offered().unwrap()[0],
            json!({"type": "function", "function": {
                "name": "f", "description": "d", "strict": true, "parameters": {"type": "object"}}})
        );
        for (choice, want, most) in [
            (json!({"type": "auto"}), Choice::Auto, usize::MAX),
            (
                json!({"type": "auto", "disable_parallel_tool_use": true}),
                Choice::Auto,
                1,
            ),
            (json!({"type": "any"}), Choice::Required, usize::MAX),
            (json!({"type": "none"}), Choice::None, 0),
            (
                json!({"type": "tool", "name": "f"}),
                Choice::Named("f".into()),
                1,
            ),
        ] {
            let tools = read(Some(json!([tool()])), Some(choice)).unwrap();
            assert_eq!((tools.choice(), tools.most_calls()), (&want, most));
        }
        assert!(read(None, None).unwrap().offered().is_none());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path_here() {
        let with = |name: &str, value: Value| {
            let mut tool = tool();
            tool[name] = value;
            json!([tool])
        };
        for (tools, choice, param) in [
            (json!({}), Value::Null, "tools"),
            (json!([1]), Value::Null, "tools[0]"),
            (
                json!([{"type": "web_search_20250305", "name": "web_search"}]),
                Value::Null,
                "tools[0].type",
            ),
            (with("name", json!(1)), Value::Null, "tools[0].name"),
            (with("strict", json!(1)), Value::Null, "tools[0].strict"),
            (
                with("input_schema", json!({"type": "string"})),
                Value::Null,
                "tools[0].input_schema",
            ),
            (
                with("input_schema", Value::Null),
                Value::Null,
                "tools[0].input_schema",
            ),
            (
                with("defer_loading", json!(true)),
                Value::Null,
                "tools[0].defer_loading",
            ),
            (
                with("input_examples", json!([{}])),
                Value::Null,
                "tools[0].input_examples",
            ),
            (json!([tool()]), json!("auto"), "tool_choice"),
            (json!([tool()]), json!({"type": "x"}), "tool_choice.type"),
            (
                json!([tool()]),
                json!({"type": "tool", "name": "g"}),
                "tool_choice.name",
            ),
            (json!([tool()]), json!({"type": "tool"}), "tool_choice.name"),
            (json!([]), json!({"type": "any"}), "tool_choice"),
        ] {
            let choice = Some(choice).filter(|choice| !choice.is_null());
            let error = read(Some(tools), choice).err().unwrap();
            assert_eq!(error.param(), Some(param), "{}", error.message());
        }
    }
}
