//! `/v1/completions`: the request's own fields, and the shapes of answers and chunks.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::chat::{Head, finish_reason};
use super::logprobs::{CompletionLogprobs, MAX_TOP};
use super::ranges::integer;
use super::sampling::MAX_CHOICES;
use super::usage::{TimingsOut, Usage};
use crate::engine::FinishReason;
use crate::server::error::ApiError;

/// Most prompts of one request.
pub const MAX_PROMPTS: usize = 256;

/// What completions have beyond the fields of sampling. `prompt` and `response_format` are taken out
/// of the body by themselves.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[allow(dead_code, reason = "some fields are only checked for their type")]
pub struct CompletionFields {
    /// The id of the model that answers, or anything: see `--strict-model`.
    model: Option<String>,
    /// Stream the answer as server-sent events.
    pub stream: Option<bool>,
    /// Whether the stream ends with the usage.
    pub stream_options: Option<StreamOptions>,
    logprobs: Option<i64>,
    /// Whether the text begins with the prompt.
    pub echo: Option<bool>,
    best_of: Option<i64>,
    user: Option<String>,
    /// The client's own notes.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

impl CompletionFields {
    /// How many likeliest tokens to report with each token; `None` is no logprobs at all.
    pub fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        self.logprobs
            .map(|top| integer("logprobs", top, 0, MAX_TOP))
            .transpose()
    }

    /// How many outputs to make of each prompt, of which the best `n` are answered.
    pub fn best_of(&self, n: usize) -> Result<usize, ApiError> {
        let Some(best_of) = self.best_of else {
            return Ok(n);
        };
        let best_of = integer("best_of", best_of, 1, MAX_CHOICES as i64)?;
        let wrong = |message: String| Err(ApiError::invalid("best_of", message));
        if best_of < n {
            return wrong(format!(
                "`best_of` is {best_of}, it must be at least `n`, {n}"
            ));
        }
        if best_of > n && self.stream == Some(true) {
            let message =
                "with `best_of` above `n` nothing can be streamed: the best is known last";
            return wrong(message.to_owned());
        }
        Ok(best_of)
    }
}

/// `stream_options` of both endpoints.
#[derive(Debug, Default, Clone, Copy, Deserialize, ToSchema)]
#[allow(
    dead_code,
    reason = "chunks are never padded, so both values of it are honoured"
)]
pub struct StreamOptions {
    /// End the stream with a chunk that carries the usage.
    pub include_usage: Option<bool>,
    include_obfuscation: Option<bool>,
}

/// Whether a stream ends with its usage.
pub fn include_usage(stream: bool, options: Option<StreamOptions>) -> Result<bool, ApiError> {
    needs_stream(stream, options.is_some())?;
    let asked = options.and_then(|options| options.include_usage);
    Ok(asked.unwrap_or(false))
}

/// Refuses `stream_options` without `stream`, as OpenAI does.
pub fn needs_stream(stream: bool, options: bool) -> Result<(), ApiError> {
    if options && !stream {
        let message = "`stream_options` needs `stream: true`";
        return Err(ApiError::invalid("stream_options", message));
    }
    Ok(())
}

/// A prompt as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// To be tokenized.
    Text(String),
    /// Tokenized by the client.
    Tokens(Vec<u32>),
}

/// Reads `prompt`: a string, a list of strings, token ids, or a list of lists of token ids.
pub fn prompts(prompt: Option<Value>) -> Result<Vec<Prompt>, ApiError> {
    let kinds = "`prompt` must be a string, a list of strings, a list of token ids, or a list of \
                 lists of token ids";
    let list = match prompt {
        None => return Err(ApiError::missing("prompt", "`prompt` is required")),
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::wrong_type("prompt", kinds)),
    };
    let Some(first) = list.first() else {
        return Err(ApiError::invalid(
            "prompt",
            "`prompt` is empty; send at least one",
        ));
    };
    if first.is_number() {
        return Ok(vec![Prompt::Tokens(tokens("prompt", list)?)]);
    }
    if list.len() > MAX_PROMPTS {
        let message = format!(
            "{} prompts in one request, at most {MAX_PROMPTS} are taken",
            list.len()
        );
        return Err(ApiError::invalid("prompt", message));
    }
    let one = |(index, value)| match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(list) => tokens(&format!("prompt[{index}]"), list).map(Prompt::Tokens),
        _ => Err(ApiError::wrong_type(&format!("prompt[{index}]"), kinds)),
    };
    list.into_iter().enumerate().map(one).collect()
}

