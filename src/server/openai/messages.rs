//! Chat messages: from what clients send to what templates read.

use serde_json::{Map, Value};

use super::refused::is_empty_list;
use crate::server::error::ApiError;

/// Parts that other servers read.
const MEDIA: [&str; 8] = [
    "image_url",
    "input_audio",
    "audio_url",
    "video_url",
    "file",
    "image",
    "input_image",
    "input_file",
];

/// Checks the list and brings it into the form that templates are written for: roles `system`,
/// `user`, `assistant` and `tool`, content as one string, tool-call arguments as objects.
pub fn normalize(messages: Value) -> Result<Value, ApiError> {
    let Value::Array(list) = messages else {
        return Err(ApiError::wrong_type(
            "messages",
            "`messages` must be a list",
        ));
    };
    if list.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "`messages` is empty; send at least one",
        ));
    }
    let one = |(index, message)| message_at(&format!("messages[{index}]"), message);
    list.into_iter()
        .enumerate()
        .map(one)
        .collect::<Result<_, _>>()
        .map(Value::Array)
}

fn message_at(path: &str, message: Value) -> Result<Value, ApiError> {
    let Value::Object(mut message) = message else {
        return Err(ApiError::wrong_type(
            path,
            format!("`{path}` must be an object"),
        ));
    };
    let role = role(path, message.get("role"))?;
    message.insert("role".to_owned(), role.into());
    for name in ["audio", "function_call"] {
        if message.get(name).is_some_and(|value| !value.is_null()) {
            let path = format!("{path}.{name}");
            return Err(ApiError::unsupported(
                &path,
                format!("`{path}` is not supported"),
            ));
        }
    }
    for name in ["name", "tool_call_id", "reasoning_content"] {
        if let Some(value) = message.get(name)
            && !matches!(value, Value::Null | Value::String(_))
        {
            let path = format!("{path}.{name}");
            return Err(ApiError::wrong_type(
                &path,
                format!("`{path}` must be a string"),
            ));
        }
    }
    // Each keeps its place among the fields, as a template may print the whole message.
    let mut take = |name: &str| message.get_mut(name).map(Value::take);
    let calls = tool_calls(path, take("tool_calls"))?;
    // What the model declined to say was its answer.
    let refusal = take("refusal").filter(|refusal| role == "assistant" && refusal.is_string());
    let content = take("content")
        .filter(|content| !content.is_null())
        .or(refusal);
    if content.is_none() && (role != "assistant" || calls.is_none()) {
        let path = format!("{path}.content");
        return Err(ApiError::missing(&path, format!("`{path}` is required")));
    }
    // What calls, and what was found, may say nothing.
    if matches!(role, "system" | "user") && content.as_ref().is_some_and(is_empty_list) {
        let path = format!("{path}.content");
        let message = format!("`{path}` is empty; send at least one part");
        return Err(ApiError::invalid(&path, message));
    }
    let content = content
        .map(|content| text(&format!("{path}.content"), content))
        .transpose()?;
    message.insert("content".to_owned(), content.unwrap_or_default().into());
    if let Some(calls) = calls {
        message.insert("tool_calls".to_owned(), calls);
    }
    message.retain(|_, value| !value.is_null());
    Ok(Value::Object(message))
}

fn role(path: &str, role: Option<&Value>) -> Result<&'static str, ApiError> {
    let path = format!("{path}.role");
    let Some(role) = role else {
        return Err(ApiError::missing(&path, format!("`{path}` is required")));
    };
    match role.as_str() {
        // Newer clients say `developer`; templates know `system`.
        Some("system" | "developer") => Ok("system"),
        Some("user") => Ok("user"),
        Some("assistant") => Ok("assistant"),
        Some("tool") => Ok("tool"),
        Some(other) => {
            let message = format!(
                "`{path}` is `{other}`; it must be system, developer, user, assistant or tool"
            );
            Err(ApiError::invalid(&path, message))
        }
        None => Err(ApiError::wrong_type(
            &path,
            format!("`{path}` must be a string"),
        )),
    }
}

/// A string, or text parts joined by line breaks.
fn text(path: &str, content: Value) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        _ => {
            let message = format!("`{path}` must be a string or a list of parts");
            return Err(ApiError::wrong_type(path, message));
        }
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !part.is_object() {
            let message = format!("`{path}` must be an object");
            return Err(ApiError::wrong_type(&path, message));
        }
        match part.get("type").and_then(Value::as_str) {
            Some(kind @ ("text" | "refusal")) => match part.get(kind).and_then(Value::as_str) {
                Some(text) => texts.push(text.to_owned()),
                None => {
                    let path = format!("{path}.{kind}");
                    return Err(ApiError::wrong_type(
                        &path,
                        format!("`{path}` must be a string"),
                    ));
                }
            },
            Some(other) => {
                let message = format!("`{path}` is of type `{other}`; this server reads text only");
                return Err(match MEDIA.contains(&other) {
                    true => ApiError::unsupported(&path, message),
                    false => ApiError::invalid(&format!("{path}.type"), message),
                });
            }
            None => {
                let path = format!("{path}.type");
                return Err(ApiError::missing(&path, format!("`{path}` is required")));
            }
        }
    }
    Ok(texts.join("\n"))
}

