//! The access log: times and counts, nothing of what was said, and no keys.

use serde_json::Value;

use crate::process::{MODEL, Server, command};

const KEY: &str = "sk-very-secret";
const PROMPT: &str = "nobody-else-should-read-this";

fn talk(format: &str) -> String {
    let mut command = command(MODEL, "127.0.0.1");
    command.env("LLAMA_API_KEY", KEY);
    let mut server = Server::start(command.args(["--log-format", format, "--log-level", "debug"]));
    let address = server.ready();
    let key = format!("Authorization: Bearer {KEY}");
    for (id, stream) in [("mine-1", false), ("mine-2", true)] {
        let body = format!(
            r#"{{"prompt": "{PROMPT}", "max_tokens": 3, "stream": {stream}, "unheard-of": "{PROMPT}"}}"#
        );
        let id_line = format!("x-request-id: {id}");
        let head = ["Host: localhost", &key, &id_line];
        let answer = address.ask("POST", "/v1/completions?secret=query", &head, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-request-id"), Some(id));
        assert_eq!(answer.header("x-mlxcel-ignored"), Some("unheard-of"));
    }
    let wrong = ["Host: localhost", "x-api-key: sk-wrong-secret"];
    assert_eq!(address.ask("GET", "/props", &wrong, "").status, 401);
    server.signal(libc::SIGTERM);
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    log
}

#[test]
fn it_holds_no_contents_and_no_keys() {
    for format in ["text", "json"] {
        let log = talk(format);
        assert!(log.contains("unheard-of"), "{log}");
        for secret in [KEY, PROMPT, "sk-wrong-secret", "secret=query"] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
    }
}

#[test]
fn each_request_has_its_line_with_times_also_a_streamed_one() {
    let log = talk("json");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    for id in ["mine-1", "mine-2"] {
        let of = |message: &str| {
            let ours = |line: &&Value| line["span"]["id"] == id && line["message"] == message;
            let found: Vec<&Value> = lines.iter().filter(ours).collect();
            assert_eq!(found.len(), 1, "{id} {message}: {log}");
            found[0].clone()
        };
        let answered = of("answered");
        assert_eq!(answered["path"], "/v1/completions");
        assert_eq!(answered["status"], 200);
        assert!(answered["ms"].as_f64() >= answered["head_ms"].as_f64());
        assert!(answered["sent"].as_u64().unwrap() > 100);
        let generated = of("generated");
        assert_eq!(generated["completion_tokens"], 3);
        assert!(generated["prompt_ms"].as_f64().unwrap() > 0.0);
    }
    let refused = |line: &&Value| line["path"] == "/props" && line["status"] == 401;
    assert_eq!(lines.iter().filter(refused).count(), 1, "{log}");
}
