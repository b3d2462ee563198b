//! What a request says about thoughts: whether there are some, how many tokens of them, and where they
//! are told.
//!
//! Servers agree on little here. Whether to think: `reasoning_effort` (OpenAI), `enable_thinking`
//! (Qwen). How much: `thinking_budget` (Qwen's own API), `thinking_token_budget` (vLLM),
//! `thinking_budget_tokens` and `reasoning_budget_tokens` (llama-server). Where: `reasoning_format`
//! (llama-server), `include_reasoning` (vLLM). All of it in one object: `reasoning` (OpenRouter).

use serde::Deserialize;
use utoipa::ToSchema;

use super::ranges::integer;
use crate::server::conversation::FieldNames;
use crate::server::error::ApiError;
use crate::server::reader::Telling;
use crate::server::thinking::{Effort, Thinking};

/// The names of a budget, each with -1 for none.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub struct BudgetFields {
    /// Most tokens of the thought before the answer; -1 is any number.
    thinking_budget: Option<i64>,
    /// The same, in vLLM's words.
    thinking_token_budget: Option<i64>,
    /// The same, in llama-server's words.
    thinking_budget_tokens: Option<i64>,
    /// The same, in llama-server's other words.
    reasoning_budget_tokens: Option<i64>,
}

impl BudgetFields {
    /// Most tokens of a thought; `object` is `reasoning.max_tokens`.
    pub fn resolve(self, object: Option<i64>) -> Result<Option<usize>, ApiError> {
        let mut found: Option<(&str, i64)> = None;
        for (name, value) in [
            ("reasoning.max_tokens", object),
            ("thinking_budget", self.thinking_budget),
            ("thinking_token_budget", self.thinking_token_budget),
            ("thinking_budget_tokens", self.thinking_budget_tokens),
            ("reasoning_budget_tokens", self.reasoning_budget_tokens),
        ] {
            let Some(value) = value else { continue };
            if value != -1 {
                integer(name, value, 0, i64::MAX)?;
            }
            match found {
                Some((other, first)) if first != value => return Err(differ(name, other)),
                _ => found = Some((name, value)),
            }
        }
        // Anything below 0 was refused, but for -1, which is no bound.
        Ok(found.and_then(|(_, value)| usize::try_from(value).ok()))
    }
}

/// What a chat says about thoughts.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ReasoningFields {
    reasoning_effort: Option<Effort>,
    enable_thinking: Option<bool>,
    /// Where thoughts are told; absent is what `--reasoning-format` says.
    reasoning_format: Option<ReasoningFormat>,
    /// Whether thoughts are told at all; absent is yes.
    include_reasoning: Option<bool>,
    reasoning: Option<ReasoningObject>,
}

/// Where thoughts are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum ReasoningFormat {
    /// As `reasoning_content`.
    Auto,
    /// The same.
    Deepseek,
    /// In `content`, as the model writes them.
    None,
}

/// All of it in one object.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[schema(as = ChatReasoning)]
pub struct ReasoningObject {
    effort: Option<Effort>,
    max_tokens: Option<i64>,
    /// Whether thoughts are left out of the answer.
    exclude: Option<bool>,
    enabled: Option<bool>,
}

/// Checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reasoning {
    /// Whether to think, and how hard.
    pub thinking: Thinking,
    /// Most tokens of a thought.
    pub budget: Option<usize>,
    /// Where thoughts are told.
    pub telling: Telling,
    /// What the fields were called.
    pub names: FieldNames,
}

