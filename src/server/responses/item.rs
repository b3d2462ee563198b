//! What a model makes: thoughts, messages, calls of functions.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::server::openai::logprobs::ChatToken;

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseItemStatus)]
pub enum ItemStatus {
    /// More of it comes.
    InProgress,
    /// It is whole.
    Completed,
    /// It was cut off.
    Incomplete,
}

/// One item of a response's output.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = ResponseItem)]
pub enum Item {
    /// A thought.
    Reasoning(Reasoning),
    /// A part of the answer.
    Message(Message),
    /// A call that the client is to make.
    FunctionCall(FunctionCall),
}

/// A thought, told in full.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ResponseReasoning)]
pub struct Reasoning {
    /// `rs_…`
    pub id: String,
    /// Nothing: thoughts are not summed up here.
    #[schema(value_type = Vec<Object>)]
    pub summary: [(); 0],
    /// What was thought.
    pub content: Vec<Part>,
    /// How far it is.
    pub status: ItemStatus,
}

/// What the model says.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ResponseMessage)]
pub struct Message {
    /// `msg_…`
    pub id: String,
    /// How far it is.
    pub status: ItemStatus,
    /// `assistant`
    pub role: &'static str,
    /// One text.
    pub content: Vec<Part>,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseFunctionCall)]
pub struct FunctionCall {
    /// `fc_…`
    pub id: String,
    /// How far it is.
    pub status: ItemStatus,
    /// What the result refers to.
    pub call_id: String,
    /// The function.
    pub name: String,
    /// As the model wrote them.
    pub arguments: String,
}

/// A part of a thought or a message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = ResponsePart)]
pub enum Part {
    /// Of a thought.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// Of a message.
    OutputText {
        /// The text.
        text: String,
        /// None: there is nothing to cite.
        #[schema(value_type = Vec<Object>)]
        annotations: [(); 0],
        /// Those of its tokens, where they were asked for.
        logprobs: Vec<ChatToken>,
    },
}

impl Part {
    /// A text of a thought.
    pub fn reasoning(text: String) -> Self {
        Self::ReasoningText { text }
    }

    /// A text of a message.
    pub fn output(text: String, logprobs: Vec<ChatToken>) -> Self {
        Self::OutputText {
            text,
            annotations: [],
            logprobs,
        }
    }

    fn push(&mut self, more: &str, tokens: &[ChatToken]) {
        match self {
            Self::ReasoningText { text } => text.push_str(more),
            Self::OutputText { text, logprobs, .. } => {
                text.push_str(more);
                logprobs.extend_from_slice(tokens);
            }
        }
    }
}

impl Item {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Reasoning(item) => &item.id,
            Self::Message(item) => &item.id,
            Self::FunctionCall(item) => &item.id,
        }
    }

    /// Adds text: to its only part, or to the arguments.
    pub fn push(&mut self, more: &str, tokens: &[ChatToken]) {
        let parts = match self {
            Self::Reasoning(item) => &mut item.content,
            Self::Message(item) => &mut item.content,
            Self::FunctionCall(call) => return call.arguments.push_str(more),
        };
        if let Some(part) = parts.last_mut() {
            part.push(more, tokens);
        }
    }

    /// Its only part, once it has one.
    pub fn part(&self) -> Option<&Part> {
        match self {
            Self::Reasoning(item) => item.content.last(),
            Self::Message(item) => item.content.last(),
            Self::FunctionCall(_) => None,
        }
    }

    /// Gives it its part, without text; calls have none.
    pub fn begin_part(&mut self) {
        match self {
            Self::Reasoning(item) => item.content.push(Part::reasoning(String::new())),
            Self::Message(item) => item.content.push(Part::output(String::new(), Vec::new())),
            Self::FunctionCall(_) => {}
        }
    }

    /// As an item of a later input, where nobody asks for logprobs any more.
    pub fn to_input(&self) -> Value {
        let mut item = self.clone();
        if let Self::Message(message) = &mut item {
            for part in &mut message.content {
                if let Part::OutputText { logprobs, .. } = part {
                    logprobs.clear();
                }
            }
        }
        // Plain structs with string keys: there is nothing that could not be written.
        serde_json::to_value(item).unwrap_or_default()
    }

    /// Says how far it is.
    pub fn set(&mut self, status: ItemStatus) {
        *self.status() = status;
    }

    /// Nothing more comes of it.
    pub fn cut_off(&mut self) {
        let status = self.status();
        if *status == ItemStatus::InProgress {
            *status = ItemStatus::Incomplete;
        }
    }

    fn status(&mut self) -> &mut ItemStatus {
        match self {
            Self::Reasoning(item) => &mut item.status,
            Self::Message(item) => &mut item.status,
            Self::FunctionCall(item) => &mut item.status,
        }
    }
}
