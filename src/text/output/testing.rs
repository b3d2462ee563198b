//! What the parsers' tests share.

use proptest::prelude::*;

use super::{Functions, OutputParser, Piece, ReasoningTags, ToolFormat};

/// A whole output.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Whole {
    pub content: String,
    pub reasoning: String,
    /// Name and arguments.
    pub calls: Vec<(String, String)>,
}

impl Whole {
    pub fn calls<const N: usize>(calls: [(String, String); N]) -> Self {
        Self {
            calls: calls.into(),
            ..Self::default()
        }
    }

    fn add(&mut self, piece: Piece) {
        match piece {
            Piece::Content(text) => self.content += &text,
            Piece::Reasoning(text) => self.reasoning += &text,
            Piece::Call { index, name } => {
                assert_eq!(index, self.calls.len(), "calls come in order");
                self.calls.push((name, String::new()));
            }
            Piece::Arguments { index, text } => {
                assert_eq!(index + 1, self.calls.len(), "one call after the other");
                self.calls[index].1 += &text;
            }
        }
    }
}

pub fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

/// Functions that may be called; of their parameters `text` and `text_a` are strings.
pub fn functions() -> Functions {
    let texts = ["text", "text_a"].map(str::to_owned);
    let functions = ["f", "g", "now", "get_weather", "mail-send"];
    let functions = functions.map(|name| (name.to_owned(), texts.clone().into()));
    Functions::new(functions.into())
}

/// Parses a text that comes in these parts.
pub fn parse_parts<'a>(
    format: Option<ToolFormat>,
    reasoning: Option<ReasoningTags>,
    parts: impl IntoIterator<Item = &'a str>,
) -> Whole {
    let mut parser = OutputParser::new(format, reasoning, functions());
    let mut whole = Whole::default();
    for part in parts {
        for piece in parser.push(part) {
            whole.add(piece);
        }
    }
    for piece in parser.finish() {
        whole.add(piece);
    }
    whole
}

/// Parses a text, as a whole and character by character, which must not make a difference.
pub fn parse(format: ToolFormat, text: &str) -> Whole {
    let whole = parse_parts(Some(format), None, [text]);
    let singly = parse_parts(Some(format), None, text.split_inclusive(|_: char| true));
    assert_eq!(whole, singly, "streamed and whole differ");
    whole
}

pub fn think(opened: bool) -> ReasoningTags {
    ReasoningTags {
        open: "<think>".to_owned(),
        close: "</think>".to_owned(),
        opened,
    }
}

const FORMATS: [Option<ToolFormat>; 7] = [
    None,
    Some(ToolFormat::Hermes),
    Some(ToolFormat::Llama3Json),
    Some(ToolFormat::Pythonic),
    Some(ToolFormat::Mistral),
    Some(ToolFormat::QwenXml),
    Some(ToolFormat::Harmony),
];

/// Snippets that the formats give a meaning to, and others, in any order.
const SNIPPETS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<|python_tag|>",
    "<function=f>",
    "</function>",
    "<parameter=text_a>",
    "<parameter=b>",
    "</parameter>",
    "<|channel|>",
    "final",
    "analysis",
    "commentary",
    " to=functions.f ",
    "<|constrain|>json",
    "<|message|>",
    "<|start|>assistant",
    "<|end|>",
    "<|call|>",
    "{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
    "{\"name\": \"f\"",
    "\"parameters\": ",
    "[f(a=1, ",
    "b='x')",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "'",
    "(",
    ")",
    ",",
    ":",
    ";",
    "=",
    "<",
    "\n",
    " ",
    "é",
    "1",
    "null",
];

fn soup() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(
        prop::sample::select(SNIPPETS).prop_map(str::to_owned),
        0..24,
    )
}

proptest! {
    #[test]
    fn how_a_text_is_cut_makes_no_difference(
        parts in soup(),
        format in prop::sample::select(&FORMATS[..]),
        reasoning in prop::option::of(any::<bool>()),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let text = parts.concat();
        let tags = reasoning.map(think);
        let whole = parse_parts(format, tags.clone(), [text.as_str()]);
        let singly = parse_parts(format, tags.clone(), text.split_inclusive(|_: char| true));
        prop_assert_eq!(&whole, &singly);
        let mut bounds: Vec<usize> = cuts
            .iter()
            .map(|cut| text.floor_char_boundary(cut.index(text.len() + 1)))
            .collect();
        bounds.extend([0, text.len()]);
        bounds.sort_unstable();
        let pieces = bounds.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        prop_assert_eq!(&whole, &parse_parts(format, tags, pieces));
    }

    #[test]
    fn without_a_format_nothing_is_lost(text in "\\PC{0,40}") {
        prop_assert_eq!(parse_parts(None, None, [text.as_str()]).content, text);
    }
}

#[test]
fn thoughts_are_split_off_and_the_space_around_them_is_dropped() {
    for (opened, text) in [
        (false, "\n<think>\nwhy\nnot\n</think>\n\nyes \n"),
        (true, "\nwhy\nnot\n</think>yes \n"),
    ] {
        let whole = parse_parts(None, Some(think(opened)), [text]);
        assert_eq!(whole.reasoning, "why\nnot");
        assert_eq!(whole.content, "yes \n");
    }
}

#[test]
fn an_answer_without_thoughts_is_all_content() {
    for text in [" plain <think> later", "<thin", "", " \n "] {
        let whole = parse_parts(None, Some(think(false)), [text]);
        assert_eq!(
            (whole.content.as_str(), whole.reasoning.as_str()),
            (text, "")
        );
    }
}

#[test]
fn a_thought_that_was_cut_off_is_a_thought() {
    let whole = parse_parts(None, Some(think(true)), ["hm </thi"]);
    assert_eq!(
        (whole.reasoning.as_str(), whole.content.as_str()),
        ("hm </thi", "")
    );
}

#[test]
fn calls_come_behind_the_thoughts() {
    let text =
        "<think>\nadd\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    let whole = parse_parts(Some(ToolFormat::Hermes), Some(think(false)), [text]);
    assert_eq!(whole.reasoning, "add");
    assert_eq!(whole.calls, [call("f", "{}")]);
    assert_eq!(whole.content, "");
}

#[test]
fn the_format_is_the_templates() {
    for (template, format) in [
        (
            "… <tool_call>{\"name\": <function-name>}",
            Some(ToolFormat::Hermes),
        ),
        ("<tool_call>\n<function=example>", Some(ToolFormat::QwenXml)),
        ("{{ '[TOOL_CALLS]' }}", Some(ToolFormat::Mistral)),
        ("<|start|>assistant<|channel|>", Some(ToolFormat::Harmony)),
        (
            "[func_name1(params_name1=params_value1)]",
            Some(ToolFormat::Pythonic),
        ),
        ("{{ '<|python_tag|>' }}", Some(ToolFormat::Llama3Json)),
        ("{{ messages[0].content }}", None),
        ("<tool_call>{function-name}\n<arg_key>", None),
    ] {
        assert_eq!(ToolFormat::of_template(template), format, "{template}");
    }
}
