//! `input`: what a response answers, and what templates read of it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::new_id;
use crate::server::error::ApiError;

/// Checks the request's input and gives every item the form in which it is kept: with an id, a type
/// and a list of parts. `find` looks for an item that is only referred to.
pub fn items(
    input: Option<Value>,
    find: impl Fn(&str) -> Option<Value>,
) -> Result<Vec<Arc<Value>>, ApiError> {
    let list = match input {
        None => return Err(ApiError::missing("input", "`input` is required")),
        Some(Value::String(text)) => vec![json!({"role": "user", "content": text})],
        Some(Value::Array(list)) => list,
        Some(_) => {
            let message = "`input` must be a string or a list of items";
            return Err(ApiError::wrong_type("input", message));
        }
    };
    if list.is_empty() {
        let message = "`input` is empty; send at least one item";
        return Err(ApiError::invalid("input", message));
    }
    let one = |(index, item)| item_at(&format!("input[{index}]"), item, &find).map(Arc::new);
    list.into_iter().enumerate().map(one).collect()
}

fn item_at(
    path: &str,
    item: Value,
    find: impl Fn(&str) -> Option<Value>,
) -> Result<Value, ApiError> {
    let Value::Object(item) = item else {
        let message = format!("`{path}` must be an object");
        return Err(ApiError::wrong_type(path, message));
    };
    let item = Fields { path, item: &item };
    match item.kind()? {
        "message" => item.message(),
        "reasoning" => item.reasoning(),
        "function_call" => Ok(json!({
            "type": "function_call",
            "id": item.id("fc")?,
            "call_id": item.text("call_id")?,
            "name": item.text("name")?,
            "arguments": item.text("arguments")?,
            "status": "completed",
        })),
        "function_call_output" => Ok(json!({
            "type": "function_call_output",
            "id": item.id("fco")?,
            "call_id": item.text("call_id")?,
            "output": joined(&item.parts("output", "input_text")?),
            "status": "completed",
        })),
        _ => {
            let id = item.text("id")?;
            let missing = || {
                let message = format!("no item with the id `{id}` is kept; send the item itself");
                ApiError::invalid(&item.at("id"), message)
            };
            find(&id).ok_or_else(missing)
        }
    }
}

/// The fields of one item.
struct Fields<'a> {
    path: &'a str,
    item: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.item.get(name).filter(|value| !value.is_null())
    }

    fn kind(&self) -> Result<&'static str, ApiError> {
        let kinds = [
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "item_reference",
        ];
        match self.get("type") {
            None if self.get("role").is_some() => Ok("message"),
            None if self.get("id").is_some() => Ok("item_reference"),
            None => Err(self.missing("type")),
            Some(kind) => {
                let known = kinds.into_iter().find(|known| *kind == **known);
                known.ok_or_else(|| {
                    let message = format!(
                        "`{}` is {kind}; this server takes {}",
                        self.at("type"),
                        kinds.join(", ")
                    );
                    ApiError::unsupported(&self.at("type"), message)
                })
            }
        }
    }

    fn missing(&self, name: &str) -> ApiError {
        let path = self.at(name);
        ApiError::missing(&path, format!("`{path}` is required"))
    }

    fn text(&self, name: &str) -> Result<String, ApiError> {
        match self.get(name) {
            None => Err(self.missing(name)),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(must_be(&self.at(name), "a string")),
        }
    }

    fn id(&self, prefix: &str) -> Result<String, ApiError> {
        match self.get("id") {
            None => Ok(new_id(prefix)),
            Some(_) => self.text("id"),
        }
    }

    fn message(&self) -> Result<Value, ApiError> {
        let role = self.text("role")?;
        if !["user", "assistant", "system", "developer"].contains(&role.as_str()) {
            let path = self.at("role");
            let message =
                format!("`{path}` is `{role}`; it must be user, assistant, system or developer");
            return Err(ApiError::invalid(&path, message));
        }
        let kind = if role == "assistant" {
            "output_text"
        } else {
            "input_text"
        };
        Ok(json!({
            "type": "message",
            "id": self.id("msg")?,
            "role": role,
            "content": self.parts("content", kind)?,
            "status": "completed",
        }))
    }

    fn reasoning(&self) -> Result<Value, ApiError> {
        let content = self.texts("content", "reasoning_text")?;
        let summary = self.texts("summary", "summary_text")?;
        if content.is_empty() && summary.is_empty() && self.get("encrypted_content").is_some() {
            let path = self.at("encrypted_content");
            let message =
                format!("`{path}` was not made here and cannot be read; leave the item out");
            return Err(ApiError::unsupported(&path, message));
        }
        Ok(json!({
            "type": "reasoning",
            "id": self.id("rs")?,
            "summary": summary,
            "content": content,
            "status": "completed",
        }))
    }

    /// A string, or a list of parts that hold text; as parts of the type `kind`.
    fn parts(&self, name: &str, kind: &str) -> Result<Vec<Value>, ApiError> {
        let path = self.at(name);
        let list = match self.get(name) {
            None => return Err(self.missing(name)),
            Some(Value::String(text)) => return Ok(vec![part(kind, text)]),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(must_be(&path, "a string or a list of parts")),
        };
        let one = |(index, value): (usize, &Value)| {
            let path = format!("{path}[{index}]");
            if !value.is_object() {
                return Err(must_be(&path, "an object"));
            }
            let field = match value.get("type").and_then(Value::as_str) {
                Some("input_text" | "output_text" | "text") => "text",
                Some("refusal") => "refusal",
                Some(other) => {
                    let message =
                        format!("`{path}` is of type `{other}`; this server reads text only");
                    return Err(ApiError::unsupported(&path, message));
                }
                None => {
                    let path = format!("{path}.type");
                    return Err(ApiError::missing(&path, format!("`{path}` is required")));
                }
            };
            let text = value.get(field).and_then(Value::as_str);
            let text = text.ok_or_else(|| must_be(&format!("{path}.{field}"), "a string"))?;
            Ok(part(if field == "refusal" { field } else { kind }, text))
        };
        list.iter().enumerate().map(one).collect()
    }

    /// A list of parts of one type, or nothing.
    fn texts(&self, name: &str, kind: &str) -> Result<Vec<Value>, ApiError> {
        let path = self.at(name);
        let list = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(must_be(&path, "a list of parts")),
        };
        let one = |(index, value): (usize, &Value)| {
            let text = value.get("text").and_then(Value::as_str);
            let path = format!("{path}[{index}].text");
            let text = text.ok_or_else(|| must_be(&path, "a string"))?;
            Ok(json!({"type": kind, "text": text}))
        };
        list.iter().enumerate().map(one).collect()
    }
}