/// Earlier tool calls. Arguments travel as a string of JSON; templates write them as JSON, so that a
/// string would come out quoted. What is no JSON object stays the string it is.
fn tool_calls(path: &str, calls: Option<Value>) -> Result<Option<Value>, ApiError> {
    let mut calls = match calls {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(calls)) if calls.is_empty() => return Ok(None),
        Some(Value::Array(calls)) => calls,
        Some(_) => {
            let path = format!("{path}.tool_calls");
            return Err(ApiError::wrong_type(
                &path,
                format!("`{path}` must be a list"),
            ));
        }
    };
    for (index, call) in calls.iter_mut().enumerate() {
        let path_of = |what: &str| format!("{path}.tool_calls[{index}].{what}");
        if call
            .get("id")
            .is_some_and(|id| !id.is_string() && !id.is_null())
        {
            let path = path_of("id");
            let message = format!("`{path}` must be a string");
            return Err(ApiError::wrong_type(&path, message));
        }
        match call.get("type").filter(|kind| !kind.is_null()) {
            Some(kind) if kind != "function" => {
                let path = path_of("type");
                let message = format!("`{path}` is {kind}; only functions can be called");
                return Err(ApiError::unsupported(&path, message));
            }
            _ => {}
        }
        let name = call.pointer("/function/name").and_then(Value::as_str);
        if name.is_none() {
            let path = format!("{path}.tool_calls[{index}].function.name");
            return Err(ApiError::missing(&path, format!("`{path}` is required")));
        }
        if let Some(arguments) = call.pointer_mut("/function/arguments")
            && let Some(text) = arguments.as_str()
            && let Ok(object) = serde_json::from_str::<Map<String, Value>>(text)
        {
            *arguments = Value::Object(object);
        }
    }
    Ok(Some(Value::Array(calls)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_become_what_templates_read() {
        let messages = json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "refusal": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
                {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{broken"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "done"},
            {"role": "assistant", "content": "ok", "tool_calls": []},
            {"role": "assistant", "content": null, "refusal": "no"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
        ]);
        let want = json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a\nb"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
                {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{broken"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "done"},
            {"role": "assistant", "content": "ok"},
            {"role": "assistant", "content": "no"},
            {"role": "assistant", "content": "never"},
        ]);
        assert_eq!(normalize(messages).unwrap(), want);
    }

    #[test]
    fn fields_keep_their_order() {
        let messages = r#"[{"content":"a","extra":1,"role":"user","name":"n"}]"#;
        let normal = normalize(serde_json::from_str(messages).unwrap()).unwrap();
        assert_eq!(normal.to_string(), messages);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (messages, param) in [
            (json!({}), "messages"),
            (json!([]), "messages"),
            (json!(["hi"]), "messages[0]"),
            (json!([{"content": "hi"}]), "messages[0].role"),
            (
                json!([{"role": "wizard", "content": "hi"}]),
                "messages[0].role",
            ),
            (json!([{"role": 3, "content": "hi"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([{"role": "assistant", "content": null}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "user", "content": 3}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "user", "content": ["x"]}]),
                "messages[0].content[0]",
            ),
            (
                json!([{"role": "user", "content": [{"text": "x"}]}]),
                "messages[0].content[0].type",
            ),
            (
                json!([{"role": "user", "content": []}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
                "messages[0].content[0]",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "messages[0].content[0].text",
            ),
            (
                json!([{"role": "assistant", "tool_calls": 1}]),
                "messages[0].tool_calls",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{}]}]),
                "messages[0].tool_calls[0].function.name",
            ),
            (
                json!([{"role": "user", "content": "a", "audio": {}}]),
                "messages[0].audio",
            ),
            (
                json!([{"role": "user", "content": [{"type": "hologram"}]}]),
                "messages[0].content[0].type",
            ),
            (
                json!([{"role": "user", "content": "a", "name": 3}]),
                "messages[0].name",
            ),
            (
                json!([{"role": "tool", "content": "a", "tool_call_id": 3}]),
                "messages[0].tool_call_id",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": 1, "function": {"name": "f"}}]}]),
                "messages[0].tool_calls[0].id",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}}]}]),
                "messages[0].tool_calls[0].type",
            ),
        ] {
            assert_eq!(
                normalize(messages.clone()).unwrap_err().param(),
                Some(param),
                "{messages}"
            );
        }
    }
}
