//! Messages: thoughts, an answer, and calls.

use super::*;

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn marker(marker: &str) -> Part {
    Part::Marker(marker.to_owned())
}

fn calls(many: bool) -> Calls {
    let call = |name: &str, schema| Call {
        function: name.to_owned(),
        strict: true,
        parts: vec![
            marker("<tool_call>"),
            text(&format!("{{\"name\": \"{name}\", \"arguments\": ")),
            Part::Json(schema),
            text("}"),
            marker("</tool_call>"),
        ],
    };
    let number = json!({"type": "object", "properties": {"a": {"type": "integer"}},
        "required": ["a"], "additionalProperties": false});
    let nothing = json!({"type": "object", "additionalProperties": false});
    Calls {
        mark: Mark::Marker("<tool_call>".to_owned()),
        open: vec![],
        each: vec![call("f", number), call("g", nothing)],
        between: many.then(|| vec![text("\n")]),
        close: vec![],
    }
}

fn thought(opened: bool) -> Thought {
    Thought {
        open: vec![marker("<think>")],
        close: "</think>".to_owned(),
        behind: vec![],
        opened,
        budget: None,
    }
}

fn spec(thought: Option<Thought>, answer: Option<Answer>, calls: Option<Calls>) -> GrammarSpec {
    GrammarSpec::Message(Box::new(MessageSpec {
        thought,
        heading: vec![],
        answer,
        calls,
    }))
}

/// The built-in model's tokenizer, where thoughts and calls have tokens that are not special.
fn tiny() -> Model {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
    let tokenizer = Arc::new(Tokenizer::load(&dir).unwrap());
    let stop = tokenizer.token_id("<|im_end|>").unwrap();
    let vocab_size = tokenizer.vocab_size();
    let compiler = GrammarCompiler::new(Arc::clone(&tokenizer), vocab_size, &[stop]).unwrap();
    Model {
        tokenizer,
        compiler,
        vocab_size,
        stop,
    }
}

const F: &str = r#"<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>"#;
const G: &str = r#"<tool_call>{"name": "g", "arguments": {}}</tool_call>"#;

#[test]
fn a_call_that_has_to_be_made() {
    let model = tiny();
    let one = spec(None, None, Some(calls(false)));
    let many = spec(None, None, Some(calls(true)));
    for (text, in_one, in_many) in [
        (F, true, true),
        (G, true, true),
        ([F, "\n", G].concat().as_str(), false, true),
        ("", false, false),
        ("hello", false, false),
        (&F.replace('1', "null"), false, false),
        (&F.replace("\"f\"", "\"h\""), false, false),
        ([F, "hello"].concat().as_str(), false, false),
    ] {
        assert_eq!(model.accepts(&one, text), in_one, "{text:?}");
        assert_eq!(model.accepts(&many, text), in_many, "{text:?}");
    }
}

#[test]
fn calls_are_held_to_it_once_they_begin() {
    let model = tiny();
    let spec = spec(None, Some(Answer::Text), Some(calls(true)));
    for (text, accepted) in [
        ("", true),
        ("hello {\"a\": 1} <tool>", true),
        (F, true),
        (["Let me see.\n", F, "\n", G].concat().as_str(), true),
        ("<tool_call>hello</tool_call>", false),
        (&F.replace('1', "null"), false),
        // The output is free again behind a call.
        ([F, "after"].concat().as_str(), true),
        ([F, "after", G, "!"].concat().as_str(), true),
        (
            [F, "after", &F.replace('1', "null")].concat().as_str(),
            false,
        ),
    ] {
        assert_eq!(model.accepts(&spec, text), accepted, "{text:?}");
    }
    let one = self::spec(None, Some(Answer::Text), Some(calls(false)));
    assert!(model.accepts(&one, F) && model.accepts(&one, "hello"));
    assert!(!model.accepts(&one, &[F, "after"].concat()));
}

