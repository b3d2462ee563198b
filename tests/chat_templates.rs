//! Chat templates render byte for byte what transformers renders (tests/templates/expected.py).

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mlxcel::text::{ChatTemplate, TemplateError, TemplateInput};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Cases {
    conversations: HashMap<String, Value>,
    variants: HashMap<String, Variant>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Variant {
    tools: Option<Value>,
    add_generation_prompt: bool,
    #[serde(default)]
    kwargs: Map<String, Value>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    variant: String,
    expected: Option<String>,
    error: Option<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A model folder with the byte-level tokenizer's configuration and the given files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        fixtures().join("tokenizers/byte-level/tokenizer_config.json"),
        dir.path().join("tokenizer_config.json"),
    )
    .unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn load(files: &[(&str, &str)]) -> ChatTemplate {
    ChatTemplate::load(folder(files).path()).unwrap().unwrap()
}

fn render(template: &ChatTemplate, tools: Option<&Value>) -> Result<String, TemplateError> {
    template.render(&TemplateInput {
        messages: &json!([{"role": "user", "content": "Hi"}]),
        tools,
        add_generation_prompt: true,
        kwargs: &Map::new(),
    })
}

#[test]
fn every_case_renders_like_transformers() {
    let path = fixtures().join("templates");
    let Cases {
        conversations,
        variants,
        cases,
    } = serde_json::from_str(&std::fs::read_to_string(path.join("cases.json")).unwrap()).unwrap();
    assert!(cases.len() > 900);
    for case in cases {
        let source = std::fs::read_to_string(path.join(format!("{}.jinja", case.template)));
        let template = load(&[("chat_template.jinja", &source.unwrap())]);
        let variant = &variants[&case.variant];
        let rendered = template.render(&TemplateInput {
            messages: &conversations[&case.conversation],
            tools: variant.tools.as_ref(),
            add_generation_prompt: variant.add_generation_prompt,
            kwargs: &variant.kwargs,
        });
        let place = format!("{} {} {}", case.template, case.conversation, case.variant);
        match (case.expected, case.error) {
            (Some(expected), _) => {
                let rendered = rendered.unwrap_or_else(|error| panic!("{place}: {error}"));
                for (ours, theirs) in rendered.lines().zip(expected.lines()) {
                    assert_eq!(ours, theirs, "{place}");
                }
                assert_eq!(rendered, expected, "{place}");
            }
            (None, Some(error)) => match rendered {
                Err(TemplateError::Raised(message)) => assert_eq!(message, error, "{place}"),
                // Errors of Python have Python's words.
                Err(TemplateError::Failed(_)) => {
                    assert!(!error.contains("must alternate"), "{place}: {error}");
                }
                other => panic!("{place}: {other:?} instead of {error:?}"),
            },
            (None, None) => panic!("{place}: no expectation"),
        }
    }
}

#[derive(Deserialize)]
struct Snippets {
    messages: Value,
    kwargs: Map<String, Value>,
    snippets: Vec<Snippet>,
}

#[derive(Deserialize)]
struct Snippet {
    source: String,
    expected: Option<String>,
    error: Option<String>,
}

#[test]
fn every_snippet_renders_like_transformers() {
    let path = fixtures().join("templates/snippets.json");
    let fixture = std::fs::read_to_string(path).unwrap();
    let Snippets {
        messages,
        kwargs,
        snippets,
    } = serde_json::from_str(&fixture).unwrap();
    let render = |source: &str| {
        let template = ChatTemplate::load(folder(&[("chat_template.jinja", source)]).path());
        let template = template.map_err(|error| TemplateError::Failed(error.to_string()))?;
        template.unwrap().render(&TemplateInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: false,
            kwargs: &kwargs,
        })
    };
    let mut wrong = Vec::new();
    for Snippet {
        source,
        expected,
        error,
    } in snippets
    {
        let found = render(&source);
        let same = match (&found, &expected, &error) {
            (Ok(found), Some(expected), _) => found == expected,
            (Err(TemplateError::Raised(message)), None, Some(error)) => message == error,
            // Errors of Python have Python's words.
            (Err(TemplateError::Failed(_)), None, Some(_)) => true,
            _ => false,
        };
        if !same {
            let expected = expected.or(error).unwrap_or_default();
            wrong.push(format!(
                "{source}\n  ours:   {found:?}\n  theirs: {expected:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n{} differ",
        wrong.join("\n"),
        wrong.len()
    );
}

#[test]
fn the_jinja_file_comes_before_the_configuration() {
    let config = r#"{"chat_template": "from config", "eos_token": "</s>"}"#;
    let template = load(&[("tokenizer_config.json", config)]);
    assert_eq!(render(&template, None).unwrap(), "from config");
    let template = load(&[
        ("tokenizer_config.json", config),
        ("chat_template.jinja", "from file {{ eos_token }}"),
    ]);
    assert_eq!(render(&template, None).unwrap(), "from file </s>");
}

#[test]
fn chat_template_json_comes_last() {
    let older = ("chat_template.json", r#"{"chat_template": "from json"}"#);
    assert_eq!(render(&load(&[older]), None).unwrap(), "from json");
    let config = (
        "tokenizer_config.json",
        r#"{"chat_template": "from config"}"#,
    );
    assert_eq!(
        render(&load(&[older, config]), None).unwrap(),
        "from config"
    );
}

#[test]
fn tool_use_is_chosen_for_requests_with_tools() {
    let tools = json!([{"type": "function"}]);
    let config = json!({"chat_template": [
        {"name": "default", "template": "plain {{ tools is none }}"},
        {"name": "tool_use", "template": "tools {{ tools | length }}"},
    ]});
    let listed = load(&[("tokenizer_config.json", &config.to_string())]);
    let files = load(&[
        ("chat_template.jinja", "plain {{ tools is none }}"),
        (
            "additional_chat_templates/tool_use.jinja",
            "tools {{ tools | length }}",
        ),
    ]);
    for template in [listed, files] {
        assert_eq!(render(&template, None).unwrap(), "plain True");
        assert_eq!(render(&template, Some(&tools)).unwrap(), "tools 1");
    }
    let config = json!({"chat_template": [{"name": "rag", "template": "x"}]});
    let template = load(&[("tokenizer_config.json", &config.to_string())]);
    let error = render(&template, None).unwrap_err();
    assert!(
        matches!(&error, TemplateError::Input(text) if text.contains("rag")),
        "{error}"
    );
}

#[test]
fn a_model_without_a_template_has_none() {
    assert!(ChatTemplate::load(folder(&[]).path()).unwrap().is_none());
}

#[test]
fn a_syntax_error_names_the_file_and_the_line() {
    let dir = folder(&[("chat_template.jinja", "ok\n{% if %}")]);
    let error = ChatTemplate::load(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("chat_template.jinja") && error.contains(":2"),
        "{error}"
    );
}

#[test]
fn a_template_that_never_ends_is_stopped() {
    let forever = "{% for a in range(9999) %}{% for b in range(9999) %}{% if a %}{% endif %}\
                   {% endfor %}{% endfor %}";
    assert_eq!(
        render(&load(&[("chat_template.jinja", forever)]), None),
        Err(TemplateError::Limit)
    );
    let recursive = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    let error = render(&load(&[("chat_template.jinja", recursive)]), None).unwrap_err();
    assert!(matches!(error, TemplateError::Failed(_)), "{error}");
    let large = "{% set text = 'x' * 90000000 %}{{ text }}{{ text }}{{ text }}";
    assert_eq!(
        render(&load(&[("chat_template.jinja", large)]), None),
        Err(TemplateError::Limit)
    );
}

#[test]
fn numbers_keep_their_last_digit() {
    let template = load(&[("chat_template.jinja", "{{ tools[0].least | tojson }}")]);
    let tools = serde_json::from_str(r#"[{"least": 31.245270191439438}]"#).unwrap();
    let rendered = render(&template, Some(&tools)).unwrap();
    assert_eq!(rendered, "31.245270191439438");
}

#[test]
fn templates_cannot_change_the_messages() {
    let template = load(&[("chat_template.jinja", "{{ messages.append(1) }}")]);
    assert!(matches!(
        render(&template, None),
        Err(TemplateError::Failed(_))
    ));
}

#[test]
fn bad_input_is_named() {
    let template = load(&[("chat_template.jinja", "x")]);
    let try_render = |messages: Value, kwargs: Value| {
        let input = TemplateInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: false,
            kwargs: kwargs.as_object().unwrap(),
        };
        template.render(&input).unwrap_err().to_string()
    };
    assert!(try_render(json!([]), json!({})).contains("empty"));
    assert!(try_render(json!("Hi"), json!({})).contains("list"));
    assert!(try_render(json!(["Hi"]), json!({})).contains("object"));
    assert!(try_render(json!([{}]), json!({"tools": []})).contains("tools"));
}