/// Token ids from JSON; whether the model has them is for the caller to check.
pub fn tokens(path: &str, list: Vec<Value>) -> Result<Vec<u32>, ApiError> {
    let one = |(index, value): (usize, Value)| {
        value
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| {
                let path = format!("{path}[{index}]");
                ApiError::wrong_type(&path, format!("`{path}` is no token id"))
            })
    };
    list.into_iter().enumerate().map(one).collect()
}

/// The whole answer, or with other words a chunk of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion<'a> {
    /// Id, model, time.
    #[serde(flatten)]
    pub head: &'a Head,
    /// One a choice; in a chunk one or none.
    pub choices: Vec<CompletionChoice>,
    /// Outer: present; inner: only in the last chunk of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
    /// In whole answers, in the chunk that ends a choice, and in the one with the usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<TimingsOut>,
}

/// One output, or what is new in it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

impl CompletionChoice {
    /// From a piece of output; with a reason it is the last, or the whole.
    pub fn new(
        index: usize,
        text: String,
        logprobs: Option<CompletionLogprobs>,
        reason: Option<FinishReason>,
    ) -> Self {
        Self {
            index,
            text,
            logprobs,
            finish_reason: reason.map(|reason| finish_reason(reason, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_four_forms_of_a_prompt() {
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(prompts(Some(json!("a"))).unwrap(), [text("a")]);
        assert_eq!(
            prompts(Some(json!(["a", "b"]))).unwrap(),
            [text("a"), text("b")]
        );
        assert_eq!(
            prompts(Some(json!([1, 2]))).unwrap(),
            [Prompt::Tokens(vec![1, 2])]
        );
        let two = [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])];
        assert_eq!(prompts(Some(json!([[1], [2, 3]]))).unwrap(), two);
    }

    #[test]
    fn what_is_no_prompt_is_named() {
        for (prompt, param) in [
            (None, "prompt"),
            (Some(json!([])), "prompt"),
            (Some(json!(3)), "prompt"),
            (Some(json!({})), "prompt"),
            (Some(json!([1, "a"])), "prompt[1]"),
            (Some(json!([-1])), "prompt[0]"),
            (Some(json!([1.5])), "prompt[0]"),
            (Some(json!(["a", 1])), "prompt[1]"),
            (Some(json!([[1], ["x"]])), "prompt[1][0]"),
            (Some(json!(vec!["a"; MAX_PROMPTS + 1])), "prompt"),
        ] {
            assert_eq!(
                prompts(prompt.clone()).unwrap_err().param(),
                Some(param),
                "{prompt:?}"
            );
        }
    }

    #[test]
    fn stream_options_need_a_stream() {
        assert!(!include_usage(true, None).unwrap());
        let asked = StreamOptions {
            include_usage: Some(true),
            include_obfuscation: None,
        };
        assert!(include_usage(true, Some(asked)).unwrap());
        let error = include_usage(false, Some(asked)).unwrap_err();
        assert_eq!(error.param(), Some("stream_options"));
    }

    #[test]
    fn the_best_are_some_of_all_and_not_streamed() {
        let best_of = |fields, n| {
            let fields: CompletionFields = serde_json::from_value(fields).unwrap();
            fields.best_of(n)
        };
        assert_eq!(best_of(json!({}), 3).unwrap(), 3);
        assert_eq!(best_of(json!({"best_of": 5}), 3).unwrap(), 5);
        assert_eq!(
            best_of(json!({"best_of": 3, "stream": true}), 3).unwrap(),
            3
        );
        for bad in [
            json!({"best_of": 0}),
            json!({"best_of": -1}),
            json!({"best_of": 129}),
            json!({"best_of": 2}),
            json!({"best_of": 4, "stream": true}),
        ] {
            let error = best_of(bad.clone(), 3).unwrap_err();
            assert_eq!(error.param(), Some("best_of"), "{bad}");
        }
    }

    #[test]
    fn the_shape_of_a_choice() {
        let choice = CompletionChoice::new(1, "x".into(), None, Some(FinishReason::Length));
        insta::assert_snapshot!(serde_json::to_string(&choice).unwrap(), @r#"{"index":1,"text":"x","logprobs":null,"finish_reason":"length"}"#);
    }
}
