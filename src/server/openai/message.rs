//! An assistant's message: what an output's pieces look like on the wire, whole and streamed.

use serde::Serialize;
use utoipa::ToSchema;

use crate::text::output::{Piece, ToolFormat};

/// The message of a whole answer.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ChatMessage)]
pub struct Message {
    role: Role,
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[schema(value_type = Option<String>)]
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

/// What is new in a streamed message.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ChatMessageDelta)]
pub struct MessageDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ChatRole)]
enum Role {
    #[default]
    Assistant,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatCall)]
struct Call {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatFunction)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatCallDelta)]
struct CallDelta {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatFunctionDelta)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// Makes the ids of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallIds {
    /// `call_…`, as OpenAI's.
    #[default]
    OpenAi,
    /// Nine letters and digits: Mistral's templates refuse any other when they come back.
    Mistral,
}

impl CallIds {
    /// For a model that writes calls in this format.
    pub fn of(format: Option<ToolFormat>) -> Self {
        match format {
            Some(ToolFormat::Mistral) => Self::Mistral,
            _ => Self::OpenAi,
        }
    }

    /// A new one.
    pub fn make(self) -> String {
        let random = uuid::Uuid::new_v4().simple().to_string();
        match self {
            Self::OpenAi => format!("call_{random}"),
            Self::Mistral => random.chars().take(9).collect(),
        }
    }
}

impl Message {
    /// From all pieces of an output. A message that is nothing but calls has no content.
    pub fn new(pieces: Vec<Piece>, ids: CallIds) -> Self {
        let mut message = Self::default();
        for piece in pieces {
            match piece {
                Piece::Content(text) => message.content.get_or_insert_default().push_str(&text),
                Piece::Reasoning(text) => message
                    .reasoning_content
                    .get_or_insert_default()
                    .push_str(&text),
                Piece::Call { name, .. } => message.tool_calls.push(Call {
                    id: ids.make(),
                    r#type: "function",
                    function: Function {
                        name,
                        arguments: String::new(),
                    },
                }),
                Piece::Arguments { index, text } => {
                    if let Some(call) = message.tool_calls.get_mut(index) {
                        call.function.arguments.push_str(&text);
                    }
                }
            }
        }
        if message.tool_calls.is_empty() {
            message.content.get_or_insert_default();
        }
        message
    }
}

impl MessageDelta {
    /// The first of a message. Its content is null where it may turn out to be nothing but calls.
    pub fn role(tools: bool) -> Self {
        Self {
            role: Some(Role::Assistant),
            content: Some((!tools).then(String::new)),
            ..Self::default()
        }
    }

    /// More of a message: a call begins with its id and its name, and goes on with its arguments.
    pub fn new(pieces: Vec<Piece>, ids: CallIds) -> Self {
        let mut delta = Self::default();
        for piece in pieces {
            match piece {
                Piece::Content(text) => delta
                    .content
                    .get_or_insert_default()
                    .get_or_insert_default()
                    .push_str(&text),
                Piece::Reasoning(text) => delta
                    .reasoning_content
                    .get_or_insert_default()
                    .push_str(&text),
                Piece::Call { index, name } => delta.tool_calls.push(CallDelta {
                    index,
                    id: Some(ids.make()),
                    r#type: Some("function"),
                    function: FunctionDelta {
                        name: Some(name),
                        arguments: String::new(),
                    },
                }),
                Piece::Arguments { index, text } => match delta.tool_calls.last_mut() {
                    Some(call) if call.index == index => call.function.arguments.push_str(&text),
                    _ => delta.tool_calls.push(CallDelta {
                        index,
                        id: None,
                        r#type: None,
                        function: FunctionDelta {
                            name: None,
                            arguments: text,
                        },
                    }),
                },
            }
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn call(index: usize, name: &str) -> Piece {
        let name = name.to_owned();
        Piece::Call { index, name }
    }

    fn arguments(index: usize, text: &str) -> Piece {
        let text = text.to_owned();
        Piece::Arguments { index, text }
    }

    fn value(of: impl Serialize) -> Value {
        serde_json::to_value(of).unwrap()
    }

    #[test]
    fn a_whole_message() {
        let pieces = vec![
            Piece::Reasoning("hm".into()),
            call(0, "f"),
            arguments(0, "{\"a\""),
            arguments(0, ": 1}"),
            call(1, "g"),
        ];
        let mut message = value(Message::new(pieces, CallIds::OpenAi));
        for call in message["tool_calls"].as_array_mut().unwrap() {
            let id = call["id"].take();
            assert!(id.as_str().unwrap().starts_with("call_"));
        }
        let call = |name, arguments| json!({"id": null, "type": "function", "function": {"name": name, "arguments": arguments}});
        let want = json!({
            "role": "assistant", "content": null, "reasoning_content": "hm", "refusal": null,
            "tool_calls": [call("f", "{\"a\": 1}"), call("g", "")],
        });
        assert_eq!(message, want);
        let plain = value(Message::new(vec![], CallIds::OpenAi));
        assert_eq!(
            plain,
            json!({"role": "assistant", "content": "", "refusal": null})
        );
    }

    #[test]
    fn a_streamed_message() {
        assert_eq!(
            value(MessageDelta::role(false)),
            json!({"role": "assistant", "content": ""})
        );
        assert_eq!(
            value(MessageDelta::role(true)),
            json!({"role": "assistant", "content": null})
        );
        let delta = |pieces| value(MessageDelta::new(pieces, CallIds::OpenAi));
        assert_eq!(delta(vec![]), json!({}));
        let mut first = delta(vec![
            Piece::Content("a".into()),
            call(0, "f"),
            arguments(0, "{"),
        ]);
        assert!(first["tool_calls"][0]["id"].take().is_string());
        let want = json!({"content": "a", "tool_calls": [
            {"index": 0, "id": null, "type": "function", "function": {"name": "f", "arguments": "{"}}]});
        assert_eq!(first, want);
        let more = delta(vec![arguments(0, "}")]);
        assert_eq!(
            more,
            json!({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]})
        );
    }

    #[test]
    fn ids_are_what_templates_take() {
        let id = CallIds::of(Some(ToolFormat::Mistral)).make();
        assert!(
            id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric()),
            "{id}"
        );
        assert_eq!(CallIds::of(Some(ToolFormat::Hermes)), CallIds::OpenAi);
    }
}