fn must_be(path: &str, what: &str) -> ApiError {
    ApiError::wrong_type(path, format!("`{path}` must be {what}"))
}

fn part(kind: &str, text: &str) -> Value {
    match kind {
        "refusal" => json!({"type": kind, "refusal": text}),
        "output_text" => json!({"type": kind, "text": text, "annotations": [], "logprobs": []}),
        _ => json!({"type": kind, "text": text}),
    }
}

/// The text of parts.
fn joined(parts: &[Value]) -> String {
    let text = |part: &Value| {
        let text = part.get("text").or_else(|| part.get("refusal"));
        text.and_then(Value::as_str).map(str::to_owned)
    };
    let texts: Vec<String> = parts.iter().filter_map(text).collect();
    texts.join("\n")
}

/// Chat's messages from items in the form of [`items`]. What the model made of one turn (thoughts, a
/// text, calls) is one message, as templates have it, and so are instructions and the system messages
/// that follow them.
pub fn messages(instructions: Option<&str>, items: &[Arc<Value>]) -> Value {
    let mut messages: Vec<Map<String, Value>> = Vec::new();
    if let Some(text) = instructions {
        messages.push(message("system", text.into()));
    }
    for item in items {
        let list = |name: &str| item.get(name).and_then(Value::as_array);
        let parts = |name: &str| joined(list(name).map_or(&[][..], Vec::as_slice));
        match item.get("type").and_then(Value::as_str) {
            Some("reasoning") => {
                let thought = [parts("content"), parts("summary")];
                let thought = thought.into_iter().find(|text| !text.is_empty());
                let turn = assistant(&mut messages, &["content", "tool_calls"]);
                if let Some(thought) = thought {
                    let before = turn.entry("reasoning_content").or_insert_with(|| "".into());
                    *before = join(before, &thought).into();
                }
            }
            Some("function_call") => {
                let call = json!({
                    "id": item["call_id"],
                    "type": "function",
                    "function": {"name": item["name"], "arguments": item["arguments"]},
                });
                let turn = assistant(&mut messages, &[]);
                let calls = turn.entry("tool_calls").or_insert_with(|| json!([]));
                if let Some(calls) = calls.as_array_mut() {
                    calls.push(call);
                }
            }
            Some("function_call_output") => {
                let mut result = message("tool", item["output"].clone());
                result.insert("tool_call_id".to_owned(), item["call_id"].clone());
                messages.push(result);
            }
            _ => match item["role"].as_str() {
                Some("assistant") => {
                    let turn = assistant(&mut messages, &["content", "tool_calls"]);
                    turn.insert("content".to_owned(), parts("content").into());
                }
                Some("user") => messages.push(message("user", parts("content").into())),
                _ => {
                    let text = parts("content");
                    match messages.as_mut_slice() {
                        [first] if first["role"] == "system" => {
                            first["content"] = join(&first["content"], &text).into();
                        }
                        _ => messages.push(message("system", text.into())),
                    }
                }
            },
        }
    }
    // A thought that nothing came of yet is still a turn.
    for message in &mut messages {
        if message["role"] == "assistant" && !message.contains_key("tool_calls") {
            message.entry("content").or_insert_with(|| "".into());
        }
    }
    messages.into_iter().map(Value::Object).collect()
}

