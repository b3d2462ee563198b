//! What a message has to look like where tools or a thought come into play.

use super::error::ApiError;
use super::openai::tools::{Choice, Function, Tools};
use crate::engine::grammar::{
    Answer, Calls, GrammarError, GrammarSpec, MessageSpec, Part, Thought,
};
use crate::text::Tokenizer;
use crate::text::output::{ReasoningTags, ToolFormat};

/// The grammar of a request's outputs; `None` where anything goes.
///
/// Calls are held to it where one has to be made, and where a function is `strict`. An answer that has
/// to be JSON begins behind the thought, if there is one.
pub fn message(
    tools: &Tools,
    format: Option<ToolFormat>,
    answer: Option<GrammarSpec>,
    thoughts: Option<ReasoningTags>,
    prompt: &str,
    tokenizer: &Tokenizer,
) -> Result<Option<GrammarSpec>, ApiError> {
    let is_token = |marker: &str| tokenizer.token_id(marker).is_some();
    let thought = thoughts.and_then(|tags| thought(tags, prompt, tokenizer));
    let strict = tools.callable().any(|function| function.strict);
    let forced = matches!(tools.choice(), Choice::Required | Choice::Named(_));
    let free = *tools.choice() == Choice::Auto;
    let calling = forced || free && (strict || answer.is_some());
    if let Some(thought) = &thought
        && !is_token(&thought.close)
        && (calling || answer.is_some())
    {
        let message = "the prompt opens a thought, and the tag that ends it is no token: switch thinking \
                       off through `chat_template_kwargs`";
        let param = if calling { "tools" } else { "response_format" };
        return Err(ApiError::unsupported(param, message));
    }
    if !calling {
        return Ok(match (answer, &thought) {
            (Some(answer), Some(_)) => Some(GrammarSpec::Message(MessageSpec {
                thought,
                answer: Some(inner(answer)?),
                calls: None,
            })),
            (answer, _) => answer,
        });
    }
    let param = match (forced, answer.is_some()) {
        (true, _) => "tool_choice",
        (false, true) => "response_format",
        (false, false) => "tools",
    };
    let layout = format.and_then(|format| calls(format, tools, tokenizer));
    let Some(calls) = layout else {
        let message = match param {
            "tool_choice" => "calls in this model's format cannot be enforced; use `auto`",
            "response_format" => {
                "in this model's format calls and structured output do not go together; send one of them"
            }
            _ => "calls in this model's format cannot be held to a schema; leave out `strict`",
        };
        return Err(ApiError::unsupported(param, message));
    };
    let answer = match answer {
        _ if forced => None,
        Some(answer) => Some(inner(answer)?),
        // Without a token that begins a call, text and calls cannot be told apart in time.
        None if !calls.first_marker().is_some_and(is_token) => {
            let message = "calls in this model's format can only be held to a schema where \
                           `tool_choice` asks for one; leave out `strict`";
            return Err(ApiError::unsupported(param, message));
        }
        None => Some(Answer::Text),
    };
    Ok(Some(GrammarSpec::Message(MessageSpec {
        thought,
        answer,
        calls: Some(calls),
    })))
}

/// The thought that an output may begin with.
fn thought(tags: ReasoningTags, prompt: &str, tokenizer: &Tokenizer) -> Option<Thought> {
    let is_token = |marker: &str| tokenizer.token_id(marker).is_some();
    // A thought that is over was written by the template; one without tokens cannot be told from text.
    let over = prompt.trim_end().ends_with(&tags.close);
    let told = tags.opened || (is_token(&tags.open) && is_token(&tags.close));
    (!over && told).then_some(Thought {
        open: tags.open,
        close: tags.close,
        opened: tags.opened,
        budget: None,
    })
}

