//! The events of a stream, each with its number.

use axum::response::sse;
use serde::Serialize;
use utoipa::ToSchema;

use super::item::{Item, Part};
use super::response::{Response, Status};
use crate::server::openai::logprobs::ChatToken;
use crate::server::sse::named;

/// What happens to a response.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type")]
#[schema(as = ResponseEvent)]
pub enum Event {
    /// It is there.
    #[serde(rename = "response.created")]
    Created {
        /// The response as it is now.
        response: Box<Response>,
    },
    /// It is made.
    #[serde(rename = "response.in_progress")]
    InProgress {
        /// The response as it is now.
        response: Box<Response>,
    },
    /// An item begins.
    #[serde(rename = "response.output_item.added")]
    ItemAdded {
        /// The item's place in the output.
        output_index: usize,
        /// The item as it is now.
        item: Item,
    },
    /// A part of an item begins.
    #[serde(rename = "response.content_part.added")]
    PartAdded {
        /// Where.
        #[serde(flatten)]
        at: Place,
        /// The part as it is now.
        part: Part,
    },
    /// More of a message.
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        /// Where.
        #[serde(flatten)]
        at: Place,
        /// The text.
        delta: String,
        /// Those of its tokens, where they were asked for.
        logprobs: Vec<ChatToken>,
    },
    /// A message's text is whole.
    #[serde(rename = "response.output_text.done")]
    TextDone {
        /// Where.
        #[serde(flatten)]
        at: Place,
        /// All of it.
        text: String,
        /// Those of its tokens, where they were asked for.
        logprobs: Vec<ChatToken>,
    },
    /// More of a thought.
    #[serde(rename = "response.reasoning_text.delta")]
    ReasoningDelta {
        /// Where.
        #[serde(flatten)]
        at: Place,
        /// The text.
        delta: String,
    },
    /// A thought is whole.
    #[serde(rename = "response.reasoning_text.done")]
    ReasoningDone {
        /// Where.
        #[serde(flatten)]
        at: Place,
        /// All of it.
        text: String,
    },
    /// More of a call's arguments.
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta {
        /// The call's item.
        item_id: String,
        /// The item's place in the output.
        output_index: usize,
        /// The text.
        delta: String,
    },
    /// They are whole.
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone {
        /// The call's item.
        item_id: String,
        /// The item's place in the output.
        output_index: usize,
        /// The function.
        name: String,
        /// All of them.
        arguments: String,
    },
    /// A part is whole.
    #[serde(rename = "response.content_part.done")]
    PartDone {
        /// Where.
        #[serde(flatten)]
        at: Place,
        /// The part as it is now.
        part: Part,
    },
    /// An item is whole, or was cut off.
    #[serde(rename = "response.output_item.done")]
    ItemDone {
        /// The item's place in the output.
        output_index: usize,
        /// The item as it is now.
        item: Item,
    },
    /// The response is whole.
    #[serde(rename = "response.completed")]
    Completed {
        /// The response as it is now.
        response: Box<Response>,
    },
    /// It was cut off.
    #[serde(rename = "response.incomplete")]
    Incomplete {
        /// The response as it is now.
        response: Box<Response>,
    },
    /// It failed.
    #[serde(rename = "response.failed")]
    Failed {
        /// The response as it is now.
        response: Box<Response>,
    },
}

/// A part of an item.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponsePlace)]
pub struct Place {
    /// The item.
    pub item_id: String,
    /// Its place in the output.
    pub output_index: usize,
    /// The part's place in it.
    pub content_index: usize,
}

impl Event {
    /// Its type on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "response.created",
            Self::InProgress { .. } => "response.in_progress",
            Self::ItemAdded { .. } => "response.output_item.added",
            Self::PartAdded { .. } => "response.content_part.added",
            Self::TextDelta { .. } => "response.output_text.delta",
            Self::TextDone { .. } => "response.output_text.done",
            Self::ReasoningDelta { .. } => "response.reasoning_text.delta",
            Self::ReasoningDone { .. } => "response.reasoning_text.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Self::PartDone { .. } => "response.content_part.done",
            Self::ItemDone { .. } => "response.output_item.done",
            Self::Completed { .. } => "response.completed",
            Self::Incomplete { .. } => "response.incomplete",
            Self::Failed { .. } => "response.failed",
        }
    }

    /// That a response ended, as its status says.
    pub fn ended(response: Response) -> Self {
        let status = response.status;
        let response = Box::new(response);
        match status {
            Status::Completed => Self::Completed { response },
            Status::Incomplete => Self::Incomplete { response },
            _ => Self::Failed { response },
        }
    }
}

/// Numbers the events of one stream from 0.
#[derive(Debug, Default)]
pub struct Numbers(u64);

#[derive(Serialize)]
struct Numbered<'a> {
    #[serde(flatten)]
    event: &'a Event,
    sequence_number: u64,
}

impl Numbers {
    /// The event as it is sent: its type is also the event's name.
    pub fn write(&mut self, event: &Event) -> sse::Event {
        let sequence_number = self.0;
        self.0 += 1;
        let numbered = Numbered {
            event,
            sequence_number,
        };
        named(event.name(), &numbered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::responses::item::{ItemStatus, Message};
    use crate::server::responses::response::tests::settings;

    #[test]
    fn an_event_goes_by_its_type() {
        let response = || Box::new(Response::new("m", settings()));
        let at = Place {
            item_id: "i".to_owned(),
            output_index: 0,
            content_index: 0,
        };
        let part = Part::reasoning("x".to_owned());
        let item = Item::Message(Message {
            id: "i".to_owned(),
            status: ItemStatus::Completed,
            role: "assistant",
            content: Vec::new(),
        });
        let text = || "x".to_owned();
        let (at, item, part) = (|| at.clone(), || item.clone(), || part.clone());
        let (output_index, logprobs) = (0, Vec::new);
        for event in [
            Event::Created {
                response: response(),
            },
            Event::InProgress {
                response: response(),
            },
            Event::ItemAdded {
                output_index,
                item: item(),
            },
            Event::PartAdded {
                at: at(),
                part: part(),
            },
            Event::TextDelta {
                at: at(),
                delta: text(),
                logprobs: logprobs(),
            },
            Event::TextDone {
                at: at(),
                text: text(),
                logprobs: logprobs(),
            },
            Event::ReasoningDelta {
                at: at(),
                delta: text(),
            },
            Event::ReasoningDone {
                at: at(),
                text: text(),
            },
            Event::ArgumentsDelta {
                item_id: text(),
                output_index,
                delta: text(),
            },
            Event::ArgumentsDone {
                item_id: text(),
                output_index,
                name: text(),
                arguments: text(),
            },
            Event::PartDone {
                at: at(),
                part: part(),
            },
            Event::ItemDone {
                output_index,
                item: item(),
            },
            Event::Completed {
                response: response(),
            },
            Event::Incomplete {
                response: response(),
            },
            Event::Failed {
                response: response(),
            },
        ] {
            let numbered = Numbered {
                event: &event,
                sequence_number: 7,
            };
            let value = serde_json::to_value(&numbered).unwrap();
            assert_eq!(value["type"], event.name());
            assert_eq!(value["sequence_number"], 7);
        }
    }
}
