//! `/v1/chat/completions`: the request's own fields, and the shapes of answers and chunks.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::logprobs::{self, ChatLogprobs, MAX_TOP};
use super::message::{CallIds, Message, MessageDelta};
use super::ranges::integer;
use super::reasoning::{Reasoning, ReasoningFields, ReasoningObject};
use super::tools::Tools;
use super::usage::{TimingsOut, Usage};
use super::{FINGERPRINT, completions::StreamOptions};
use super::{messages, metadata};
use crate::engine::FinishReason;
use crate::server::body::Body;
use crate::server::conversation::Conversation;
use crate::server::error::ApiError;
use crate::server::generate::{Delta, Summary};
use crate::server::model::Piece;
use crate::server::reader::Telling;

/// What chat has beyond the fields of sampling. `messages`, `tools` and `response_format` are taken
/// out of the body by themselves: they can be large, and are checked with paths of their own.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[allow(dead_code, reason = "some fields are only checked for their type")]
pub struct ChatFields {
    /// The id of the model that answers, or anything: see `--strict-model`.
    model: Option<String>,
    /// Stream the answer as server-sent events.
    pub stream: Option<bool>,
    /// Whether the stream ends with the usage.
    pub stream_options: Option<StreamOptions>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    /// Further variables for the template.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Whether to end the prompt with the header of the assistant's turn; absent is yes.
    pub add_generation_prompt: Option<bool>,
    /// Whether the assistant's last message is gone on with, instead of a new one begun.
    pub continue_final_message: Option<bool>,
    /// Whether an answer may make several calls; absent is yes.
    pub parallel_tool_calls: Option<bool>,
    user: Option<String>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

impl ChatFields {
    /// How many likeliest tokens to report with each token; `None` is no logprobs at all.
    pub fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        let wanted = self.logprobs.unwrap_or(false);
        let top = self
            .top_logprobs
            .map(|top| integer("top_logprobs", top, 0, MAX_TOP));
        match (wanted, top.transpose()?) {
            (false, Some(_)) => {
                let message = "`top_logprobs` needs `logprobs: true`";
                Err(ApiError::invalid("top_logprobs", message))
            }
            (false, None) => Ok(None),
            (true, top) => Ok(Some(top.unwrap_or(0))),
        }
    }
}

/// Takes what is to be continued out of the body. Thoughts are told by `usual` where it does not say.
pub fn conversation(
    body: &mut Body,
    fields: ChatFields,
    usual: Telling,
) -> Result<Conversation, ApiError> {
    body.look_into::<ReasoningObject>("reasoning");
    let reasoning: ReasoningFields = body.read()?;
    let Reasoning {
        thinking,
        budget,
        telling,
        names,
    } = reasoning.resolve(body.read()?, usual)?;
    metadata::checked(fields.metadata)?;
    let continues = fields.continue_final_message.unwrap_or(false);
    if continues && fields.add_generation_prompt == Some(true) {
        let message = "a message that goes on has no header of its own; leave out \
                       `add_generation_prompt` or `continue_final_message`";
        return Err(ApiError::invalid("add_generation_prompt", message));
    }
    let missing = || ApiError::missing("messages", "`messages` is required");
    let messages = body.take("messages").ok_or_else(missing)?;
    let messages = messages::normalize(messages)?;
    let tools = Tools::parse(
        body.take("tools"),
        body.take("tool_choice"),
        fields.parallel_tool_calls,
    )?;
    Ok(Conversation {
        tools,
        thinking,
        thinking_budget: budget,
        telling,
        template_kwargs: fields.chat_template_kwargs.unwrap_or_default(),
        add_generation_prompt: fields.add_generation_prompt.unwrap_or(true),
        continues,
        ..Conversation::new(messages, names)
    })
}

/// What every answer and chunk of one request has in common.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Head {
    /// `chatcmpl-…`.
    pub id: String,
    /// Which shape this is.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// The build.
    pub system_fingerprint: &'static str,
}

impl Head {
    /// Of one request.
    pub fn new(prefix: &str, object: &'static str, model: &str) -> Self {
        Self {
            id: super::new_id(prefix),
            object,
            created: crate::server::clock::unix_seconds(),
            model: model.to_owned(),
            system_fingerprint: FINGERPRINT,
        }
    }
}

/// The whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    /// Id, model, time.
    #[serde(flatten)]
    pub head: Head,
    /// One a choice.
    pub choices: Vec<ChatChoice>,
    /// Tokens.
    pub usage: Usage,
    /// Times.
    pub timings: TimingsOut,
}

/// One answer of several.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    index: usize,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

impl ChatChoice {
    /// From a whole output.
    pub fn new(
        index: usize,
        output: Delta,
        summary: &Summary,
        logprobs: bool,
        ids: CallIds,
        piece: impl Fn(u32) -> Piece,
    ) -> Self {
        let logprobs = logprobs.then(|| logprobs::chat(&output, piece));
        Self {
            index,
            message: Message::new(output.pieces, ids),
            logprobs,
            finish_reason: finish_reason(summary.finish.reason, summary.calls),
        }
    }
}

/// A part of a streamed answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunk<'a> {
    /// Id, model, time.
    #[serde(flatten)]
    pub head: &'a Head,
    /// One, or none in the chunk that carries the usage.
    pub choices: Vec<ChunkChoice>,
    /// Outer: asked for by `include_usage`; inner: only in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
    /// In the chunk that ends a choice, and in the one with the usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<TimingsOut>,
}

/// What is new in one choice.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChunkChoice {
    index: usize,
    delta: MessageDelta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

impl ChunkChoice {
    /// The first chunk of a choice, which may turn out to be a call of `tools`.
    pub fn role(index: usize, tools: bool) -> Self {
        Self {
            index,
            delta: MessageDelta::role(tools),
            logprobs: None,
            finish_reason: None,
        }
    }

