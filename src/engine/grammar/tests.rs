//! Random walks by mask: whatever ends validates, and whatever is cut off could have gone on.

mod messages;

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

struct Model {
    tokenizer: Arc<Tokenizer>,
    compiler: GrammarCompiler,
    vocab_size: usize,
    stop: u32,
}

fn model(family: &str) -> Model {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tokenizers")
        .join(family);
    let tokenizer = Arc::new(Tokenizer::load(&dir).unwrap());
    let stop = tokenizer.token_id("<|end|>").unwrap();
    // Logits are often padded beyond the vocabulary.
    let vocab_size = tokenizer.vocab_size() + 29;
    let compiler = GrammarCompiler::new(Arc::clone(&tokenizer), vocab_size, &[stop]).unwrap();
    Model {
        tokenizer,
        compiler,
        vocab_size,
        stop,
    }
}

fn allowed(matcher: &mut Matcher) -> Vec<u32> {
    let Some(words) = matcher.mask().unwrap() else {
        return (0..10_000).collect();
    };
    (0..words.len() as u32 * 32)
        .filter(|id| words[*id as usize / 32] & (1 << (id % 32)) != 0)
        .collect()
}

impl Model {
    /// Draws tokens by mask alone. Returns the text, and whether the walk ended by itself.
    fn walk(&self, spec: &GrammarSpec, seed: u64, most: usize) -> (String, bool) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut matcher = self.compiler.compile(spec).unwrap();
        let mut ids = Vec::new();
        let mut ended = false;
        while ids.len() < most && !ended {
            let choices = allowed(&mut matcher);
            assert!(
                !choices.is_empty(),
                "nothing may follow {:?}",
                self.text(&ids)
            );
            assert!(choices.iter().all(|id| (*id as usize) < self.vocab_size));
            assert!(
                choices
                    .iter()
                    .all(|id| *id == self.stop || !self.tokenizer.is_special(*id)),
                "a special token may follow {:?}",
                self.text(&ids)
            );
            if matcher.is_finished() {
                assert_eq!(choices, [self.stop]);
            }
            // A uniform draw would hardly ever close what it opened.
            let short = |id: &&u32| {
                self.tokenizer
                    .token_bytes(**id)
                    .is_some_and(|b| b.len() == 1)
            };
            let closing: Vec<u32> = choices
                .iter()
                .filter(short)
                .filter(|id| {
                    let bytes = self.tokenizer.token_bytes(**id).unwrap();
                    b"}]\"".contains(&bytes[0])
                })
                .copied()
                .collect();
            let end = choices.contains(&self.stop) && random.random_bool(0.5);
            let id = if end {
                self.stop
            } else if !closing.is_empty() && random.random_bool(0.3) {
                closing[random.random_range(0..closing.len())]
            } else {
                choices[random.random_range(0..choices.len())]
            };
            matcher.commit(id).unwrap();
            if id == self.stop {
                ended = true;
                assert!(matcher.is_finished());
            } else {
                ids.push(id);
            }
        }
        (self.text(&ids), ended)
    }

    fn text(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).unwrap()
    }

    fn compile_error(&self, schema: Value) -> GrammarError {
        self.compiler
            .compile(&GrammarSpec::JsonSchema(schema))
            .unwrap_err()
    }

    /// Whether a text is accepted to its end, and then may stop.
    fn accepts(&self, spec: &GrammarSpec, text: &str) -> bool {
        let mut matcher = self.compiler.compile(spec).unwrap();
        for id in self.tokenizer.encode(text, false).unwrap() {
            if !allowed(&mut matcher).contains(&id) {
                return false;
            }
            matcher.commit(id).unwrap();
        }
        allowed(&mut matcher).contains(&self.stop)
    }
}

fn person() -> GrammarSpec {
    GrammarSpec::JsonSchema(json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "role": {"enum": ["admin", "user", "日本"]},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,5}$"}, "maxItems": 3},
            "pet": {"$ref": "#/$defs/pet"},
        },
        "required": ["name", "age", "role", "tags", "pet"],
        "additionalProperties": false,
        "$defs": {"pet": {"oneOf": [
            {"type": "null"},
            {"type": "object", "properties": {"legs": {"const": 4}}, "required": ["legs"],
             "additionalProperties": false},
        ]}},
    }))
}

