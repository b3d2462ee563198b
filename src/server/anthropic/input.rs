//! `system` and `messages`: from content blocks to what templates read.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::message::INVALID_JSON;
use crate::server::error::ApiError;

/// What was said so far.
#[derive(Debug)]
pub struct Said {
    /// In chat's form.
    pub messages: Value,
    /// Whether the last message is the assistant's, to be gone on with.
    pub continues: bool,
}

/// The conversation in chat's form: see [`normalize`](crate::server::openai::messages::normalize).
///
/// Turns of one role in a row become one. A result goes to the call that it answers.
pub fn messages(system: Option<Value>, messages: Option<Value>) -> Result<Said, ApiError> {
    const FIELD: &str = "messages";
    let list = match messages {
        None => return Err(ApiError::missing(FIELD, "`messages` is required")),
        Some(Value::Array(list)) if list.is_empty() => {
            let message = "`messages` is empty; send at least one";
            return Err(ApiError::invalid(FIELD, message));
        }
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::wrong_type(FIELD, "`messages` must be a list")),
    };
    let mut turns = Turns::default();
    if let Some(system) = &system {
        turns.message("system", Role::System, system)?;
    }
    let mut last = Role::System;
    for (index, message) in list.iter().enumerate() {
        let path = format!("messages[{index}]");
        last = role(&path, message)?;
        let Some(content) = message.get("content").filter(|content| !content.is_null()) else {
            let path = format!("{path}.content");
            return Err(ApiError::missing(&path, format!("`{path}` is required")));
        };
        turns.message(&format!("{path}.content"), last, content)?;
    }
    Ok(Said {
        messages: turns.done.into(),
        continues: last == Role::Assistant,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

fn role(path: &str, message: &Value) -> Result<Role, ApiError> {
    match string(path, message, "role")? {
        "system" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        other => {
            let path = format!("{path}.role");
            let text = format!("`{path}` is `{other}`; it must be user, assistant or system");
            Err(ApiError::invalid(&path, text))
        }
    }
}

/// A field that has to be a string.
fn string<'a>(path: &str, object: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    if !object.is_object() {
        let message = format!("`{path}` must be an object");
        return Err(ApiError::wrong_type(path, message));
    }
    let path = format!("{path}.{name}");
    match object.get(name) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(ApiError::missing(&path, format!("`{path}` is required"))),
        Some(_) => Err(ApiError::wrong_type(
            &path,
            format!("`{path}` must be a string"),
        )),
    }
}

/// What was said so far.
#[derive(Default)]
struct Turns {
    done: Vec<Value>,
    /// The functions of the calls that were made, by the calls' ids.
    calls: HashMap<String, String>,
}

impl Turns {
    fn message(&mut self, path: &str, role: Role, content: &Value) -> Result<(), ApiError> {
        let blocks = match content {
            Value::String(text) => {
                self.text(role, text);
                return Ok(());
            }
            Value::Array(blocks) => blocks,
            _ => {
                let text = format!("`{path}` must be a string or a list of blocks");
                return Err(ApiError::wrong_type(path, text));
            }
        };
        if blocks.is_empty() && role == Role::User {
            return Err(ApiError::invalid(path, format!("`{path}` is empty")));
        }
        for (index, block) in blocks.iter().enumerate() {
            self.block(&format!("{path}[{index}]"), role, block)?;
        }
        Ok(())
    }

    fn block(&mut self, path: &str, role: Role, block: &Value) -> Result<(), ApiError> {
        let kind = string(path, block, "type")?;
        cache_control(path, block)?;
        match (kind, role) {
            ("text", _) => self.text(role, string(path, block, "text")?),
            ("tool_result", Role::User) => self.result(path, block)?,
            ("tool_use", Role::Assistant) => self.call(path, block)?,
            ("thinking", Role::Assistant) => {
                let thought = string(path, block, "thinking")?;
                self.append(role, "reasoning_content", thought);
            }
            // Another server's secret: there is nothing in it to read.
            ("redacted_thinking", Role::Assistant) => {
                string(path, block, "data")?;
            }
            ("tool_result" | "tool_use" | "thinking" | "redacted_thinking", _) => {
                let role = role.name();
                let text = format!("`{path}` is of type `{kind}`, which the role `{role}` has not");
                return Err(ApiError::invalid(path, text));
            }
            _ => return Err(unread(path, kind)),
        }
        Ok(())
    }

