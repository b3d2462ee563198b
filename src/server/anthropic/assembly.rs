//! A message in the making: from what a generation tells to blocks, and to the events about them.

use super::event::{Delta, End, Event};
use super::message::{Block, Message, SIGNATURE, StopReason, input};
use super::new_id;
use crate::engine::FinishReason;
use crate::server::blocks::{Blocks, Change, Kind};
use crate::server::generate::Summary;
use crate::server::openai::message::CallIds;
use crate::server::openai::usage::Account;
use crate::text::output::Piece;

/// Makes one message.
pub struct Assembly {
    message: Message,
    blocks: Blocks,
    /// The arguments of the call that is written.
    arguments: String,
    call_ids: CallIds,
    limit: usize,
    tells_thoughts: bool,
    account: Account,
}

impl Assembly {
    /// Of a message of which nothing is made yet. An output that ended before `limit` tokens, and
    /// not by itself, filled the context.
    pub fn new(message: Message, call_ids: CallIds, limit: usize, tells_thoughts: bool) -> Self {
        Self {
            message,
            blocks: Blocks::default(),
            arguments: String::new(),
            call_ids,
            limit,
            tells_thoughts,
            account: Account::new(1),
        }
    }

    /// The message as far as it is.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The first events.
    pub fn begin(&self) -> Vec<Event> {
        let message = self.message.clone();
        vec![Event::MessageStart { message }, Event::Ping]
    }

    /// Takes more of the output.
    pub fn push(&mut self, pieces: Vec<Piece>) -> Vec<Event> {
        let changes = self.blocks.push(pieces);
        self.apply(changes)
    }

    /// Takes the end of the output.
    pub fn end(&mut self, summary: &Summary) -> Vec<Event> {
        let last = self.blocks.finish();
        let mut events = self.apply(last.into_iter().collect());
        self.account.add(0, summary);
        self.account.log();
        let finish = &summary.finish;
        let reason = match finish.reason {
            _ if summary.stop.is_some() => StopReason::StopSequence,
            FinishReason::Length if finish.completion_tokens < self.limit => {
                StopReason::ModelContextWindowExceeded
            }
            FinishReason::Length => StopReason::MaxTokens,
            FinishReason::Stop if summary.calls > 0 => StopReason::ToolUse,
            FinishReason::Stop => StopReason::EndTurn,
        };
        let message = &mut self.message;
        message.usage = (&self.account).into();
        message.stop_reason = Some(reason);
        message.stop_sequence.clone_from(&summary.stop);
        events.push(Event::MessageDelta {
            delta: End {
                stop_reason: message.stop_reason,
                stop_sequence: message.stop_sequence.clone(),
            },
            usage: message.usage,
        });
        events.push(Event::MessageStop);
        events
    }

    fn apply(&mut self, changes: Vec<Change>) -> Vec<Event> {
        let mut events = Vec::new();
        for change in changes {
            match change {
                Change::Begin(index, kind) => events.push(self.begin_block(index, kind)),
                Change::More(index, text) => events.extend(self.more(index, text)),
                Change::End(index) => events.extend(self.end_block(index)),
            }
        }
        events
    }

    fn begin_block(&mut self, index: usize, kind: Kind) -> Event {
        let block = match kind {
            Kind::Reasoning => Block::Thinking {
                thinking: String::new(),
                signature: "",
            },
            Kind::Text => Block::Text {
                text: String::new(),
            },
            Kind::Call(name) => {
                self.arguments.clear();
                let id = match self.call_ids {
                    CallIds::OpenAi => new_id("toolu"),
                    // Its templates want theirs.
                    CallIds::Mistral => self.call_ids.make(),
                };
                let input = serde_json::Map::new();
                Block::ToolUse { id, name, input }
            }
        };
        self.message.content.push(block.clone());
        Event::ContentBlockStart {
            index,
            content_block: block,
        }
    }

    fn more(&mut self, index: usize, more: String) -> Option<Event> {
        let delta = match self.message.content.last_mut()? {
            Block::Text { text } => {
                text.push_str(&more);
                Delta::TextDelta { text: more }
            }
            Block::Thinking { .. } if !self.tells_thoughts => return None,
            Block::Thinking { thinking, .. } => {
                thinking.push_str(&more);
                Delta::ThinkingDelta { thinking: more }
            }
            Block::ToolUse { .. } => {
                self.arguments.push_str(&more);
                Delta::InputJsonDelta { partial_json: more }
            }
        };
        Some(Event::ContentBlockDelta { index, delta })
    }

