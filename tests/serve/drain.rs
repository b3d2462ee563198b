//! SIGTERM: nothing new, what runs may end, and then it is over.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Answer, ENDLESS, MODEL, Server, command, within};

fn streamed(body: &str) -> String {
    let mut body: Value = serde_json::from_str(body).unwrap();
    body["stream"] = true.into();
    body.to_string()
}

#[test]
fn running_requests_end_well_and_the_socket_file_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let mut command = command(MODEL, socket.to_str().unwrap());
    let mut server = Server::start(command.args(["--drain-timeout", "600"]));
    let address = server.ready();
    let mut body: Value = serde_json::from_str(ENDLESS).unwrap();
    body["max_tokens"] = 500.into();
    // They may end at any time, but not before they began.
    let begun = || {
        address
            .prop("/throughput/prompt_tokens_total")
            .as_u64()
            .unwrap()
    };
    let before = begun();
    let whole = address.request("POST", "/v1/completions", &body.to_string());
    let stream = address.request("POST", "/v1/completions", &streamed(&body.to_string()));
    within(|| (begun() == before + 2).then_some(()));
    server.signal(libc::SIGTERM);
    within(|| (!socket.exists()).then_some(()));
    assert!(address.try_request("GET", "/health", "").is_err());
    let whole = Answer::read(whole);
    assert_eq!(whole.status, 200, "{whole:?}");
    assert!(
        whole.body.contains("\"completion_tokens\":500"),
        "{whole:?}"
    );
    let stream = Answer::read(stream);
    assert!(stream.body.contains("data: [DONE]"), "{stream:?}");
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("cut off"), "{log}");
}

#[test]
fn what_runs_longer_than_it_may_ends_with_an_error() {
    for host in ["127.0.0.1", "socket"] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.sock");
        let host = if host == "socket" {
            socket.to_str().unwrap()
        } else {
            host
        };
        let mut server = Server::start(command(MODEL, host).args(["--drain-timeout", "0.5"]));
        let address = server.ready();
        let whole = address.request("POST", "/v1/completions", ENDLESS);
        let stream = address.request("POST", "/v1/completions", &streamed(ENDLESS));
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0);
        }
        within(|| (address.prop("/busy_slots") == 2).then_some(()));
        let began = Instant::now();
        server.signal(libc::SIGTERM);
        let whole = Answer::read(whole);
        assert_eq!(
            (whole.status, whole.code().as_str()),
            (503, "shutting_down")
        );
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        let events: Vec<_> = rest
            .lines()
            .filter_map(|l| l.strip_prefix("data: "))
            .collect();
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "shutting_down");
        // Ended as HTTP ends, not broken off.
        assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
        let (code, log) = server.ended();
        assert_eq!(code, Some(0), "{log}");
        assert!(began.elapsed() >= Duration::from_millis(500));
        assert!(!socket.exists());
    }
}

#[test]
fn a_stream_that_is_cut_off_says_so_in_the_words_of_its_api() {
    let mut command = command(MODEL, "127.0.0.1");
    let mut server = Server::start(command.args(["--drain-timeout", "0.1", "--parallel", "1"]));
    let address = server.ready();
    // It takes its place for minutes. What comes behind it has begun when its head is there.
    let mut long: Value = serde_json::from_str(ENDLESS).unwrap();
    long["n"] = 128.into();
    let running = address.request("POST", "/v1/completions", &long.to_string());
    within(|| (address.prop("/busy_slots") == 1).then_some(()));
    let messages = r#""messages": [{"role": "user", "content": "a"}]"#;
    let begun = [
        (
            "/v1/completions",
            r#"{"prompt": "a"}"#.to_owned(),
            "/error/code",
            "shutting_down",
        ),
        (
            "/v1/chat/completions",
            format!("{{{messages}}}"),
            "/error/code",
            "shutting_down",
        ),
        (
            "/v1/responses",
            r#"{"input": "a"}"#.to_owned(),
            "/response/status",
            "failed",
        ),
        (
            "/v1/messages",
            format!(r#"{{"model": "m", "max_tokens": 9, {messages}}}"#),
            "/error/type",
            "overloaded_error",
        ),
    ]
    .map(|(path, body, field, told)| {
        let mut stream = BufReader::new(address.request("POST", path, &streamed(&body)));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0);
        }
        (path, stream, field, told)
    });
    server.signal(libc::SIGTERM);
    for (path, mut stream, field, told) in begun {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        let mut events = rest.lines().filter_map(|line| line.strip_prefix("data: "));
        let last: Value = serde_json::from_str(events.next_back().unwrap()).unwrap();
        assert_eq!(last.pointer(field).unwrap(), told, "{path}: {last}");
        assert!(rest.ends_with("0\r\n\r\n"), "{path}: {rest:?}");
    }
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    drop(running);
}

#[test]
fn a_connection_that_was_open_before_brings_no_new_request() {
    let mut server = Server::start(&mut command(MODEL, "127.0.0.1"));
    let address = server.ready();
    let running = address.request("POST", "/v1/completions", ENDLESS);
    within(|| (address.prop("/busy_slots") == 1).then_some(()));
    let mut idle = address.connect().unwrap();
    write!(idle, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut some = [0; 64];
    assert!(idle.read(&mut some).unwrap() > 0);
    server.signal(libc::SIGTERM);
    within(|| address.connect().is_err().then_some(()));
    // Whether it is closed or answered: no work is begun.
    drop(write!(
        idle,
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n{{\"content\": \"a\"}}"
    ));
    let mut rest = String::new();
    drop(idle.read_to_string(&mut rest));
    assert!(!rest.contains("tokens"), "{rest}");
    // The second signal is for those who do not want to wait.
    server.signal(libc::SIGINT);
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    drop(running);
}
