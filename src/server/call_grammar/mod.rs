//! What a message has to look like where tools or a thought come into play.

mod layouts;
#[cfg(test)]
mod tests;

use self::layouts::{among_text, calls, heading, thought};
use super::error::ApiError;
use super::openai::tools::{Choice, Tools};
use crate::engine::grammar::{Answer, GrammarError, GrammarSpec, Mark, MessageSpec, Part, Thought};
use crate::text::Tokenizer;
use crate::text::output::{ReasoningTags, ToolFormat};

/// How a model writes its messages.
#[derive(Debug, Clone)]
pub struct Writing {
    /// How it calls.
    pub format: Option<ToolFormat>,
    /// How it marks thoughts, where that is not the format's.
    pub thoughts: Option<ReasoningTags>,
}

/// What a request's outputs have to be.
pub struct Wish<'a> {
    /// Who may be called, or has to.
    pub tools: &'a Tools,
    /// What an answer that calls nothing has to be.
    pub answer: Option<GrammarSpec>,
    /// Most tokens of the thought.
    pub budget: Option<usize>,
    /// What the outputs continue.
    pub prompt: &'a str,
}

/// The grammar of a request's outputs; `None` where anything goes.
///
/// Calls are held to it where one has to be made, and otherwise once one begins. An answer that has to be JSON begins behind the thought, if there is one.
///
/// # Errors
/// 400 for what the model's way to write cannot be held to.
pub fn message(
    wish: Wish<'_>,
    writing: &Writing,
    tokenizer: &Tokenizer,
) -> Result<Option<GrammarSpec>, ApiError> {
    if let Some(watched) = watched(&wish, writing, tokenizer) {
        return Ok(Some(GrammarSpec::Message(Box::new(watched))));
    }
    let Wish {
        tools,
        answer,
        budget,
        prompt,
    } = wish;
    let forced = matches!(tools.choice(), Choice::Required | Choice::Named(_));
    let free = *tools.choice() == Choice::Auto;
    let bounded = budget.is_some() && thinks(writing, prompt);
    let calling = forced || free && (answer.is_some() || bounded);
    if !calling && answer.is_none() && !bounded {
        return Ok(None);
    }
    let param = match (forced, answer.is_some()) {
        (true, _) => "tool_choice",
        (false, true) => "response_format",
        (false, false) => "thinking_budget",
    };
    let mut thought = thought(writing, prompt, tokenizer);
    match &mut thought {
        Some(thought) if tokenizer.token_id(&thought.close).is_none() => {
            let message = format!(
                "thoughts end with `{}` here, which is no token: switch thinking off through \
                 `chat_template_kwargs`",
                thought.close
            );
            return Err(ApiError::unsupported(param, message));
        }
        Some(thought) => thought.budget = budget,
        None if bounded => {
            let message = "`thinking_budget` cannot be enforced: the tags of this model's thoughts are \
                           no tokens";
            return Err(ApiError::unsupported("thinking_budget", message));
        }
        None => {}
    }
    let heading = heading(writing.format);
    if !calling && thought.is_none() && heading.is_empty() {
        return Ok(answer);
    }
    let calls = match calling {
        true => Some(calls(writing.format, tools, tokenizer).ok_or_else(|| {
            let message = "calls in this model's format cannot be enforced";
            ApiError::unsupported(param, message)
        })?),
        false => None,
    };
    let answer = match answer {
        _ if forced => None,
        Some(answer) => Some(inner(answer)?),
        None => Some(Answer::Text),
    };
    if let (Some(Answer::Text), Some(calls)) = (&answer, &calls)
        && let Mark::Marker(marker) = &calls.mark
        && tokenizer.token_id(marker).is_none()
    {
        // Text and calls cannot be told apart in time.
        let message = format!(
            "calls begin with `{marker}` here, which is no token: they can only be held to a schema \
             where `tool_choice` asks for one"
        );
        return Err(ApiError::unsupported(param, message));
    }
    Ok(Some(GrammarSpec::Message(Box::new(MessageSpec {
        thought,
        heading,
        answer,
        calls,
    }))))
}

/// A message that is free until a call begins in it.
fn watched(wish: &Wish<'_>, writing: &Writing, tokenizer: &Tokenizer) -> Option<MessageSpec> {
    let tools = wish.tools;
    let free = *tools.choice() == Choice::Auto && wish.answer.is_none();
    let calls = among_text(writing.format, tools, tokenizer).filter(|_| free)?;
    let bounded = wish.budget.is_some();
    let thoughts = writing.thoughts.as_ref();
    let thought = thoughts.filter(|tags| !over(tags, wish.prompt));
    let endless = thought.is_some_and(|tags| tokenizer.token_id(&tags.close).is_none());
    // Harmony's thoughts are messages with a header, which only a grammar from the beginning bounds.
    let headed = writing.format == Some(ToolFormat::Harmony);
    if bounded && (endless || headed) {
        return None;
    }
    let thought = thought.map(|tags| Thought {
        open: vec![Part::Marker(tags.open.clone())],
        close: tags.close.clone(),
        behind: Vec::new(),
        opened: tags.opened,
        budget: wish.budget,
    });
    Some(MessageSpec {
        thought,
        answer: Some(Answer::Text),
        calls: Some(calls),
        ..MessageSpec::default()
    })
}

/// Whether an output may begin with a thought.
fn thinks(writing: &Writing, prompt: &str) -> bool {
    match &writing.thoughts {
        Some(tags) => !over(tags, prompt),
        None => writing.format == Some(ToolFormat::Harmony),
    }
}

/// Whether the template wrote a thought that is over.
fn over(tags: &ReasoningTags, prompt: &str) -> bool {
    prompt.trim_end().ends_with(&tags.close)
}

/// The answer's grammar within that of a message.
fn inner(answer: GrammarSpec) -> Result<Answer, ApiError> {
    let invalid = |error: GrammarError| ApiError::invalid("grammar", format!("`grammar`: {error}"));
    answer.answer().map_err(invalid)
}
