//! How each family writes calls and thoughts, as parts of a grammar.

use super::{Writing, over};
use crate::engine::grammar::{Call, Calls, Mark, Part, Thought};
use crate::server::openai::tools::{Choice, Function, Tools};
use crate::text::Tokenizer;
use crate::text::output::ToolFormat;

/// How the callable functions are called; `None` for a model without a format.
pub(super) fn calls(
    format: Option<ToolFormat>,
    tools: &Tools,
    tokenizer: &Tokenizer,
) -> Option<Calls> {
    let many = |between: Vec<Part>| (tools.most_calls() > 1).then_some(between);
    let each = |parts: &dyn Fn(&Function) -> Vec<Part>| each(tools, parts);
    let schema = |function: &Function| function.parameters.clone();
    let object = |function: &Function, arguments: &str| {
        let begin = format!("{{\"name\": \"{}\", \"{arguments}\": ", function.name);
        [text(&begin), Part::Json(schema(function)), text("}")]
    };
    let layout = match format? {
        ToolFormat::Hermes => Calls {
            mark: Mark::Marker("<tool_call>".to_owned()),
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
        ToolFormat::QwenXml => Calls {
            mark: Mark::Marker("<tool_call>".to_owned()),
            open: Vec::new(),
            each: each(&|function| {
                vec![
                    marker("<tool_call>"),
                    text(&format!("\n<function={}>\n", function.name)),
                    Part::Parameters(schema(function)),
                    text("</function>\n"),
                    marker("</tool_call>"),
                ]
            }),
            between: many(vec![text("\n")]),
            close: Vec::new(),
        },
        ToolFormat::Llama3Json => Calls {
            mark: Mark::Text,
            open: Vec::new(),
            each: each(&|function| object(function, "parameters").into()),
            between: many(vec![text("; ")]),
            close: Vec::new(),
        },
        ToolFormat::Pythonic => Calls {
            mark: Mark::Text,
            open: vec![text("[")],
            each: each(&|function| {
                vec![
                    text(&format!("{}(", function.name)),
                    Part::Keywords(schema(function)),
                    text(")"),
                ]
            }),
            between: many(vec![text(", ")]),
            close: vec![text("]")],
        },
        ToolFormat::Mistral if tokenizer.token_id("[ARGS]").is_some() => Calls {
            mark: Mark::Marker("[TOOL_CALLS]".to_owned()),
            open: Vec::new(),
            each: each(&|function| {
                vec![
                    marker("[TOOL_CALLS]"),
                    text(&function.name),
                    marker("[ARGS]"),
                    Part::Json(schema(function)),
                ]
            }),
            between: many(Vec::new()),
            close: Vec::new(),
        },
        ToolFormat::Mistral => Calls {
            mark: Mark::Marker("[TOOL_CALLS]".to_owned()),
            open: vec![marker("[TOOL_CALLS]"), text("[")],
            each: each(&|function| object(function, "arguments").into()),
            between: many(vec![text(", ")]),
            close: vec![text("]")],
        },
        // One call a message, and the message ends with it: `<|call|>` is a stop token.
        ToolFormat::Harmony => Calls {
            mark: Mark::Marker("<|channel|>".to_owned()),
            open: Vec::new(),
            each: each(&|function| {
                vec![
                    marker("<|channel|>"),
                    text(&format!("commentary to=functions.{} ", function.name)),
                    marker("<|constrain|>"),
                    text("json"),
                    marker("<|message|>"),
                    Part::Json(schema(function)),
                ]
            }),
            between: None,
            close: Vec::new(),
        },
    };
    Some(layout)
}

/// A call of each function that may be called.
fn each(tools: &Tools, parts: &dyn Fn(&Function) -> Vec<Part>) -> Vec<Call> {
    let call = |function: &Function| Call {
        function: function.name.clone(),
        strict: function.strict || *tools.choice() != Choice::Auto,
        parts: parts(function),
    };
    tools.callable().map(call).collect()
}

/// The calls of a message in which text is as good as calls; `None` for a model without a format.
pub(super) fn among_text(
    format: Option<ToolFormat>,
    tools: &Tools,
    tokenizer: &Tokenizer,
) -> Option<Calls> {
    let format = format?;
    let each = |parts: &dyn Fn(&Function) -> Vec<Part>| each(tools, parts);
    let each = match format {
        ToolFormat::Hermes | ToolFormat::Mistral => {
            return calls(Some(format), tools, tokenizer);
        }
        // The tag around it is one that models forget.
        ToolFormat::QwenXml => {
            let begin = "<function=";
            let each = each(&|function| {
                let head = text(&format!("{}>\n", function.name));
                let parameters = Part::Parameters(function.parameters.clone());
                vec![marker(begin), head, parameters, text("</function>")]
            });
            return Some(Calls {
                mark: Mark::Marker(begin.to_owned()),
                open: Vec::new(),
                each,
                between: (tools.most_calls() > 1).then(Vec::new),
                close: Vec::new(),
            });
        }
        ToolFormat::Llama3Json => each(&|function| {
            let head = text(&format!("{}:", function.name));
            let arguments = Part::Json(function.parameters.clone());
            vec![
                head,
                perhaps(&[" ", "\n"]),
                arguments,
                perhaps(&["\n"]),
                text("}"),
            ]
        }),
        ToolFormat::Pythonic => each(&|function| {
            let arguments = Part::Keywords(function.parameters.clone());
            vec![text(&format!("{}(", function.name)), arguments, text(")")]
        }),
        // A recipient may stand before the channel or behind it, and the kind of text be left out.
        ToolFormat::Harmony => each(&|function| {
            let channel = |name: &str| vec![perhaps(&[" "]), marker("<|channel|>"), text(name)];
            let kind = [
                vec![perhaps(&[" ", " json"])],
                vec![perhaps(&[" "]), marker("<|constrain|>"), text("json")],
            ];
            vec![
                text(&format!("functions.{}", function.name)),
                Part::OneOf(vec![Vec::new(), channel("commentary"), channel("analysis")]),
                Part::OneOf(kind.into()),
                marker("<|message|>"),
                Part::Json(function.parameters.clone()),
            ]
        }),
    };
    let many = tools.most_calls() > 1 && format != ToolFormat::Harmony;
    Some(Calls {
        mark: Mark::Read(format),
        open: Vec::new(),
        each,
        between: many.then(Vec::new),
        close: Vec::new(),
    })
}

/// The thought that an output may begin with.
pub(super) fn thought(writing: &Writing, prompt: &str, tokenizer: &Tokenizer) -> Option<Thought> {
    let is_token = |marker: &str| tokenizer.token_id(marker).is_some();
    if writing.format == Some(ToolFormat::Harmony) {
        return Some(Thought {
            open: vec![
                marker("<|channel|>"),
                text("analysis"),
                marker("<|message|>"),
            ],
            close: "<|end|>".to_owned(),
            behind: vec![marker("<|start|>"), text("assistant")],
            opened: false,
            budget: None,
        });
    }
    let tags = writing.thoughts.clone()?;
    // One without tokens cannot be told from text.
    let told = tags.opened || (is_token(&tags.open) && is_token(&tags.close));
    (!over(&tags, prompt) && told).then(|| Thought {
        open: vec![Part::Marker(tags.open)],
        close: tags.close,
        behind: Vec::new(),
        opened: tags.opened,
        budget: None,
    })
}

/// What stands before an answer.
pub(super) fn heading(format: Option<ToolFormat>) -> Vec<Part> {
    match format {
        Some(ToolFormat::Harmony) => {
            vec![marker("<|channel|>"), text("final"), marker("<|message|>")]
        }
        _ => Vec::new(),
    }
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

/// One of these texts, or none.
fn perhaps(texts: &[&str]) -> Part {
    let texts = texts.iter().map(|it| vec![text(it)]);
    Part::OneOf([Vec::new()].into_iter().chain(texts).collect())
}

fn marker(name: &str) -> Part {
    Part::Marker(name.to_owned())
}