fn fits_person(value: &Value) -> bool {
    let pet = &value["pet"];
    value.as_object().unwrap().len() == 5
        && value["name"]
            .as_str()
            .is_some_and(|name| name.chars().count() <= 12)
        && value["age"].as_u64().is_some_and(|age| age <= 150)
        && ["admin", "user", "日本"].contains(&value["role"].as_str().unwrap())
        && value["tags"].as_array().is_some_and(|tags| {
            tags.len() <= 3
                && tags.iter().all(|tag| {
                    let tag = tag.as_str().unwrap();
                    (1..=5).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_lowercase())
                })
        })
        && (pet.is_null() || *pet == json!({"legs": 4}))
}

#[test]
fn what_ends_validates() {
    for family in ["byte-level", "byte-fallback"] {
        let model = model(family);
        let mut ended = 0;
        for seed in 0..30 {
            let (text, complete) = model.walk(&person(), seed, 400);
            if complete {
                ended += 1;
                let value: Value = serde_json::from_str(&text)
                    .unwrap_or_else(|error| panic!("{family}: {error}: {text:?}"));
                assert!(fits_person(&value), "{family}: {text}");
            }
        }
        assert!(ended >= 25, "{family}: {ended} of 30");
    }
}

#[test]
fn any_object_is_an_object() {
    let model = model("byte-level");
    let mut ended = 0;
    for seed in 0..20 {
        let (text, complete) = model.walk(&GrammarSpec::JsonObject, seed, 300);
        assert!(text.starts_with('{'), "{text:?}");
        if complete {
            ended += 1;
            assert!(
                serde_json::from_str::<Value>(&text).unwrap().is_object(),
                "{text}"
            );
        }
    }
    assert!(ended >= 5, "{ended}");
}