/// The same grammar with a thought of at most `budget` tokens. `format` is that of the calls which
/// the output may make.
///
/// # Errors
/// 400 where the model's thoughts cannot be ended by a grammar.
pub fn bounded(
    grammar: Option<GrammarSpec>,
    budget: usize,
    thoughts: Option<ReasoningTags>,
    format: Option<ToolFormat>,
    prompt: &str,
    tokenizer: &Tokenizer,
) -> Result<Option<GrammarSpec>, ApiError> {
    let refused = |why: &str| {
        let message = format!("`thinking_budget` cannot be enforced: {why}");
        Err(ApiError::unsupported("thinking_budget", message))
    };
    if format == Some(ToolFormat::Harmony) {
        return refused("this model's thoughts are no part that could be ended");
    }
    let Some(tags) = thoughts else {
        return Ok(grammar);
    };
    let over = prompt.trim_end().ends_with(&tags.close);
    let budget = Some(budget);
    match (grammar, thought(tags, prompt, tokenizer)) {
        (grammar, None) if over => Ok(grammar),
        (Some(GrammarSpec::Message(mut message)), Some(_)) => {
            if let Some(thought) = &mut message.thought {
                thought.budget = budget;
            }
            Ok(Some(GrammarSpec::Message(message)))
        }
        (None, Some(thought)) if tokenizer.token_id(&thought.close).is_some() => {
            // Free text never spells a special token.
            let markers = format.map_or(&[][..], ToolFormat::markers).iter();
            let mut ids = markers.filter_map(|marker| tokenizer.token_id(marker));
            if ids.any(|id| tokenizer.is_special(id)) {
                return refused("not together with tools that the model is free to call");
            }
            Ok(Some(GrammarSpec::Message(MessageSpec {
                thought: Some(Thought { budget, ..thought }),
                answer: Some(Answer::Text),
                calls: None,
            })))
        }
        _ => refused("the tags of this model's thoughts are no tokens"),
    }
}

/// The answer's grammar within that of a message.
fn inner(answer: GrammarSpec) -> Result<Answer, ApiError> {
    let invalid = |error: GrammarError| ApiError::invalid("grammar", format!("`grammar`: {error}"));
    answer.answer().map_err(invalid)
}

