//! The events of a stream.

use axum::response::sse;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Failure;
use super::message::{Block, Message, StopReason, Usage};
use crate::server::sse::named;

/// What happens to a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = AnthropicEvent)]
pub enum Event {
    /// It begins.
    MessageStart {
        /// As it is now: empty.
        message: Message,
    },
    /// A block begins.
    ContentBlockStart {
        /// Its place in the message.
        index: usize,
        /// As it is now: empty.
        content_block: Block,
    },
    /// More of a block.
    ContentBlockDelta {
        /// Its place in the message.
        index: usize,
        /// What is new.
        delta: Delta,
    },
    /// A block is whole.
    ContentBlockStop {
        /// Its place in the message.
        index: usize,
    },
    /// How it ended.
    MessageDelta {
        /// Why.
        delta: End,
        /// Tokens, in all.
        usage: Usage,
    },
    /// There is no more.
    MessageStop,
    /// The connection lives.
    Ping,
    /// It failed: there is no more.
    Error {
        /// Why.
        error: Failure,
        /// The request's `x-request-id`.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<String>,
    },
}

/// More of a block.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = AnthropicDelta)]
pub enum Delta {
    /// Of a text.
    TextDelta {
        /// The next part.
        text: String,
    },
    /// Of a thought.
    ThinkingDelta {
        /// The next part.
        thinking: String,
    },
    /// Behind a thought.
    SignatureDelta {
        /// Says who made it; it is not checked.
        signature: &'static str,
    },
    /// Of a call's arguments, as they are written.
    InputJsonDelta {
        /// The next part.
        partial_json: String,
    },
}

/// How a message ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AnthropicEnd)]
pub struct End {
    /// Why.
    pub stop_reason: Option<StopReason>,
    /// The one of `stop_sequences` that ended it.
    pub stop_sequence: Option<String>,
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
            Self::Error { .. } => "error",
        }
    }

    /// As it is sent: its type is also the event's name.
    pub fn write(&self) -> sse::Event {
        named(self.name(), self)
    }
}
