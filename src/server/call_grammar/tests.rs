//! What requests come to as grammars, and what these let through.

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

/// The same with special tokens for the markers of a format.
fn marked(format: ToolFormat) -> Tokenizer {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
    let file = std::fs::read(dir.join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_slice(&file).unwrap();
    let first = tiny().vocab_size();
    let added = file["added_tokens"].as_array_mut().unwrap();
    for (marker, id) in format.markers().iter().zip(first..) {
        if added.iter().all(|token| token["content"] != *marker) {
            added.push(
                json!({"id": id, "content": marker, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true}),
            );
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    Tokenizer::load(dir.path()).unwrap()
}

fn tools(choice: &str, strict: bool) -> Tools {
    let tool = json!([{"type": "function", "function": {"name": "f", "strict": strict}}]);
    Tools::parse(Some(tool), Some(choice.into()), None).unwrap()
}

fn wish(tools: &Tools, answer: Option<GrammarSpec>) -> Wish<'_> {
    Wish {
        tools,
        answer,
        budget: None,
        prompt: "prompt",
    }
}

fn writing(format: ToolFormat, thoughts: Option<ReasoningTags>) -> Writing {
    Writing {
        format: Some(format),
        thoughts,
    }
}

fn allows(mask: Option<&[u32]>, id: u32) -> bool {
    mask.is_none_or(|mask| mask[id as usize / 32] & (1 << (id % 32)) != 0)
}

/// Draws tokens by the grammar's masks alone; what is read from the text, if it came to its end.
fn walk(
    (format, tokenizer): &(ToolFormat, Arc<Tokenizer>),
    compiler: &GrammarCompiler,
    tools: &Tools,
    seed: u64,
) -> Option<(String, Vec<Piece>)> {
    let stop = tokenizer.token_id("<|im_end|>").unwrap();
    let spec = message(wish(tools, None), &writing(*format, None), tokenizer).unwrap();
    let mut matcher = compiler.compile(&spec.unwrap()).unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut ids = Vec::new();
    if *tools.choice() == Choice::Auto {
        ids = tokenizer.encode(opening(*format), false).unwrap();
        ids.iter().for_each(|id| matcher.commit(*id).unwrap());
    }
    while !matcher.is_finished() {
        let mask = matcher.mask().unwrap();
        let allowed = |id: &u32| allows(mask, *id);
        let choices: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(allowed).collect();
        let id = choices[random.random_range(0..choices.len())];
        if id == stop {
            break;
        }
        ids.push(id);
        if ids.len() > 300 {
            return None;
        }
        matcher.commit(id).unwrap();
    }
    let shown: Vec<u32> = format
        .markers()
        .iter()
        .filter_map(|marker| tokenizer.token_id(marker))
        .collect();
    let mut detokenizer = crate::text::Detokenizer::showing(tokenizer.clone(), shown.into());
    let text: String = ids
        .iter()
        .map(|id| detokenizer.push(*id).unwrap())
        .collect();
    let text = text + &detokenizer.finish().unwrap();
    let mut parser = OutputParser::new(Some(*format), None, tools.functions());
    let mut pieces = parser.push(&text);
    pieces.extend(parser.finish());
    Some((text, pieces))
}

/// What a call of each format begins with: random text never comes to that.
fn opening(format: ToolFormat) -> &'static str {
    match format {
        ToolFormat::Hermes => "<tool_call>\n",
        ToolFormat::Llama3Json => r#"{"name": "f", "parameters":"#,
        ToolFormat::Pythonic => "[f(",
        ToolFormat::Mistral => "[TOOL_CALLS]",
        ToolFormat::QwenXml => "<tool_call>\n<function=",
        ToolFormat::Harmony => "<|channel|>commentary to=",
    }
}

/// Names and arguments of the calls, and the content.
fn calls_of(pieces: Vec<Piece>) -> (Vec<(String, String)>, String) {
    let (mut calls, mut content) = (Vec::new(), String::new());
    for piece in pieces {
        match piece {
            Piece::Call { name, .. } => calls.push((name, String::new())),
            Piece::Arguments { index, text } => calls[index].1 += &text,
            Piece::Content(text) => content += &text,
            Piece::Reasoning(_) => {}
        }
    }
    (calls, content)
}

const EVERY_FORMAT: [ToolFormat; 6] = [
    ToolFormat::Hermes,
    ToolFormat::Llama3Json,
    ToolFormat::Mistral,
    ToolFormat::Pythonic,
    ToolFormat::QwenXml,
    ToolFormat::Harmony,
];

/// Arguments of many kinds: what is text and what is not, what is required and what is not.
fn many_kinds() -> Value {
    json!({
        "type": "object",
        "properties": {
            "first": {"type": "boolean"},
            "n": {"type": "integer", "minimum": -5},
            "s": {"type": "string", "maxLength": 9},
            "o": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
            "l": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
            "d": {"$ref": "#/$defs/point"},
            "c": {"$ref": "#/$defs/colour"},
            "p": {"type": "string", "pattern": "^[a-c]{1,4}$"},
            "w": {"type": "string", "format": "date"},
        },
        "required": ["n", "l", "c", "p"],
        "additionalProperties": false,
        "$defs": {
            "point": {
                "type": "object",
                "properties": {"x": {"type": "number", "minimum": 0, "maximum": 9}, "y": {"type": ["boolean", "null"]}},
                "required": ["y"],
                "additionalProperties": false,
            },
            "colour": {"type": "string", "enum": ["dark red", "<b>"]},
        },
    })
}

fn validates(arguments: &Value) -> bool {
    let fits = |(name, value): (&String, &Value)| match name.as_str() {
        "first" => value.is_boolean(),
        "n" => value.as_i64().is_none_or(|n| n >= -5) && value.is_number(),
        "s" => value.as_str().is_some_and(|s| s.chars().count() <= 9),
        "o" => value.is_null() || value.as_str().is_some_and(|s| s.chars().count() <= 5),
        "l" => value.as_array().is_some_and(|list| {
            (1..=3).contains(&list.len()) && list.iter().all(Value::is_boolean)
        }),
        "d" => value.as_object().is_some_and(|point| {
            let y = &point["y"];
            (y.is_null() || y.is_boolean())
                && point.get("x").is_none_or(Value::is_number)
                && point.keys().all(|key| key == "x" || key == "y")
        }),
        "c" => value == "dark red" || value == "<b>",
        "p" => value.as_str().is_some_and(|p| {
            (1..=4).contains(&p.len()) && p.chars().all(|c| ('a'..='c').contains(&c))
        }),
        "w" => value.as_str().is_some_and(|w| {
            let parts: Vec<usize> = w.split('-').map(str::len).collect();
            parts == [4, 2, 2]
        }),
        _ => false,
    };
    let has = |name: &str| arguments.get(name).is_some();
    arguments
        .as_object()
        .is_some_and(|map| map.iter().all(fits))
        && ["n", "l", "c", "p"].iter().all(|name| has(name))
}

#[test]
fn whatever_the_grammar_lets_through_is_read_as_calls_that_validate() {
    let function = |name: &str, parameters: Value| {
        json!({"type": "function", "function": {
        "name": name, "parameters": parameters, "strict": true}})
    };
    let one = json!({"type": "object", "properties": {"x": {"type": "boolean"}},
        "additionalProperties": false});
    let offered = json!([function("f", many_kinds()), function("g-1", one)]);
    for format in EVERY_FORMAT {
        let tokenizer = Arc::new(marked(format));
        let stop = tokenizer.token_id("<|im_end|>").unwrap();
        let vocab = tokenizer.vocab_size();
        let compiler = GrammarCompiler::new(tokenizer.clone(), vocab, &[stop]).unwrap();
        let family = (format, tokenizer);
        for choice in ["required", "auto"] {
            // Random text behind a call never ends.
            let many = Some(choice == "required");
            let tools = Tools::parse(Some(offered.clone()), Some(choice.into()), many).unwrap();
            let mut made = 0;
            for (text, pieces) in (0..25).filter_map(|seed| walk(&family, &compiler, &tools, seed))
            {
                let (calls, content) = calls_of(pieces);
                assert!(choice == "auto" || content.is_empty(), "{format:?}: {text}");
                assert!(!calls.is_empty(), "{format:?}: {text}");
                made += calls.len();
                for (name, arguments) in calls {
                    let value: Value = serde_json::from_str(&arguments)
                        .unwrap_or_else(|error| panic!("{format:?} {error}: {text}"));
                    match name.as_str() {
                        "f" => assert!(validates(&value), "{format:?}: {text}"),
                        "g-1" => assert!(
                            value.as_object().unwrap().values().all(Value::is_boolean),
                            "{format:?}: {text}"
                        ),
                        _ => panic!("{format:?} calls {name}: {text}"),
                    }
                }
            }
            assert!(made > 2, "{format:?} {choice} never came to an end");
        }
    }
}

/// What models write, by hand: a call of each family's, with a thought or text before it.
#[test]
fn a_call_as_models_write_it_is_let_through() {
    let offered = json!([{"type": "function", "function": {"name": "f", "strict": true,
        "parameters": many_kinds()}}]);
    let plain = r#"{"n": 3, "l": [true], "c": "<b>", "p": "ab"}"#;
    for (format, forced, text) in [
        (ToolFormat::Pythonic, true, r#"[f(n=3, l=[True], c="<b>", p="ab")]"#.to_owned()),
        (ToolFormat::Pythonic, true,
         r#"[f(first=False, n=3, s="it's", o=None, l=[True, False], d={"x": 1.5, "y": None}, c="<b>", p="ab")]"#.to_owned()),
        (ToolFormat::Pythonic, false, "[1] is what I [mean](f).".to_owned()),
        (ToolFormat::Pythonic, false, r#"[f(n=3, l=[True], c="<b>", p="ab"), f(n=4, l=[True], c="<b>", p="ab")]"#.to_owned()),
        (ToolFormat::QwenXml, true,
         "<tool_call>\n<function=f>\n<parameter=n>\n3\n</parameter>\n<parameter=s>\na\n\"b\n</parameter>\n\
          <parameter=l>\n[true]\n</parameter>\n<parameter=c>\n<b>\n</parameter>\n<parameter=p>\nab\n</parameter>\n\
          </function>\n</tool_call>".to_owned()),
        (ToolFormat::Harmony, true,
         format!("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary \
                  to=functions.f <|constrain|>json<|message|>{plain}")),
        (ToolFormat::Harmony, false,
         "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>No.".to_owned()),
        (ToolFormat::Llama3Json, false, "Plain text, {braces} and all.".to_owned()),
        (ToolFormat::Llama3Json, false, format!(r#"{{"name": "f", "parameters": {plain}}}"#)),
        (ToolFormat::Llama3Json, false,
         format!(r#"Now:<|python_tag|>{{"type":"function","name":"f","parameters":{plain}}}; {{"name": "f", "arguments": {plain}}}"#)),
        (ToolFormat::Pythonic, false, r#" [ f(n=3, l=[True], c="<b>", p="ab") , f(n=4, l=[True], c="<b>", p="ab")] or so"#.to_owned()),
        (ToolFormat::Harmony, false,
         format!("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary \
                  to=functions.f <|constrain|>json<|message|>{plain}")),
        (ToolFormat::Harmony, false,
         format!("<|channel|>commentary<|message|>Wait.<|end|><|start|>assistant to=functions.f\
                  <|channel|>commentary json<|message|>{plain}")),
    ] {
        let choice = if forced { "required" } else { "auto" };
        let tools = Tools::parse(Some(offered.clone()), Some(choice.into()), None).unwrap();
        assert!(accepts(format, wish(&tools, None), &text), "{format:?}: {text}");
    }
}

#[test]
fn what_does_not_validate_is_not_let_through() {
    let offered = json!([{"type": "function", "function": {"name": "f", "strict": true,
        "parameters": many_kinds()}}]);
    let channel = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>";
    for (format, choice, text) in [
        (ToolFormat::Pythonic, "auto", "[f(n=\"3\", ".to_owned()),
        (ToolFormat::Pythonic, "auto", "\n[ f(l=[True]".to_owned()),
        (ToolFormat::Pythonic, "auto", "[f()".to_owned()),
        (
            ToolFormat::Pythonic,
            "auto",
            "[f(n=3, l=[True], c=\"<b>\", p=\"ab\"), f()".to_owned(),
        ),
        (ToolFormat::Pythonic, "required", "[h(".to_owned()),
        (
            ToolFormat::QwenXml,
            "auto",
            "<tool_call>\n<function=f>\n<parameter=n>\nthree".to_owned(),
        ),
        (
            ToolFormat::QwenXml,
            "auto",
            "<tool_call>\n<function=f>\n<parameter=l>".to_owned(),
        ),
        (
            ToolFormat::QwenXml,
            "auto",
            "<tool_call>\n<function=h>".to_owned(),
        ),
        (
            ToolFormat::Harmony,
            "auto",
            "<|channel|>commentary to=functions.h".to_owned(),
        ),
        (
            ToolFormat::Harmony,
            "auto",
            "<|start|>assistant to=h".to_owned(),
        ),
        (ToolFormat::Harmony, "auto", format!("{channel}{{}}")),
        (ToolFormat::Harmony, "auto", format!("{channel}no")),
        (ToolFormat::Harmony, "required", "No channel".to_owned()),
        (
            ToolFormat::Llama3Json,
            "auto",
            r#"{"name": "f", "parameters": {}"#.to_owned(),
        ),
        (
            ToolFormat::Llama3Json,
            "auto",
            r#"{"name": "f", "arguments": "{"#.to_owned(),
        ),
        (
            ToolFormat::Llama3Json,
            "auto",
            r#"Now<|python_tag|>{"name": "f", "parameters": [1]"#.to_owned(),
        ),
        (
            ToolFormat::Llama3Json,
            "required",
            r#" {"name": "h""#.to_owned(),
        ),
    ] {
        let tools = Tools::parse(Some(offered.clone()), Some(choice.into()), None).unwrap();
        assert!(
            !begins(format, wish(&tools, None), &text),
            "{format:?}: {text}"
        );
    }
}

#[test]
fn text_is_never_taken_for_a_call() {
    let offered = json!([{"type": "function", "function": {"name": "f", "strict": true,
        "parameters": many_kinds()}}]);
    let tools = Tools::parse(Some(offered), None, None).unwrap();
    for (format, text) in [
        (ToolFormat::Pythonic, "[h(x=1)]"),
        (ToolFormat::Pythonic, "[1, f(x)]"),
        (ToolFormat::Pythonic, "f(n=\"three\")"),
        (ToolFormat::Llama3Json, r#"{"name": "h", "parameters": 7}"#),
        (ToolFormat::Llama3Json, r#"{"name": "f", "age": 7}"#),
        (ToolFormat::Llama3Json, r#"{"parameters": {}, "name": "f"}"#),
        (ToolFormat::Llama3Json, r#"{"answer": "x"}"#),
        (
            ToolFormat::Llama3Json,
            r#"So: {"name": "f", "parameters": {}}"#,
        ),
        (ToolFormat::Harmony, "No channel"),
        (
            ToolFormat::Harmony,
            "<|channel|>final<|message|>Write to=functions.f {}",
        ),
        (
            ToolFormat::Harmony,
            "<|channel|>commentary<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
    ] {
        assert!(
            accepts(format, wish(&tools, None), text),
            "{format:?}: {text}"
        );
    }
}

fn matcher(
    format: ToolFormat,
    wish: Wish<'_>,
) -> (Tokenizer, crate::engine::grammar::Matcher, u32) {
    let tokenizer = marked(format);
    let stop = tokenizer.token_id("<|im_end|>").unwrap();
    let vocab = tokenizer.vocab_size();
    let spec = message(wish, &writing(format, None), &tokenizer)
        .unwrap()
        .unwrap();
    let shared = Arc::new(marked(format));
    let compiler = GrammarCompiler::new(shared, vocab, &[stop]).unwrap();
    (tokenizer, compiler.compile(&spec).unwrap(), stop)
}

/// Whether an output may be this.
fn accepts(format: ToolFormat, wish: Wish<'_>, text: &str) -> bool {
    let (tokenizer, mut matcher, stop) = matcher(format, wish);
    let mut may_be = |id: u32| {
        let mask = matcher.mask().unwrap();
        let allowed = allows(mask, id);
        allowed && (id == stop || matcher.commit(id).is_ok())
    };
    let ids = tokenizer.encode(text, false).unwrap();
    ids.into_iter().all(&mut may_be) && may_be(stop)
}

/// Whether an output may begin with this.
fn begins(format: ToolFormat, wish: Wish<'_>, text: &str) -> bool {
    let (tokenizer, mut matcher, _) = matcher(format, wish);
    let ids = tokenizer.encode(text, false).unwrap();
    ids.into_iter().all(|id| {
        let mask = matcher.mask().unwrap();
        allows(mask, id) && matcher.commit(id).is_ok()
    })
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
    message(wish(tools, answer), &writing(format, thoughts), &tiny())
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
            (Some(Answer::Text), Some(calls)) => match calls.each.iter().all(|call| call.strict) {
                true => "text and calls",
                false => "text and lenient calls",
            },
            (_, None) => "no calls",
        },
        Some(_) => "json",
    };
    assert_eq!(shape("auto", false, None), "text and lenient calls");
    assert_eq!(shape("auto", true, None), "text and calls");
    assert_eq!(shape("auto", false, Some(json!({}))), "json or calls");
    assert_eq!(shape("required", false, None), "calls");
    assert_eq!(shape("required", false, Some(json!({}))), "calls");
    assert_eq!(shape("none", true, None), "anything");
    assert_eq!(shape("none", true, Some(json!({}))), "json");
}

#[test]
fn what_cannot_be_enforced_is_refused_and_said() {
    // The tokenizer has none of these markers.
    for (choice, strict, answer, format, param) in [
        ("required", false, None, ToolFormat::Harmony, "tool_choice"),
        (
            "none",
            false,
            Some(json!({})),
            ToolFormat::Harmony,
            "response_format",
        ),
    ] {
        let error = build(&tools(choice, strict), format, answer, None).unwrap_err();
        assert_eq!(error.param(), Some(param), "{format:?}");
    }
    for format in EVERY_FORMAT {
        let tokenizer = marked(format);
        for (choice, strict) in [("required", false), ("auto", true)] {
            let tools = tools(choice, strict);
            let spec = message(wish(&tools, None), &writing(format, None), &tokenizer);
            assert!(spec.unwrap().is_some(), "{format:?} {choice}");
        }
    }
}

#[test]
fn a_schema_that_a_format_cannot_write_is_named() {
    let compile = |format, parameters: Value| {
        let tool =
            json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
        let tools = Tools::parse(Some(tool), Some("required".into()), None).unwrap();
        let tokenizer = Arc::new(marked(format));
        let spec = message(wish(&tools, None), &writing(format, None), &tokenizer).unwrap();
        let stop = tokenizer.token_id("<|im_end|>").unwrap();
        let vocab = tokenizer.vocab_size();
        let compiler = GrammarCompiler::new(tokenizer, vocab, &[stop]).unwrap();
        compiler.compile(&spec.unwrap()).map(drop)
    };
    let object =
        |name: &str, schema: Value| json!({"type": "object", "properties": {name: schema}});
    let text = |keyword: &str, value: Value| object("a", json!({"type": "string", keyword: value}));
    for (format, parameters, named) in [
        (ToolFormat::Pythonic, object("a b", json!({})), "a b"),
        (ToolFormat::QwenXml, object("a>", json!({})), "a>"),
        (
            ToolFormat::QwenXml,
            text("pattern", json!("^a|b$")),
            "pattern",
        ),
        (
            ToolFormat::QwenXml,
            text("pattern", json!("a^b")),
            "pattern",
        ),
        (
            ToolFormat::QwenXml,
            text("pattern", json!("(?=a)b")),
            "pattern",
        ),
        (
            ToolFormat::QwenXml,
            text("format", json!("hostname")),
            "format",
        ),
        (
            ToolFormat::QwenXml,
            text("enum", json!(["</parameter>"])),
            "enum",
        ),
        (ToolFormat::QwenXml, text("not", json!({})), "not"),
    ] {
        let error = compile(format, parameters.clone()).unwrap_err().to_string();
        assert!(error.contains(named), "{parameters}: {error}");
    }
    for format in [ToolFormat::Pythonic, ToolFormat::QwenXml] {
        let joined = json!({"type": "object", "anyOf": [{"required": ["a"]}]});
        let error = compile(format, joined).unwrap_err().to_string();
        assert!(error.contains("anyOf"), "{error}");
        let nowhere = object("a", json!({"$ref": "#/properties/b"}));
        assert!(
            compile(format, nowhere)
                .unwrap_err()
                .to_string()
                .contains("$ref")
        );
        let lost = json!({"type": "object", "required": ["a"], "additionalProperties": false});
        assert!(
            compile(format, lost)
                .unwrap_err()
                .to_string()
                .contains("`a`")
        );
        let tree = json!({"type": "object", "properties": {"t": {"$ref": "#/$defs/t"}},
            "$defs": {"t": {"type": "object", "properties": {
                "leaf": {"type": "boolean"}, "next": {"$ref": "#/$defs/t"}}}}});
        compile(format, tree).unwrap();
        compile(format, json!({"type": "object"})).unwrap();
    }
}

#[test]
fn a_budget_is_set_or_refused() {
    let tokenizer = tiny();
    let none = Tools::default();
    let free = tools("auto", false);
    let bound = |tools, answer: Option<Value>, tags, format, prompt| {
        let wish = Wish {
            tools,
            answer: answer.map(GrammarSpec::JsonSchema),
            budget: Some(7),
            prompt,
        };
        let thoughts = tags;
        message(wish, &Writing { format, thoughts }, &tokenizer)
    };
    let budget = |spec| match spec {
        Some(GrammarSpec::Message(message)) => message.thought.and_then(|t| t.budget),
        _ => None,
    };
    let think = || tags("<think>", "</think>", true);
    let hermes = Some(ToolFormat::Hermes);
    for (tools, answer, format) in [
        (&none, None, None),
        (&none, Some(json!({})), None),
        (&free, None, hermes),
        (&free, Some(json!({})), hermes),
    ] {
        let spec = bound(tools, answer, think(), format, "a").unwrap();
        assert_eq!(budget(spec), Some(7));
    }
    // Nothing is thought.
    assert_eq!(budget(bound(&free, None, None, hermes, "a").unwrap()), None);
    assert_eq!(
        bound(&none, None, think(), None, "<think></think>\n"),
        Ok(None)
    );
    let error = bound(&none, None, tags("<hm>", "</hm>", true), None, "a").unwrap_err();
    assert_eq!(error.param(), Some("thinking_budget"));
}

#[test]
fn harmonys_thoughts_have_a_budget_too() {
    let thought = |words: &str| {
        format!(
            "<|channel|>analysis<|message|>{words}<|end|><|start|>assistant<|channel|>final<|message|>No."
        )
    };
    for tools in [Tools::default(), tools("auto", false)] {
        let wish = |budget| Wish {
            budget: Some(budget),
            ..wish(&tools, None)
        };
        let long = "one two three four five six seven";
        assert!(accepts(ToolFormat::Harmony, wish(40), &thought(long)));
        assert!(!accepts(ToolFormat::Harmony, wish(3), &thought(long)));
        assert!(accepts(ToolFormat::Harmony, wish(0), &thought("")));
    }
}

#[test]
fn an_answer_in_harmony_has_its_channel() {
    let tools = Tools::default();
    let wish = || {
        wish(
            &tools,
            Some(GrammarSpec::JsonSchema(json!({"type": "integer"}))),
        )
    };
    for (text, fits) in [
        ("<|channel|>final<|message|>7", true),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>7",
            true,
        ),
        ("<|channel|>final<|message|>seven", false),
        ("7", false),
    ] {
        assert_eq!(accepts(ToolFormat::Harmony, wish(), text), fits, "{text}");
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