/// How the callable functions are called; `None` for formats without a grammar.
fn calls(format: ToolFormat, tools: &Tools, tokenizer: &Tokenizer) -> Option<Calls> {
    let many = |between: Vec<Part>| (tools.most_calls() > 1).then_some(between);
    let each = |call: &dyn Fn(&Function) -> Vec<Part>| tools.callable().map(call).collect();
    let object = |function: &Function, arguments: &str| {
        let begin = format!("{{\"name\": \"{}\", \"{arguments}\": ", function.name);
        [
            text(&begin),
            Part::Json(function.parameters.clone()),
            text("}"),
        ]
    };
    let layout = match format {
        ToolFormat::Hermes => Calls {
            open: Vec::new(),
            each: each(&|function| {
                let mut call = vec![marker("<tool_call>"), text("\n")];
                call.extend(object(function, "arguments"));
                call.extend([text("\n"), marker("</tool_call>")]);
                call
            }),
            between: many(vec![text("\n")]),
            close: Vec::new(),
        },
        ToolFormat::Llama3Json => Calls {
            open: Vec::new(),
            each: each(&|function| object(function, "parameters").into()),
            between: many(vec![text("; ")]),
            close: Vec::new(),
        },
        ToolFormat::Mistral if tokenizer.token_id("[ARGS]").is_some() => Calls {
            open: Vec::new(),
            each: each(&|function| {
                vec![
                    marker("[TOOL_CALLS]"),
                    text(&function.name),
                    marker("[ARGS]"),
                    Part::Json(function.parameters.clone()),
                ]
            }),
            between: many(Vec::new()),
            close: Vec::new(),
        },
        ToolFormat::Mistral => Calls {
            open: vec![marker("[TOOL_CALLS]"), text("[")],
            each: each(&|function| object(function, "arguments").into()),
            between: many(vec![text(", ")]),
            close: vec![text("]")],
        },
        ToolFormat::Pythonic | ToolFormat::QwenXml | ToolFormat::Harmony => return None,
    };
    Some(layout)
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn marker(name: &str) -> Part {
    Part::Marker(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grammar::GrammarCompiler;
    use crate::text::output::{OutputParser, Piece};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use serde_json::{Value, json};
    use std::path::Path;
    use std::sync::Arc;

    fn tiny() -> Tokenizer {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
        Tokenizer::load(&dir).unwrap()
    }

    fn tools(choice: &str, strict: bool) -> Tools {
        let tool = json!([{"type": "function", "function": {"name": "f", "strict": strict}}]);
        Tools::parse(Some(tool), Some(choice.into()), None).unwrap()
    }

    /// Draws tokens by the grammar's masks alone; what is read from the text, if it came to its end.
    fn walk(format: ToolFormat, choice: &str, seed: u64) -> Option<Vec<Piece>> {
        let tokenizer = Arc::new(tiny());
        let stop = tokenizer.token_id("<|im_end|>").unwrap();
        let vocab = tokenizer.vocab_size();
        let compiler = GrammarCompiler::new(tokenizer.clone(), vocab, &[stop]).unwrap();
        let parameters = json!({
            "type": "object",
            "properties": {"n": {"type": "integer"}, "s": {"type": "string", "maxLength": 9}},
            "required": ["n", "s"],
            "additionalProperties": false,
        });
        let function = json!({"name": "f", "parameters": parameters, "strict": true});
        let tools = json!([{"type": "function", "function": function}]);
        let tools = Tools::parse(Some(tools), Some(choice.into()), None).unwrap();
        let spec = message(&tools, Some(format), None, None, "", &tokenizer).unwrap();
        let mut matcher = compiler.compile(&spec.unwrap()).unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let mut ids = Vec::new();
        while !matcher.is_finished() {
            let mask = matcher.mask().unwrap();
            let bit = |mask: &[u32], id: u32| mask[id as usize / 32] & (1 << (id % 32)) != 0;
            let allowed = |id: &u32| mask.is_none_or(|mask| bit(mask, *id));
            let choices: Vec<u32> = (0..vocab as u32).filter(allowed).collect();
            let id = choices[random.random_range(0..choices.len())];
            if id == stop {
                break;
            }
            ids.push(id);
            if ids.len() > 400 {
                return None;
            }
            matcher.commit(id).unwrap();
        }
        let mut parser = OutputParser::new(Some(format), None, tools.is_string());
        let mut pieces = parser.push(&tokenizer.decode(&ids, false).unwrap());
        pieces.extend(parser.finish());
        Some(pieces)
    }

    #[test]
    fn whatever_the_grammar_lets_through_is_read_as_calls_that_validate() {
        for (format, choice) in [
            (ToolFormat::Hermes, "required"),
            (ToolFormat::Llama3Json, "required"),
            (ToolFormat::Mistral, "required"),
            (ToolFormat::Hermes, "auto"),
        ] {
            let mut calls = 0;
            for pieces in (0..20).filter_map(|seed| walk(format, choice, seed)) {
                let mut arguments: Vec<String> = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Call { name, .. } => {
                            assert_eq!(name, "f");
                            arguments.push(String::new());
                        }
                        Piece::Arguments { index, text } => arguments[index] += &text,
                        Piece::Content(text) => assert_eq!(choice, "auto", "{format:?}: {text}"),
                        Piece::Reasoning(text) => panic!("{text}"),
                    }
                }
                assert!(choice == "auto" || !arguments.is_empty(), "{format:?}");
                calls += arguments.len();
                for json in arguments {
                    let value: Value = serde_json::from_str(&json).unwrap();
                    assert!(value["n"].is_number() && value["s"].is_string(), "{json}");
                    assert_eq!(value.as_object().unwrap().len(), 2);
                }
            }
            assert!(
                calls > 0 || choice == "auto",
                "{format:?} never came to an end"
            );
        }
    }

    fn tags(open: &str, close: &str, opened: bool) -> Option<ReasoningTags> {
        let (open, close) = (open.to_owned(), close.to_owned());
        Some(ReasoningTags {
            open,
            close,
            opened,
        })
    }

    fn build(
        tools: &Tools,
        format: ToolFormat,
        answer: Option<Value>,
        thoughts: Option<ReasoningTags>,
    ) -> Result<Option<GrammarSpec>, ApiError> {
        let answer = answer.map(GrammarSpec::JsonSchema);
        message(tools, Some(format), answer, thoughts, "prompt", &tiny())
    }

    #[test]
    fn only_what_was_asked_for_is_held_to_a_grammar() {
        let shape = |choice, strict, answer: Option<Value>| match build(
            &tools(choice, strict),
            ToolFormat::Hermes,
            answer,
            None,
        )
        .unwrap()
        {
            None => "anything",
            Some(GrammarSpec::Message(message)) => match (message.answer, message.calls) {
                (None, Some(_)) => "calls",
                (Some(Answer::Json(_) | Answer::Lark(_)), Some(_)) => "json or calls",
                (Some(Answer::Text), Some(_)) => "text and calls",
                (_, None) => "no calls",
            },
            Some(_) => "json",
        };
        assert_eq!(shape("auto", false, None), "anything");
        assert_eq!(shape("auto", true, None), "text and calls");
        assert_eq!(shape("auto", false, Some(json!({}))), "json or calls");
        assert_eq!(shape("required", false, None), "calls");
        assert_eq!(shape("required", false, Some(json!({}))), "calls");
        assert_eq!(shape("none", true, None), "anything");
        assert_eq!(shape("none", true, Some(json!({}))), "json");
    }

    #[test]
    fn what_cannot_be_enforced_is_refused_and_said() {
        for (choice, strict, answer, format, param) in [
            ("required", false, None, ToolFormat::Harmony, "tool_choice"),
            ("auto", true, None, ToolFormat::QwenXml, "tools"),
            ("auto", true, None, ToolFormat::Llama3Json, "tools"),
            (
                "auto",
                false,
                Some(json!({})),
                ToolFormat::Pythonic,
                "response_format",
            ),
        ] {
            let error = build(&tools(choice, strict), format, answer, None).unwrap_err();
            assert_eq!(error.param(), Some(param), "{format:?}");
        }
        for format in [ToolFormat::Llama3Json, ToolFormat::Mistral] {
            assert!(build(&tools("required", false), format, None, None).is_ok());
        }
    }

    #[test]
    fn a_budget_is_set_or_refused() {
        let tokenizer = tiny();
        let bound =
            |grammar, tags, format, prompt| bounded(grammar, 7, tags, format, prompt, &tokenizer);
        let budget = |spec| match spec {
            Some(GrammarSpec::Message(message)) => message.thought.and_then(|t| t.budget),
            _ => None,
        };
        let think = || tags("<think>", "</think>", true);
        let hermes = Some(ToolFormat::Hermes);
        assert_eq!(budget(bound(None, think(), hermes, "a").unwrap()), Some(7));
        let answer = Some(json!({}));
        let json = build(&Tools::default(), ToolFormat::Hermes, answer, think()).unwrap();
        assert_eq!(budget(bound(json, think(), None, "a").unwrap()), Some(7));
        // Nothing is thought.
        assert_eq!(bound(None, None, hermes, "a"), Ok(None));
        assert_eq!(bound(None, think(), None, "<think></think>\n"), Ok(None));
        for (tags, format) in [
            (None, Some(ToolFormat::Harmony)),
            (tags("<hm>", "</hm>", true), None),
        ] {
            let error = bound(None, tags, format, "a").unwrap_err();
            assert_eq!(error.param(), Some("thinking_budget"));
        }
    }

    #[test]
    fn json_begins_behind_the_thought() {
        let none = Tools::default();
        let of = |thoughts| build(&none, ToolFormat::Hermes, Some(json!({})), thoughts);
        let message = |spec| match spec {
            Some(GrammarSpec::Message(message)) => message,
            other => panic!("{other:?}"),
        };
        let opened = message(of(tags("<think>", "</think>", true)).unwrap());
        assert!(opened.thought.unwrap().opened);
        let free = message(of(tags("<think>", "</think>", false)).unwrap());
        assert!(!free.thought.unwrap().opened);
        // Tags that are no tokens: a thought that the prompt opened cannot be followed to its end.
        let plain = of(tags("<hm>", "</hm>", false)).unwrap();
        assert!(matches!(plain, Some(GrammarSpec::JsonSchema(_))));
        let error = of(tags("<hm>", "</hm>", true)).unwrap_err();
        assert_eq!(error.param(), Some("response_format"));
        assert!(build(&none, ToolFormat::Hermes, None, tags("<hm>", "</hm>", true)).is_ok());
    }
}