#[test]
fn a_free_output_has_no_masks_and_a_call_in_it_has() {
    let model = tiny();
    let spec = spec(None, Some(Answer::Text), Some(calls(true)));
    let mut matcher = model.compiler.compile(&spec).unwrap();
    let feed = |matcher: &mut Matcher, text: &str| {
        for id in model.tokenizer.encode(text, false).unwrap() {
            matcher.commit(id).unwrap();
        }
    };
    feed(&mut matcher, "I will add them. <tool");
    assert!(matcher.mask().unwrap().is_none() && matcher.hold() == Hold::Free);
    feed(&mut matcher, "<tool_call>");
    assert_eq!(matcher.hold(), Hold::Held);
    let forced = matcher.forced().unwrap();
    assert!(model.text(&forced).starts_with("{\"name"), "{forced:?}");
    for id in forced {
        matcher.commit(id).unwrap();
    }
    feed(&mut matcher, "f\", \"arguments\": {\"a\": 12}}</tool_call>");
    assert!(matcher.mask().unwrap().is_none() && matcher.hold() == Hold::Free);
}

#[test]
fn what_cannot_be_enforced_of_a_schema_is_left_out_and_told() {
    let model = tiny();
    let spec = |schema: Value, strict| {
        let mut calls = calls(true);
        calls.each[1].parts[2] = Part::Json(schema);
        calls.each[1].strict = strict;
        spec(None, Some(Answer::Text), Some(calls))
    };
    let schema = json!({"type": "object", "not": {}, "properties": {
        "not": {"type": "boolean", "not": {"const": true}}}});
    let refused = model.compiler.compile(&spec(schema.clone(), true));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("not"), "{refused}");
    let relaxed = spec(schema, false);
    let matcher = model.compiler.compile(&relaxed).unwrap();
    assert_eq!(matcher.unenforced(), ["g.not"]);
    assert!(model.accepts(&relaxed, F) && model.accepts(&relaxed, G));
    assert!(!model.accepts(&relaxed, &F.replace('1', "null")));
    let g = |arguments: &str| G.replace("{}", arguments);
    assert!(model.accepts(&relaxed, &g(r#"{"not": true}"#)));
    // The rest of it holds.
    assert!(!model.accepts(&relaxed, &g(r#"{"not": 1}"#)));
    assert!(!model.accepts(&relaxed, &g("[]")));
    // Where nothing of it can be kept it is any object.
    let hopeless = spec(json!({"type": "object", "properties": {"a": 1}}), false);
    let matcher = model.compiler.compile(&hopeless).unwrap();
    assert_eq!(matcher.unenforced(), ["g.parameters"]);
    assert!(model.accepts(&hopeless, &g(r#"{"a": [1]}"#)));
    assert!(!model.accepts(&hopeless, &g("[]")));
}

#[test]
fn a_marker_that_is_spelled_begins_a_call_too() {
    let model = tiny();
    let mut calls = calls(true);
    calls.mark = Mark::Marker("zqt".to_owned());
    for call in &mut calls.each {
        call.parts[0] = marker("zqt");
    }
    let spec = spec(None, Some(Answer::Text), Some(calls));
    let mut matcher = model.compiler.compile(&spec).unwrap();
    let ids = |text: &str| model.tokenizer.encode(text, false).unwrap();
    for id in [ids("hello z"), ids("zq")].concat() {
        assert_eq!(matcher.hold(), Hold::Free);
        matcher.commit(id).unwrap();
    }
    // Tokens that end the marker and go on are of no use to the grammar.
    let allowed = allowed(&mut matcher);
    let (end, longer) = (ids("t")[0], ids("th")[0]);
    assert_eq!(model.text(&[longer]), "th");
    assert!(allowed.contains(&end) && allowed.contains(&ids("x")[0]));
    assert!(!allowed.contains(&longer));
    matcher.commit(end).unwrap();
    assert_eq!(matcher.hold(), Hold::Held);
}

#[test]
fn a_marker_in_a_thought_is_none() {
    let model = tiny();
    for (opened, before) in [(true, ""), (false, "\n<think>")] {
        let spec = spec(Some(thought(opened)), Some(Answer::Text), Some(calls(true)));
        let said = |thought: &str| [before, thought, "</think>", F].concat();
        assert!(model.accepts(&spec, &said("shall I <tool_call>? no")));
        let wrong = said("hm").replace('1', "null");
        assert!(!model.accepts(&spec, &wrong));
    }
    // Where no thought begins, the answer does.
    let spec = spec(Some(thought(false)), Some(Answer::Text), Some(calls(true)));
    assert!(model.accepts(&spec, &["<thin", F].concat()));
    assert!(!model.accepts(&spec, "no <think><tool_call>? no"));
}

#[test]
fn a_thought_ends_with_its_budget() {
    let model = tiny();
    for opened in [true, false] {
        let bounded = |budget| {
            let thought = Thought {
                budget,
                ..thought(opened)
            };
            spec(Some(thought), Some(Answer::Text), None)
        };
        let open = if opened { "" } else { "<think>" };
        let said = |thought: &str| format!("{open}{thought}</think>\n\n<tool_call> 1 2");
        let long = said("one two three four five six seven");
        assert!(model.accepts(&bounded(None), &long));
        assert!(model.accepts(&bounded(Some(40)), &long));
        assert!(!model.accepts(&bounded(Some(3)), &long));
        assert!(!model.accepts(&bounded(Some(0)), &said("a")));
        assert!(model.accepts(&bounded(Some(0)), &said("")));
        assert!(model.accepts(&bounded(Some(3)), &said("a")));
        assert!(model.accepts(&bounded(Some(3)), &said("")));
    }
}

#[test]
fn an_answer_begins_behind_the_thought() {
    let model = tiny();
    let json = || Some(Answer::Json(json!({"type": "integer"})));
    let opened = spec(Some(thought(true)), json(), None);
    let free = spec(Some(thought(false)), json(), Some(calls(false)));
    for (text, in_opened, in_free) in [
        ("7", false, true),
        (F, false, true),
        ("two\nlines</think>\n\n7", true, false),
        ("</think>7", true, false),
        ("<think>\nhm {\"a\"\n</think>\n\n7", true, true),
        (["<think>hm</think>", F].concat().as_str(), false, true),
        ("<think>hm</think>seven", false, false),
        ("hm", false, false),
    ] {
        assert_eq!(model.accepts(&opened, text), in_opened, "{text:?}");
        assert_eq!(model.accepts(&free, text), in_free, "{text:?}");
    }
}

#[test]
fn a_thought_does_not_end_an_output() {
    let model = tiny();
    let spec = spec(
        Some(thought(true)),
        Some(Answer::Json(json!({"const": 1}))),
        None,
    );
    let mut matcher = model.compiler.compile(&spec).unwrap();
    for id in model.tokenizer.encode("I think", false).unwrap() {
        assert!(!allowed(&mut matcher).contains(&model.stop));
        matcher.commit(id).unwrap();
    }
    // Only the token ends it, not its characters.
    let spelled = model.tokenizer.encode("</think", false).unwrap();
    for id in spelled {
        matcher.commit(id).unwrap();
    }
    let end = model.tokenizer.encode(">", false).unwrap()[0];
    assert!(!allowed(&mut matcher).contains(&end));
}

#[test]
fn special_markers_are_tokens() {
    let model = model("byte-level");
    let call = Call {
        function: "f".to_owned(),
        strict: true,
        parts: vec![marker("<|bos|>"), Part::Json(json!({"const": 1}))],
    };
    let calls = Calls {
        mark: Mark::Marker("<|bos|>".to_owned()),
        open: vec![],
        each: vec![call],
        between: Some(vec![]),
        close: vec![],
    };
    let forced = spec(None, None, Some(calls.clone()));
    let bos = model.tokenizer.token_id("<|bos|>").unwrap();
    let mut matcher = model.compiler.compile(&forced).unwrap();
    assert_eq!(allowed(&mut matcher), [bos]);
    assert!(model.accepts(&forced, "<|bos|>1<|bos|>1"));
    let free = spec(None, Some(Answer::Text), Some(calls));
    assert!(model.accepts(&free, "text<|bos|>1"));
    assert!(!model.accepts(&free, "text<|bos|>text"));
}

#[test]
fn a_marker_that_has_to_be_a_token_and_is_none_is_named() {
    let model = model("byte-level");
    let mut thought = thought(true);
    thought.close = "</ponder>".to_owned();
    let spec = spec(Some(thought), Some(Answer::Json(json!({}))), None);
    let error = model.compiler.compile(&spec).unwrap_err();
    assert!(error.to_string().contains("</ponder>"), "{error}");
}
