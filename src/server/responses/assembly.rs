//! A response in the making: from what a generation tells to items, and to the events about them.

use super::event::{Event, Place};
use super::item::{FunctionCall, Item, ItemStatus, Message, Part, Reasoning};
use super::new_id;
use super::response::{Incomplete, Response, Status};
use crate::engine::FinishReason;
use crate::server::blocks::{Blocks, Change, Kind};
use crate::server::clock::unix_seconds;
use crate::server::error::ApiError;
use crate::server::generate::{Delta, Summary};
use crate::server::openai::logprobs::{self, ChatToken};
use crate::server::openai::message::CallIds;
use crate::server::openai::usage::Account;
use crate::text::output;

/// Makes one response. Items come one after the other, each with one part.
pub struct Assembly {
    response: Response,
    blocks: Blocks,
    call_ids: CallIds,
    /// Whether tokens are told with their logprobs.
    logprobs: bool,
    /// Tokens whose text is not told yet.
    tokens: Vec<ChatToken>,
    account: Account,
}

impl Assembly {
    /// Of a response of which nothing is made yet.
    pub fn new(response: Response, call_ids: CallIds, logprobs: bool) -> Self {
        Self {
            response,
            blocks: Blocks::default(),
            call_ids,
            logprobs,
            tokens: Vec::new(),
            account: Account::new(1),
        }
    }

    /// The response as far as it is.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The first events.
    pub fn begin(&mut self) -> Vec<Event> {
        self.response.status = Status::InProgress;
        let response = || Box::new(self.response.clone());
        vec![
            Event::Created {
                response: response(),
            },
            Event::InProgress {
                response: response(),
            },
        ]
    }

    /// Takes more of the output. `piece` is the text of a token.
    pub fn push(
        &mut self,
        delta: Delta,
        piece: impl Fn(u32) -> crate::server::model::Piece,
    ) -> Vec<Event> {
        self.response.status = Status::InProgress;
        if self.logprobs {
            self.tokens.extend(logprobs::chat(&delta, piece).content);
        }
        let news = !delta.pieces.is_empty();
        let answers = |piece: &output::Piece| matches!(piece, output::Piece::Content(_));
        let mut answer = delta.pieces.iter().any(answers);
        let changes = self.blocks.push(delta.pieces);
        let events = self.apply(changes);
        // The tokens of thoughts, of calls and of what is between them are not told.
        answer |= !news && self.blocks.open() == Some(&Kind::Text);
        if !answer {
            self.tokens.clear();
        }
        events
    }

    /// Takes the end of the output; the last event says how it ended.
    pub fn end(&mut self, summary: &Summary) -> Vec<Event> {
        let cut = summary.finish.reason == FinishReason::Length;
        let status = if cut {
            ItemStatus::Incomplete
        } else {
            ItemStatus::Completed
        };
        let mut events = self.close(status);
        let says = |item: &Item| !matches!(item, Item::Reasoning(_));
        if !cut && !self.response.output.iter().any(says) {
            // An answer without a word is an answer.
            events.extend(self.apply(vec![Change::Begin(0, Kind::Text)]));
            events.extend(self.finish_item(ItemStatus::Completed));
        }
        self.account.add(0, summary);
        self.account.log();
        self.response.usage = Some(self.account.usage().into());
        self.response.timings = Some(self.account.timings());
        if cut {
            self.response.status = Status::Incomplete;
            self.response.incomplete_details = Some(Incomplete {
                reason: "max_output_tokens",
            });
        } else {
            self.response.status = Status::Completed;
            self.response.completed_at = Some(unix_seconds());
        }
        events.push(Event::ended(self.response.clone()));
        events
    }

    /// The model failed.
    pub fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        if let Some(item) = self.response.output.last_mut() {
            item.cut_off();
        }
        self.response.fail(error);
        vec![Event::ended(self.response.clone())]
    }

    fn close(&mut self, status: ItemStatus) -> Vec<Event> {
        match self.blocks.finish() {
            Some(_) => self.finish_item(status),
            None => Vec::new(),
        }
    }

    fn apply(&mut self, changes: Vec<Change>) -> Vec<Event> {
        let mut events = Vec::new();
        for change in changes {
            match change {
                Change::Begin(_, kind) => events.extend(self.begin_item(kind)),
                Change::More(_, text) => events.extend(self.more(text)),
                Change::End(_) => events.extend(self.finish_item(ItemStatus::Completed)),
            }
        }
        events
    }

    fn begin_item(&mut self, kind: Kind) -> Vec<Event> {
        let status = ItemStatus::InProgress;
        let mut item = match kind {
            Kind::Reasoning => Item::Reasoning(Reasoning {
                id: new_id("rs"),
                summary: [],
                content: Vec::new(),
                status,
            }),
            Kind::Text => Item::Message(Message {
                id: new_id("msg"),
                status,
                role: "assistant",
                content: Vec::new(),
            }),
            Kind::Call(name) => Item::FunctionCall(FunctionCall {
                id: new_id("fc"),
                status,
                call_id: self.call_ids.make(),
                name,
                arguments: String::new(),
            }),
        };
        let output_index = self.response.output.len();
        let mut events = vec![Event::ItemAdded {
            output_index,
            item: item.clone(),
        }];
        item.begin_part();
        if let Some(part) = item.part() {
            let at = place(&item, output_index);
            let part = part.clone();
            events.push(Event::PartAdded { at, part });
        }
        self.response.output.push(item);
        events
    }

    fn more(&mut self, delta: String) -> Option<Event> {
        let output_index = self.response.output.len().checked_sub(1)?;
        let item = self.response.output.last_mut()?;
        let logprobs = match item {
            Item::Message(_) => std::mem::take(&mut self.tokens),
            _ => Vec::new(),
        };
        item.push(&delta, &logprobs);
        let at = place(item, output_index);
        Some(match item {
            Item::Message(_) => Event::TextDelta {
                at,
                delta,
                logprobs,
            },
            Item::Reasoning(_) => Event::ReasoningDelta { at, delta },
            Item::FunctionCall(call) => Event::ArgumentsDelta {
                item_id: call.id.clone(),
                output_index,
                delta,
            },
        })
    }

    fn finish_item(&mut self, status: ItemStatus) -> Vec<Event> {
        let output_index = self.response.output.len().saturating_sub(1);
        let Some(item) = self.response.output.last_mut() else {
            return Vec::new();
        };
        item.set(status);
        let at = place(item, output_index);
        let mut events = Vec::new();
        if let Item::FunctionCall(call) = item {
            events.push(Event::ArgumentsDone {
                item_id: call.id.clone(),
                output_index,
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            });
        }
        if let Some(part) = item.part().cloned() {
            events.push(match part.clone() {
                Part::ReasoningText { text } => Event::ReasoningDone {
                    at: at.clone(),
                    text,
                },
                Part::OutputText { text, logprobs, .. } => Event::TextDone {
                    at: at.clone(),
                    text,
                    logprobs,
                },
            });
            events.push(Event::PartDone { at, part });
        }
        events.push(Event::ItemDone {
            output_index,
            item: item.clone(),
        });
        events
    }
}

fn place(item: &Item, output_index: usize) -> Place {
    Place {
        item_id: item.id().to_owned(),
        output_index,
        content_index: 0,
    }
}