    /// More of a choice.
    pub fn delta(
        index: usize,
        delta: Delta,
        logprobs: bool,
        ids: CallIds,
        piece: impl Fn(u32) -> Piece,
    ) -> Self {
        let logprobs = logprobs.then(|| logprobs::chat(&delta, piece));
        Self {
            index,
            delta: MessageDelta::new(delta.pieces, ids),
            logprobs,
            finish_reason: None,
        }
    }

    /// The end of a choice.
    pub fn end(index: usize, summary: &Summary) -> Self {
        Self {
            index,
            delta: MessageDelta::default(),
            logprobs: None,
            finish_reason: Some(finish_reason(summary.finish.reason, summary.calls)),
        }
    }
}

/// OpenAI's word. A call that was cut off is not one to execute, so that `length` comes first.
pub fn finish_reason(reason: FinishReason, calls: usize) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop if calls > 0 => "tool_calls",
        FinishReason::Stop => "stop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Finish, Timings};
    use crate::server::openai::usage::Account;
    use crate::text::output;
    use serde_json::json;

    fn head(object: &'static str) -> Head {
        let id = "chatcmpl-1".to_owned();
        Head {
            id,
            object,
            created: 7,
            model: "m".to_owned(),
            system_fingerprint: "f",
        }
    }

    fn output(text: &str) -> Delta {
        Delta {
            pieces: vec![output::Piece::Content(text.to_owned())],
            ..Delta::default()
        }
    }

    fn summary(reason: FinishReason, calls: usize) -> Summary {
        Summary {
            finish: Finish {
                reason,
                prompt_tokens: 1,
                cached_tokens: 0,
                completion_tokens: 1,
                timings: Timings::default(),
            },
            stop: None,
            calls,
            reasoning_tokens: 0,
            mean_logprob: None,
        }
    }

    #[test]
    fn an_answer_that_calls_says_so_unless_it_was_cut_off() {
        let reason = |reason, calls| finish_reason(reason, calls);
        assert_eq!(reason(FinishReason::Stop, 0), "stop");
        assert_eq!(reason(FinishReason::Stop, 1), "tool_calls");
        assert_eq!(reason(FinishReason::Length, 1), "length");
    }

    #[test]
    fn top_logprobs_need_logprobs() {
        let fields = |value| {
            serde_json::from_value::<ChatFields>(value)
                .unwrap()
                .logprobs()
        };
        assert_eq!(fields(json!({})).unwrap(), None);
        assert_eq!(fields(json!({"logprobs": false})).unwrap(), None);
        assert_eq!(fields(json!({"logprobs": true})).unwrap(), Some(0));
        assert_eq!(
            fields(json!({"logprobs": true, "top_logprobs": 5})).unwrap(),
            Some(5)
        );
        for bad in [
            json!({"top_logprobs": 5}),
            json!({"logprobs": true, "top_logprobs": 21}),
            json!({"logprobs": true, "top_logprobs": -1}),
        ] {
            assert_eq!(fields(bad).unwrap_err().param(), Some("top_logprobs"));
        }
    }

    #[test]
    fn the_whole_answer() {
        let account = Account::new(1);
        let choice = ChatChoice::new(
            0,
            output("hi"),
            &summary(FinishReason::Stop, 0),
            false,
            CallIds::default(),
            |_| unreachable!(),
        );
        let answer = ChatCompletion {
            head: head("chat.completion"),
            choices: vec![choice],
            usage: account.usage(),
            timings: account.timings(),
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap(), @r#"
        {
          "id": "chatcmpl-1",
          "object": "chat.completion",
          "created": 7,
          "model": "m",
          "system_fingerprint": "f",
          "choices": [
            {
              "index": 0,
              "message": {
                "role": "assistant",
                "content": "hi",
                "refusal": null
              },
              "logprobs": null,
              "finish_reason": "stop"
            }
          ],
          "usage": {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
            "prompt_tokens_details": {
              "cached_tokens": 0
            },
            "completion_tokens_details": {
              "reasoning_tokens": 0
            }
          },
          "timings": {
            "cache_n": 0,
            "prompt_n": 0,
            "prompt_ms": 0.0,
            "prompt_per_second": 0.0,
            "predicted_n": 0,
            "predicted_ms": 0.0,
            "predicted_per_second": 0.0,
            "queued_ms": 0.0
          }
        }
        "#);
    }

    #[test]
    fn the_chunks() {
        let head = head("chat.completion.chunk");
        let chunk = |choices, usage| {
            let chunk = ChatChunk {
                head: &head,
                choices,
                usage,
                timings: None,
            };
            let mut value = serde_json::to_value(&chunk).unwrap();
            for name in ["id", "object", "created", "model", "system_fingerprint"] {
                assert!(
                    value.as_object_mut().unwrap().shift_remove(name).is_some(),
                    "{name}"
                );
            }
            value.to_string()
        };
        let none = |_| unreachable!();
        insta::assert_snapshot!(chunk(vec![ChunkChoice::role(1, false)], Some(None)), @r#"{"choices":[{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}"#);
        insta::assert_snapshot!(chunk(vec![ChunkChoice::delta(0, output("x"), false, CallIds::default(), none)], None), @r#"{"choices":[{"index":0,"delta":{"content":"x"},"logprobs":null,"finish_reason":null}]}"#);
        insta::assert_snapshot!(chunk(vec![ChunkChoice::end(0, &summary(FinishReason::Length, 0))], None), @r#"{"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}"#);
        insta::assert_snapshot!(chunk(vec![], Some(Some(Usage::default()))), @r#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}"#);
    }
}