    /// The message that more of a role goes to.
    fn turn(&mut self, role: Role) -> Option<&mut Map<String, Value>> {
        let goes_on = self
            .done
            .last()
            .is_some_and(|last| last["role"] == role.name());
        if !goes_on {
            self.done.push(json!({"role": role.name(), "content": ""}));
        }
        self.done.last_mut().and_then(Value::as_object_mut)
    }

    fn text(&mut self, role: Role, text: &str) {
        self.append(role, "content", text);
    }

    fn append(&mut self, role: Role, field: &str, text: &str) {
        let Some(turn) = self.turn(role) else { return };
        let entry = turn.entry(field).or_insert_with(|| "".into());
        *entry = match entry.as_str() {
            None | Some("") => text.into(),
            Some(before) => [before, text].join("\n").into(),
        };
    }

    fn call(&mut self, path: &str, block: &Value) -> Result<(), ApiError> {
        let (id, name) = (string(path, block, "id")?, string(path, block, "name")?);
        let arguments = match block.get("input") {
            Some(Value::Object(input)) => {
                verbatim(input).unwrap_or_else(|| Value::Object(input.clone()))
            }
            _ => {
                let path = format!("{path}.input");
                let text = format!("`{path}` must be an object");
                return Err(ApiError::wrong_type(&path, text));
            }
        };
        if self.calls.insert(id.to_owned(), name.to_owned()).is_some() {
            let path = format!("{path}.id");
            let text = format!("two calls have the id `{id}`");
            return Err(ApiError::invalid(&path, text));
        }
        let call = json!({"id": id, "type": "function",
                          "function": {"name": name, "arguments": arguments}});
        if let Some(turn) = self.turn(Role::Assistant) {
            let calls = turn.entry("tool_calls").or_insert_with(|| json!([]));
            if let Some(calls) = calls.as_array_mut() {
                calls.push(call);
            }
        }
        Ok(())
    }

    fn result(&mut self, path: &str, block: &Value) -> Result<(), ApiError> {
        let id = string(path, block, "tool_use_id")?;
        let Some(name) = self.calls.get(id).cloned() else {
            let path = format!("{path}.tool_use_id");
            let text = format!("`{path}` is `{id}`, and no `tool_use` before it has that id");
            return Err(ApiError::invalid(&path, text));
        };
        let mut text = result_text(&format!("{path}.content"), block.get("content"))?;
        match block.get("is_error") {
            None | Some(Value::Null | Value::Bool(false)) => {}
            // Templates have no word for it.
            Some(Value::Bool(true)) => text.insert_str(0, "Error: "),
            Some(_) => {
                let path = format!("{path}.is_error");
                let text = format!("`{path}` must be a boolean");
                return Err(ApiError::wrong_type(&path, text));
            }
        }
        self.done
            .push(json!({"role": "tool", "tool_call_id": id, "name": name, "content": text}));
        Ok(())
    }
}

/// Arguments that were told as they were written, because they are no JSON object.
fn verbatim(input: &Map<String, Value>) -> Option<Value> {
    let text = input.get(INVALID_JSON)?;
    (input.len() == 1 && text.is_string()).then(|| text.clone())
}