impl ReasoningFields {
    /// Joins the names for one thing; two of them must agree. `usual` is where thoughts are told if the
    /// request does not say.
    pub fn resolve(self, budget: BudgetFields, usual: Telling) -> Result<Reasoning, ApiError> {
        let object = self.reasoning.unwrap_or_default();
        let effort = one(
            ("reasoning_effort", self.reasoning_effort),
            ("reasoning.effort", object.effort),
        )?;
        let enabled = one(
            ("enable_thinking", self.enable_thinking),
            ("reasoning.enabled", object.enabled),
        )?;
        let told = one(
            ("include_reasoning", self.include_reasoning),
            ("reasoning.exclude", object.exclude.map(|exclude| !exclude)),
        )?;
        let telling = match (told.unwrap_or(true), self.reasoning_format) {
            (false, Some(ReasoningFormat::None)) => {
                let message =
                    "thoughts that are part of `content` cannot be left out of the answer";
                return Err(ApiError::invalid("reasoning_format", message));
            }
            (false, _) => Telling::Not,
            (true, Some(ReasoningFormat::None)) => Telling::InContent,
            (true, Some(ReasoningFormat::Auto | ReasoningFormat::Deepseek)) => Telling::Apart,
            (true, None) => usual,
        };
        let flat = self.reasoning_effort.is_some() || self.enable_thinking.is_some();
        Ok(Reasoning {
            thinking: Thinking { effort, enabled },
            budget: budget.resolve(object.max_tokens)?,
            telling,
            names: if flat { &[] } else { OBJECT },
        })
    }
}

/// What the fields are called within `reasoning`.
const OBJECT: FieldNames = &[
    ("reasoning_effort", "reasoning.effort"),
    ("enable_thinking", "reasoning.enabled"),
];

/// The value of two fields that mean the same.
fn one<T: PartialEq>(
    (name, first): (&str, Option<T>),
    (other, second): (&str, Option<T>),
) -> Result<Option<T>, ApiError> {
    match (&first, &second) {
        (Some(a), Some(b)) if a != b => Err(differ(other, name)),
        _ => Ok(first.or(second)),
    }
}

fn differ(name: &str, other: &str) -> ApiError {
    let message = format!("`{other}` and `{name}` contradict each other; send one of them");
    ApiError::invalid(name, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<Reasoning, ApiError> {
        let fields: ReasoningFields = serde_json::from_value(value.clone()).unwrap();
        let budget = serde_json::from_value(value.clone()).unwrap();
        fields.resolve(budget, Telling::Apart)
    }

    #[test]
    fn every_name_arrives() {
        for name in [
            "thinking_budget",
            "thinking_token_budget",
            "thinking_budget_tokens",
            "reasoning_budget_tokens",
        ] {
            assert_eq!(read(&json!({ name: 7 })).unwrap().budget, Some(7), "{name}");
            assert_eq!(read(&json!({ name: -1 })).unwrap().budget, None, "{name}");
        }
        let object = json!({"reasoning": {"effort": "high", "max_tokens": 0, "exclude": true}});
        let read_object = read(&object).unwrap();
        assert_eq!(read_object.thinking.effort, Some(Effort::High));
        assert_eq!(read_object.budget, Some(0));
        assert_eq!(read_object.telling, Telling::Not);
        let enabled = read(&json!({"reasoning": {"enabled": false}})).unwrap();
        assert_eq!(enabled.thinking.enabled, Some(false));
        for (format, telling) in [
            ("auto", Telling::Apart),
            ("deepseek", Telling::Apart),
            ("none", Telling::InContent),
        ] {
            let fields = json!({"reasoning_format": format, "include_reasoning": true});
            assert_eq!(read(&fields).unwrap().telling, telling, "{format}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        for (fields, param) in [
            (json!({"thinking_budget": -2}), "thinking_budget"),
            (
                json!({"thinking_budget": 1, "thinking_token_budget": 2}),
                "thinking_token_budget",
            ),
            (
                json!({"thinking_budget": 1, "reasoning": {"max_tokens": -1}}),
                "thinking_budget",
            ),
            (
                json!({"reasoning": {"max_tokens": -5}}),
                "reasoning.max_tokens",
            ),
            (
                json!({"reasoning_effort": "low", "reasoning": {"effort": "high"}}),
                "reasoning.effort",
            ),
            (
                json!({"enable_thinking": true, "reasoning": {"enabled": false}}),
                "reasoning.enabled",
            ),
            (
                json!({"include_reasoning": true, "reasoning": {"exclude": true}}),
                "reasoning.exclude",
            ),
            (
                json!({"include_reasoning": false, "reasoning_format": "none"}),
                "reasoning_format",
            ),
        ] {
            assert_eq!(read(&fields).unwrap_err().param(), Some(param), "{fields}");
        }
        assert!(read(&json!({"thinking_budget": 3, "reasoning_budget_tokens": 3})).is_ok());
    }
}