fn message(role: &str, content: Value) -> Map<String, Value> {
    let fields = [("role", role.into()), ("content", content)];
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

fn join(before: &Value, more: &str) -> String {
    match before.as_str().unwrap_or_default() {
        "" => more.to_owned(),
        before => format!("{before}\n\n{more}"),
    }
}

/// The model's turn that goes on, or a new one where it already has one of the fields.
fn assistant<'a>(
    messages: &'a mut Vec<Map<String, Value>>,
    not_after: &[&str],
) -> &'a mut Map<String, Value> {
    let goes_on = messages.last().is_some_and(|last| {
        last["role"] == "assistant" && !not_after.iter().any(|name| last.contains_key(*name))
    });
    if !goes_on {
        messages.push(Map::from_iter([("role".to_owned(), "assistant".into())]));
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: Value) -> Result<Vec<Arc<Value>>, ApiError> {
        let kept = json!({"type": "message", "id": "msg_kept", "role": "assistant",
                          "content": [{"type": "output_text", "text": "kept"}]});
        items(Some(input), |id| (id == "msg_kept").then(|| kept.clone()))
    }

    #[test]
    fn a_turn_is_one_message() {
        let input = json!([
            {"role": "developer", "content": "b"},
            {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [],
             "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "function_call_output", "call_id": "c2",
             "output": [{"type": "input_text", "text": "2"}]},
            {"id": "msg_kept", "type": "item_reference"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "system", "content": "late"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
        ]);
        let call = |id: &str, name: &str, arguments: &str| {
            json!({"id": id, "type": "function",
                   "function": {"name": name, "arguments": arguments}})
        };
        let want = json!([
            {"role": "system", "content": "a\n\nb"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "reasoning_content": "hm", "content": "I look.",
             "tool_calls": [call("c1", "f", "{}"), call("c2", "g", "{")]},
            {"role": "tool", "content": "1", "tool_call_id": "c1"},
            {"role": "tool", "content": "2", "tool_call_id": "c2"},
            {"role": "assistant", "content": "kept"},
            {"role": "assistant", "content": "no"},
            {"role": "system", "content": "late"},
            {"role": "assistant", "reasoning_content": "s", "content": ""},
        ]);
        assert_eq!(messages(Some("a"), &read(input).unwrap()), want);
        let text = read(json!("hi")).unwrap();
        assert_eq!(
            messages(None, &text),
            json!([{"role": "user", "content": "hi"}])
        );
    }

    #[test]
    fn every_item_is_kept_with_an_id_and_a_type() {
        let kept = read(json!([{"role": "user", "content": "a"}])).unwrap();
        assert!(kept[0]["id"].as_str().unwrap().starts_with("msg_"));
        assert_eq!(kept[0]["type"], "message");
        assert_eq!(
            kept[0]["content"],
            json!([{"type": "input_text", "text": "a"}])
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (input, param) in [
            (json!(3), "input"),
            (json!([]), "input"),
            (json!(["a"]), "input[0]"),
            (json!([{}]), "input[0].type"),
            (json!([{"type": "computer_call"}]), "input[0].type"),
            (json!([{"role": "tool", "content": "x"}]), "input[0].role"),
            (json!([{"role": "user"}]), "input[0].content"),
            (json!([{"role": "user", "content": 1}]), "input[0].content"),
            (
                json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
                "input[0].content[0]",
            ),
            (
                json!([{"role": "user", "content": [{"type": "input_text"}]}]),
                "input[0].content[0].text",
            ),
            (
                json!([{"role": "user", "content": [{}]}]),
                "input[0].content[0].type",
            ),
            (
                json!([{"type": "function_call", "name": "f", "arguments": "{}"}]),
                "input[0].call_id",
            ),
            (
                json!([{"type": "function_call", "call_id": "1", "name": "f", "arguments": {}}]),
                "input[0].arguments",
            ),
            (
                json!([{"type": "function_call_output", "call_id": "1"}]),
                "input[0].output",
            ),
            (
                json!([{"type": "item_reference", "id": "other"}]),
                "input[0].id",
            ),
            (
                json!([{"type": "reasoning", "summary": [], "encrypted_content": "x"}]),
                "input[0].encrypted_content",
            ),
            (
                json!([{"type": "reasoning", "summary": ["x"]}]),
                "input[0].summary[0].text",
            ),
        ] {
            let error = read(input.clone()).unwrap_err();
            assert_eq!(error.param(), Some(param), "{input}");
        }
        let none = items(None, |_| None).unwrap_err();
        assert_eq!(none.param(), Some("input"));
    }
}
