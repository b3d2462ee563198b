//! `tools` and `tool_choice` in this API's flat form.

use serde_json::{Map, Value, json};

use crate::server::error::ApiError;
use crate::server::openai::tools::Tools;

/// The functions, and both fields as the response repeats them.
pub struct Offer {
    /// What can be called.
    pub tools: Tools,
    /// `tools`
    pub definitions: Value,
    /// `tool_choice`
    pub choice: Value,
}

/// Fields of a function that ask for what is not done here.
const REFUSED: [&str; 3] = ["async", "defer_loading", "allowed_callers"];

/// Checks the request's fields.
pub fn read(
    tools: Option<Value>,
    choice: Option<Value>,
    parallel: Option<bool>,
) -> Result<Offer, ApiError> {
    let mut definitions = match tools {
        None => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::wrong_type("tools", "`tools` must be a list")),
    };
    let mut offered = Vec::with_capacity(definitions.len());
    for (index, tool) in definitions.iter_mut().enumerate() {
        offered.push(nested(&format!("tools[{index}]"), tool)?);
    }
    let parsed = Tools::parse(Some(offered.into()), choice.clone().map(chosen), parallel);
    Ok(Offer {
        tools: parsed.map_err(flat)?,
        definitions: definitions.into(),
        choice: choice.unwrap_or_else(|| "auto".into()),
    })
}

/// A function in chat's form. What the response has to say of it is added to `tool`.
fn nested(path: &str, tool: &mut Value) -> Result<Value, ApiError> {
    let Some(fields) = tool.as_object_mut().filter(|fields| {
        // The others are refused by their types.
        fields.get("type").is_some_and(|kind| kind == "function")
    }) else {
        return Ok(tool.clone());
    };
    for name in REFUSED {
        let asked = fields.get(name).filter(|value| !value.is_null());
        if asked.is_some_and(|value| *value != false && *value != json!(["direct"])) {
            let path = format!("{path}.{name}");
            let message = format!("`{path}` is not supported; leave it out");
            return Err(ApiError::unsupported(&path, message));
        }
    }
    // Nothing is enforced that was not asked for, and the response says so.
    let strict = fields.entry("strict").or_insert(Value::Null);
    if strict.is_null() {
        *strict = false.into();
    }
    fields.entry("parameters").or_insert(Value::Null);
    let known = ["name", "description", "parameters", "strict"];
    let field = |name: &str| Some((name.to_owned(), fields.get(name)?.clone()));
    let function: Map<String, Value> = known.into_iter().filter_map(field).collect();
    let function: Map<String, Value> = function
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .collect();
    Ok(json!({"type": "function", "function": function}))
}

fn chosen(choice: Value) -> Value {
    match choice.get("type").and_then(Value::as_str) {
        Some("function") => {
            json!({"type": "function", "function": {"name": choice.get("name")}})
        }
        Some("allowed_tools") => {
            let tools = choice.get("tools").and_then(Value::as_array);
            let tools = tools.map(|tools| tools.iter().cloned().map(chosen).collect::<Value>());
            json!({"type": "allowed_tools",
                   "allowed_tools": {"mode": choice.get("mode"), "tools": tools}})
        }
        _ => choice,
    }
}

/// An error about chat's form, for the flat one.
fn flat(error: ApiError) -> ApiError {
    error.without(".function").without(".allowed_tools")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::openai::tools::Choice;

    #[test]
    fn functions_and_choices_are_chats_without_the_nesting() {
        let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object"},
                            "strict": true},
                           {"type": "function", "name": "g", "description": null}]);
        let choice = json!({"type": "function", "name": "g"});
        let offer = read(Some(tools), Some(choice.clone()), None).unwrap();
        assert_eq!(*offer.tools.choice(), Choice::Named("g".into()));
        assert_eq!(
            offer.tools.offered().unwrap()[0],
            json!({"type": "function", "function": {
                "name": "f", "parameters": {"type": "object"}, "strict": true}})
        );
        assert_eq!(offer.choice, choice);
        assert_eq!(offer.definitions[1]["strict"], false);
        assert_eq!(offer.definitions[1]["parameters"], Value::Null);
        let none = read(None, None, None).unwrap();
        assert_eq!((none.definitions, none.choice), (json!([]), json!("auto")));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path_here() {
        let function = json!({"type": "function", "name": "f"});
        for (tools, choice, param) in [
            (json!({}), json!(null), "tools"),
            (
                json!([{"type": "web_search"}]),
                json!(null),
                "tools[0].type",
            ),
            (json!([{"type": "function"}]), json!(null), "tools[0].name"),
            (
                json!([{"type": "function", "name": "f", "parameters": 3}]),
                json!(null),
                "tools[0].parameters",
            ),
            (
                json!([{"type": "function", "name": "f", "async": true}]),
                json!(null),
                "tools[0].async",
            ),
            (
                json!([function]),
                json!({"type": "function", "name": "g"}),
                "tool_choice.name",
            ),
            (
                json!([function]),
                json!({"type": "mcp", "server_label": "x"}),
                "tool_choice.type",
            ),
            (
                json!([function]),
                json!({"type": "allowed_tools", "mode": "auto",
                       "tools": [{"type": "function", "name": "g"}]}),
                "tool_choice.tools[0].name",
            ),
        ] {
            let choice = Some(choice).filter(|choice| !choice.is_null());
            let error = read(Some(tools), choice, None).err().unwrap();
            assert_eq!(error.param(), Some(param), "{}", error.message());
        }
    }
}