#[test]
fn whitespace_is_bounded() {
    let model = model("byte-level");
    let accepts = |text: &str| model.accepts(&GrammarSpec::JsonObject, text);
    assert!(accepts(r#"{"a":1,"b":[true,null]}"#));
    assert!(accepts(r#"{"a": 1, "b": [true, null]}"#));
    assert!(accepts("{\n  \"a\": [\n    1,\n    2\n  ]\n}"));
    assert!(!accepts("{  \"a\": 1}"));
    assert!(!accepts("{\n\n\"a\": 1}"));
    assert!(!accepts(" {\"a\": 1}"));
}

#[test]
fn grammar_text_never_spells_a_special_token() {
    let model = model("byte-level");
    let spec = GrammarSpec::JsonSchema(json!({"const": "<|end|> <tool_call>"}));
    let (text, complete) = model.walk(&spec, 0, 100);
    assert!(complete);
    assert_eq!(text, r#""<|end|> <tool_call>""#);
}

#[test]
fn forced_text_comes_in_the_tokenizers_own_tokens() {
    for family in ["byte-level", "byte-fallback"] {
        let model = model(family);
        let spec = GrammarSpec::JsonSchema(json!({"const": "the quick brown fox"}));
        let mut matcher = model.compiler.compile(&spec).unwrap();
        let mut ids = Vec::new();
        while !matcher.is_finished() {
            // The last token may be followed by anything: only those before it are forced.
            let choices = allowed(&mut matcher);
            ids.push(choices[0]);
            matcher.commit(choices[0]).unwrap();
        }
        let own = model
            .tokenizer
            .encode("\"the quick brown fox\"", false)
            .unwrap();
        assert!(ids.len() <= own.len(), "{family}: {ids:?} {own:?}");
        assert_eq!(model.text(&ids), "\"the quick brown fox\"", "{family}");
    }
}

#[test]
fn the_end_is_the_end() {
    let model = model("byte-level");
    let mut matcher = model.compiler.compile(&GrammarSpec::JsonObject).unwrap();
    for id in model.tokenizer.encode("{}", false).unwrap() {
        assert!(!matcher.is_finished());
        matcher.commit(id).unwrap();
    }
    assert!(matcher.is_finished());
    let spec = GrammarSpec::JsonSchema(json!({"enum": [true, false]}));
    let mut matcher = model.compiler.compile(&spec).unwrap();
    assert!(!matcher.is_finished());
    assert!(!allowed(&mut matcher).contains(&model.stop));
    for id in model.tokenizer.encode("true", false).unwrap() {
        matcher.commit(id).unwrap();
    }
    assert!(matcher.is_finished());
    assert_eq!(allowed(&mut matcher), [model.stop]);
    matcher.commit(model.stop).unwrap();
    assert!(matcher.is_finished());
    let other = model.tokenizer.encode("x", false).unwrap()[0];
    assert!(matches!(
        matcher.commit(other),
        Err(GrammarError::Failed(_))
    ));
    assert!(matches!(matcher.mask(), Err(GrammarError::Failed(_))));
}

#[test]
fn a_token_outside_the_mask_is_an_error() {
    let model = model("byte-level");
    let mut matcher = model.compiler.compile(&GrammarSpec::JsonObject).unwrap();
    let wrong = model.tokenizer.encode("x", false).unwrap()[0];
    assert!(matches!(
        matcher.commit(wrong),
        Err(GrammarError::Failed(_))
    ));
    let mut matcher = model.compiler.compile(&GrammarSpec::JsonObject).unwrap();
    assert!(matches!(
        matcher.commit(u32::MAX),
        Err(GrammarError::Failed(_))
    ));
}

#[test]
fn unsupported_keywords_are_named() {
    let model = model("byte-level");
    for (schema, expected) in [
        (
            json!({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}),
            "not",
        ),
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"anyOf": [{"if": {}, "then": {}}]}), "if"),
        (
            json!({"$defs": {"a": {"contains": {}}}, "$ref": "#/$defs/a"}),
            "contains",
        ),
        (json!({"type": "string", "nullable": true}), "nullable"),
        (json!({"$ref": "https://example.com/schema.json"}), "$ref"),
        (json!({"type": "string", "format": "iri"}), "format"),
        (json!({"type": "string", "pattern": "(?=a)b"}), "pattern"),
        (
            json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
            "oneOf",
        ),
        (
            json!({"type": "object", "x-guidance": {"lenient": true}}),
            "x-guidance",
        ),
    ] {
        match model.compile_error(schema.clone()) {
            GrammarError::Unsupported { keyword, .. } => assert_eq!(keyword, expected, "{schema}"),
            other => panic!("{schema}: {other:?}"),
        }
    }
}

#[test]
fn names_of_properties_may_be_said_to_be_strings() {
    let model = model("byte-level");
    let record = |names: Value| json!({"type": "object", "propertyNames": names, "additionalProperties": {"type": "integer"}});
    for names in [json!({"type": "string"}), json!({}), json!(true)] {
        let spec = GrammarSpec::JsonSchema(record(names));
        assert!(model.accepts(&spec, r#"{"any": 1}"#));
        assert!(!model.accepts(&spec, r#"{"any": "one"}"#));
    }
    for names in [json!({"type": "string", "maxLength": 2}), json!(false)] {
        let error = model.compile_error(record(names));
        assert!(error.to_string().contains("propertyNames"), "{error}");
    }
}

#[test]
fn formats_that_a_pattern_tells_are_enforced_by_it() {
    let model = model("byte-level");
    let both = json!([{"pattern": "^a"}, {"pattern": "b$"}]);
    for schema in [
        json!({"type": "string", "format": "starts_with", "pattern": "^a.*b$"}),
        json!({"type": "string", "format": "ends_with", "allOf": both}),
    ] {
        let spec = GrammarSpec::JsonSchema(schema);
        assert!(model.accepts(&spec, r#""a-b""#));
        assert!(!model.accepts(&spec, r#""b-b""#));
        assert!(!model.accepts(&spec, r#""a-a""#));
    }
    for schema in [
        json!({"type": "string", "format": "starts_with"}),
        json!({"type": "string", "format": "ends_with", "allOf": [{"minLength": 1}]}),
        json!({"type": "string", "format": "iri", "pattern": "^a"}),
    ] {
        let error = model.compile_error(schema);
        assert!(error.to_string().contains("format"), "{error}");
    }
}

#[test]
fn bounds_beyond_what_floats_can_say_hold() {
    let model = model("byte-level");
    let at = |bounds: Value, number: &str| {
        let mut schema = json!({"type": "integer"});
        for (keyword, bound) in bounds.as_object().unwrap() {
            schema[keyword] = bound.clone();
        }
        model.accepts(&GrammarSpec::JsonSchema(schema), number)
    };
    let most = json!({"minimum": 9_007_199_254_740_995_i64, "maximum": 9_007_199_254_740_999_i64});
    for (number, fits) in [
        ("9007199254740994", false),
        ("9007199254740997", true),
        ("9007199254741000", false),
    ] {
        assert_eq!(at(most.clone(), number), fits, "{number}");
    }
    assert!(!at(json!({"maximum": i64::MAX}), "9223372036854775808"));
    assert!(!at(
        json!({"exclusiveMinimum": -9_007_199_254_740_995_i64}),
        "-9007199254740995"
    ));
    assert!(at(json!({"maximum": u64::MAX}), "9007199254740993"));
    let error = model.compile_error(json!({"type": "integer", "minimum": 1e20}));
    assert!(error.to_string().contains("minimum"), "{error}");
}

#[test]
fn invalid_schemas_are_refused() {
    let model = model("byte-level");
    for schema in [
        json!(3),
        json!(false),
        json!({"type": "text"}),
        json!({"type": "object", "properties": []}),
        json!({"enum": "a"}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"type": "string", "minLength": 3, "maxLength": 2}),
        json!({"enum": []}),
        json!({"type": "number", "multipleOf": 0}),
        // longer than what llguidance quotes, cut within a character
        json!({"type": "string", "pattern": ["é".repeat(80), "日".repeat(80)]}),
    ] {
        let error = model.compile_error(schema.clone());
        assert!(
            matches!(error, GrammarError::Invalid(_)),
            "{schema}: {error:?}"
        );
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn annotations_and_harmless_keywords_pass() {
    let model = model("byte-level");
    let spec = GrammarSpec::JsonSchema(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "T", "description": "d", "deprecated": true, "uniqueItems": false,
        "type": "object", "x-order": 1,
        "properties": {"not": {"type": "integer", "examples": [1]}},
        "required": ["not"],
    }));
    assert!(model.accepts(&spec, r#"{"not": 5}"#));
    assert!(!model.accepts(&spec, r#"{"not": "5"}"#));
    assert!(model.accepts(&GrammarSpec::JsonSchema(json!(true)), "[1]"));
}

#[test]
fn one_of_looks_behind_references() {
    let model = model("byte-level");
    let shape = |kind: &str| {
        json!({"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"],
               "additionalProperties": false})
    };
    let spec = GrammarSpec::JsonSchema(json!({
        "$defs": {"cat": shape("cat"), "dog": shape("dog")},
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
    }));
    assert!(model.accepts(&spec, r#"{"kind": "dog"}"#));
    assert!(!model.accepts(&spec, r#"{"kind": "cow"}"#));
}

#[test]
fn compilation_is_bounded() {
    let model = model("byte-level");
    let mut nested = json!({"type": "string"});
    for _ in 0..100 {
        nested = json!({"type": "array", "items": nested});
    }
    let wide = |count: usize| -> serde_json::Map<String, Value> {
        (0..count)
            .map(|n| (format!("p{n}"), json!({"type": "string"})))
            .collect()
    };
    let chain = |count: usize, link: fn(String) -> Value| {
        let links: serde_json::Map<String, Value> = (0..count)
            .map(|n| (format!("{n}"), link(format!("#/$defs/{}", (n + 1) % count))))
            .collect();
        json!({"$defs": links, "$ref": "#/$defs/0"})
    };
    let options = |n: usize| {
        json!({"anyOf": [{"properties": {format!("a{n}"): {"type": "string"}}},
                         {"properties": {format!("b{n}"): {"type": "integer"}}}]})
    };
    for schema in [
        nested,
        json!({"type": "object", "properties": wide(30_000)}),
        json!({"type": "object", "properties": wide(2_000)}),
        chain(8_000, |next| json!({"$ref": next})),
        chain(
            4_000,
            |next| json!({"type": "array", "items": {"$ref": next}}),
        ),
        chain(
            3_000,
            |next| json!({"type": "object", "properties": {"x": {"$ref": next}}}),
        ),
        chain(
            3_000,
            |next| json!({"anyOf": [{"type": "null"}, {"$ref": next}]}),
        ),
        chain(
            2_000,
            |next| json!({"allOf": [{"title": "t"}, {"$ref": next}]}),
        ),
        json!({"type": "object", "allOf": (0..24).map(options).collect::<Vec<_>>()}),
        json!({"const": "a".repeat(250_000)}),
        json!({"type": "string", "pattern": "ab?".repeat(80_000)}),
        json!({"type": "number", "multipleOf": 9_999}),
        json!({"type": "string", "pattern": "^((a{1,900}){1,900}){1,900}$"}),
        json!({"type": "string", "pattern": "^(.*a.{200}){40}$"}),
        json!({"type": "array", "items": {"type": "string"}, "minItems": 1_000_000_000}),
        json!({"type": "string", "minLength": 100_000_000}),
        json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"enum": (0..50_000).map(|n| format!("value {n}")).collect::<Vec<_>>()}),
    ] {
        let start = Instant::now();
        // Refused or not: it comes to an end.
        let result = model
            .compiler
            .compile(&GrammarSpec::JsonSchema(schema.clone()));
        let took = start.elapsed();
        let shown: String = schema.to_string().chars().take(60).collect();
        assert!(
            took < Duration::from_secs(30),
            "{shown}: {took:?} {result:?}"
        );
    }
}

#[test]
fn a_bound_that_is_reached_in_the_middle_is_told_as_one() {
    for said in [
        "Parser Error: Current row has 4001 items; max is 2000; consider",
        "lexer error: too many expressions constructed",
    ] {
        assert!(
            matches!(error::failed(said), GrammarError::TooComplex(_)),
            "{said}"
        );
    }
    assert!(matches!(
        error::failed("doesn't satisfy"),
        GrammarError::Failed(_)
    ));
}

#[test]
fn matchers_go_to_the_engine_thread() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Matcher>();
    is_shared::<GrammarCompiler>();
}

#[test]
fn a_regex_a_choice_and_grammars_hold_every_walk() {
    let model = model("byte-level");
    let date = "[0-9]{4}-(0[1-9]|1[0-2])/[a-z]+";
    let texts = ["yes", "yes, perhaps", "no\nnever", "\"é\""].map(str::to_owned);
    let lark = "start: \"<\" word (\",\" word)* \">\"\nword: /[a-z]{1,3}/\n";
    let gbnf = "root ::= \"<\" word (\",\" word)* \">\"\nword ::= [a-z] [a-z]? [a-z]?";
    let date_fits = |text: &str| {
        let (year, rest) = text.split_once('-').unwrap();
        let (month, word) = rest.split_once('/').unwrap();
        year.len() == 4
            && (1..=12).contains(&month.parse::<u32>().unwrap())
            && !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let words_fit = |text: &str| {
        let inner = text
            .strip_prefix('<')
            .and_then(|text| text.strip_suffix('>'));
        inner.unwrap().split(',').all(|word| {
            (1..=3).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase())
        })
    };
    let one_of = |text: &str| texts.iter().any(|other| other == text);
    type Fits<'a> = &'a dyn Fn(&str) -> bool;
    let cases: [(GrammarSpec, Fits); 4] = [
        (GrammarSpec::Regex(date.to_owned()), &date_fits),
        (GrammarSpec::Choice(texts.to_vec()), &one_of),
        (GrammarSpec::Grammar(lark.to_owned()), &words_fit),
        (GrammarSpec::Grammar(gbnf.to_owned()), &words_fit),
    ];
    for (spec, fits) in cases {
        let mut ended = 0;
        for seed in 0..30 {
            let (text, end) = model.walk(&spec, seed, 60);
            assert!(!end || fits(&text), "{spec:?}: {text:?}");
            ended += usize::from(end);
        }
        assert!(ended > 0, "{spec:?}: no walk came to its end");
    }
}

#[test]
fn what_is_no_grammar_is_said() {
    let model = model("byte-level");
    for spec in [
        GrammarSpec::Regex("a(".to_owned()),
        GrammarSpec::Regex("(?=a)b".to_owned()),
        GrammarSpec::Regex("/\nstart: \"x\"".to_owned() + "("),
        GrammarSpec::Grammar("start: missing".to_owned()),
        GrammarSpec::Grammar("root ::= missing".to_owned()),
        GrammarSpec::Grammar(String::new()),
    ] {
        let error = model.compiler.compile(&spec).unwrap_err();
        assert!(
            matches!(error, GrammarError::Grammar(_)),
            "{spec:?}: {error}"
        );
    }
}