    fn end_block(&mut self, index: usize) -> Vec<Event> {
        let stop = Event::ContentBlockStop { index };
        match self.message.content.last_mut() {
            Some(Block::Thinking { signature, .. }) => {
                *signature = SIGNATURE;
                let delta = Delta::SignatureDelta { signature };
                vec![Event::ContentBlockDelta { index, delta }, stop]
            }
            Some(Block::ToolUse { input: object, .. }) => {
                *object = input(&self.arguments);
                vec![stop]
            }
            Some(Block::Text { .. }) | None => vec![stop],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::message::INVALID_JSON;
    use super::*;
    use crate::engine::{Finish, Timings};

    fn summary(reason: FinishReason, tokens: usize, stop: Option<&str>, calls: usize) -> Summary {
        let finish = Finish {
            reason,
            prompt_tokens: 10,
            cached_tokens: 4,
            completion_tokens: tokens,
            timings: Timings {
                queued: Duration::ZERO,
                prefill: Duration::ZERO,
                decode: Duration::ZERO,
            },
        };
        Summary {
            finish,
            stop: stop.map(str::to_owned),
            calls,
            reasoning_tokens: 2,
            mean_logprob: None,
        }
    }

    fn assembly(tells_thoughts: bool) -> Assembly {
        Assembly::new(Message::new("m", 10), CallIds::OpenAi, 8, tells_thoughts)
    }

    fn pieces(arguments: &str) -> Vec<Piece> {
        let name = "f".to_owned();
        vec![
            Piece::Reasoning("hm".into()),
            Piece::Content("hi".into()),
            Piece::Call { index: 0, name },
            Piece::Arguments {
                index: 0,
                text: arguments.to_owned(),
            },
        ]
    }

    #[test]
    fn the_events_tell_the_whole_message() {
        let mut assembly = assembly(true);
        let mut events = assembly.begin();
        events.extend(assembly.push(pieces(r#"{"x": 1}"#)));
        events.extend(assembly.end(&summary(FinishReason::Stop, 5, None, 1)));
        let events: Vec<Value> = events.iter().map(|event| json!(event)).collect();
        let told = |event: &Value| {
            let delta = event["delta"]["type"].as_str().unwrap_or_default();
            format!("{} {delta}", event["type"].as_str().unwrap())
        };
        let order: Vec<String> = events.iter().map(told).collect();
        let want = [
            "message_start ",
            "ping ",
            "content_block_start ",
            "content_block_delta thinking_delta",
            "content_block_delta signature_delta",
            "content_block_stop ",
            "content_block_start ",
            "content_block_delta text_delta",
            "content_block_stop ",
            "content_block_start ",
            "content_block_delta input_json_delta",
            "content_block_stop ",
            "message_delta ",
            "message_stop ",
        ];
        assert_eq!(order, want);
        let message = json!(assembly.message());
        let content = message["content"].as_array().unwrap();
        assert_eq!(
            content[0],
            json!({"type": "thinking", "thinking": "hm", "signature": SIGNATURE})
        );
        assert_eq!(content[1], json!({"type": "text", "text": "hi"}));
        assert_eq!(content[2]["input"], json!({"x": 1}));
        assert_eq!(message["stop_reason"], "tool_use");
        assert_eq!(
            message["usage"],
            json!({"input_tokens": 6, "cache_creation_input_tokens": 0,
                   "cache_read_input_tokens": 4, "output_tokens": 5,
                   "output_tokens_details": {"thinking_tokens": 2}})
        );
        assert_eq!(events[12]["usage"], message["usage"]);
    }

    #[test]
    fn thoughts_can_be_left_out() {
        let mut assembly = assembly(false);
        assembly.push(pieces("{}"));
        let message = json!(assembly.message());
        assert_eq!(
            message["content"][0],
            json!({"type": "thinking", "thinking": "", "signature": SIGNATURE})
        );
    }

    #[test]
    fn arguments_that_are_no_object_come_as_they_were_written() {
        for written in ["{\"x\": ", "[1]", "", "{} {}"] {
            let mut assembly = assembly(true);
            assembly.push(pieces(written));
            assembly.end(&summary(FinishReason::Stop, 5, None, 1));
            let message = json!(assembly.message());
            assert_eq!(
                message["content"][2]["input"],
                json!({INVALID_JSON: written})
            );
        }
    }

    #[test]
    fn the_reason_says_what_ended_it() {
        use super::StopReason::*;
        for (reason, tokens, stop, calls, want) in [
            (FinishReason::Stop, 3, None, 0, EndTurn),
            (FinishReason::Stop, 3, None, 1, ToolUse),
            (FinishReason::Stop, 3, Some("x"), 1, StopSequence),
            (FinishReason::Length, 8, None, 1, MaxTokens),
            (FinishReason::Length, 7, None, 0, ModelContextWindowExceeded),
        ] {
            let mut assembly = assembly(true);
            assembly.end(&summary(reason, tokens, stop, calls));
            assert_eq!(assembly.message().stop_reason, Some(want));
            assert_eq!(assembly.message().stop_sequence.as_deref(), stop);
        }
    }
}