fn result_text(path: &str, content: Option<&Value>) -> Result<String, ApiError> {
    let blocks = match content {
        None | Some(Value::Null) => return Ok(String::new()),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(blocks)) => blocks,
        Some(_) => {
            let text = format!("`{path}` must be a string or a list of blocks");
            return Err(ApiError::wrong_type(path, text));
        }
    };
    let mut texts = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match string(&path, block, "type")? {
            "text" => texts.push(string(&path, block, "text")?),
            other => return Err(unread(&path, other)),
        }
        cache_control(&path, block)?;
    }
    Ok(texts.join("\n"))
}

fn unread(path: &str, kind: &str) -> ApiError {
    let kind: String = kind.chars().take(64).collect();
    let text = format!("`{path}` is of type `{kind}`; this server reads text only");
    ApiError::unsupported(path, text)
}

/// Marks what to keep. Every prompt is kept as it is, so there is nothing to do but to check it.
pub fn cache_control(path: &str, holder: &Value) -> Result<(), ApiError> {
    match holder.get("cache_control") {
        None | Some(Value::Null) => Ok(()),
        Some(control) if control["type"] == "ephemeral" => Ok(()),
        Some(_) => {
            let path = format!("{path}.cache_control");
            let path = path.trim_start_matches('.');
            let text = format!("`{path}` must be {{\"type\": \"ephemeral\"}}");
            Err(ApiError::invalid(path, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages_: Value) -> Result<Value, ApiError> {
        messages(None, Some(messages_)).map(|said| said.messages)
    }

    #[test]
    fn blocks_become_what_templates_read() {
        let system = json!([{"type": "text", "text": "be brief",
                             "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                            {"type": "text", "text": "be kind"}]);
        let conversation = json!([
            {"role": "user", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "c"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "2", "name": "g", "input": {"INVALID_JSON": "{x"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "r"}]},
                {"type": "tool_result", "tool_use_id": "1", "content": "no", "is_error": true},
                {"type": "text", "text": "d"}]},
        ]);
        let want = json!([
            {"role": "system", "content": "be brief\nbe kind"},
            {"role": "user", "content": "a\nb"},
            {"role": "assistant", "content": "c", "reasoning_content": "hm", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
                {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{x"}}]},
            {"role": "tool", "tool_call_id": "2", "name": "g", "content": "r"},
            {"role": "tool", "tool_call_id": "1", "name": "f", "content": "Error: no"},
            {"role": "user", "content": "d"},
        ]);
        assert_eq!(
            messages(Some(system), Some(conversation)).unwrap().messages,
            want
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let call = json!({"role": "assistant", "content": [
            {"type": "tool_use", "id": "1", "name": "f", "input": {}}]});
        for (list, param) in [
            (json!({}), "messages"),
            (json!([]), "messages"),
            (json!(["hi"]), "messages[0]"),
            (json!([{"content": "hi"}]), "messages[0].role"),
            (
                json!([{"role": "tool", "content": "hi"}]),
                "messages[0].role",
            ),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": 3}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "user", "content": []}]),
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
                json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]),
                "messages[0].content[0]",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "messages[0].content[0].text",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": 1}]}]),
                "messages[0].content[0].cache_control",
            ),
            (
                json!([{"role": "user", "content": [
                    {"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]),
                "messages[0].content[0]",
            ),
            (
                json!([{"role": "assistant", "content": [
                    {"type": "tool_use", "id": "1", "name": "f", "input": "{}"}]}]),
                "messages[0].content[0].input",
            ),
            (json!([call, call]), "messages[1].content[0].id"),
            (
                json!([call, {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "2"}]}]),
                "messages[1].content[0].tool_use_id",
            ),
            (
                json!([call, {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image"}]}]}]),
                "messages[1].content[0].content[0]",
            ),
        ] {
            let error = read(list.clone()).unwrap_err();
            assert_eq!(error.param(), Some(param), "{list}: {}", error.message());
        }
        let system = Some(json!([{"type": "image"}]));
        let error = messages(system, Some(json!([{"role": "user", "content": "a"}])));
        assert_eq!(error.unwrap_err().param(), Some("system[0]"));
    }
}
