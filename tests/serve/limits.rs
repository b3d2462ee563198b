//! What one client can take from the others: no more than it may.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;

use serde_json::Value;

use crate::process::{Address, Answer, ENDLESS, MODEL, Server, Stream, command, within};

const HOST: &str = "Host: localhost";

/// Streams with everything that makes them long, so that no buffer between holds the rest.
fn verbose() -> String {
    let mut body: Value = serde_json::from_str(ENDLESS).unwrap();
    body["stream"] = true.into();
    body["logprobs"] = 20.into();
    body["n"] = 4.into();
    body.to_string()
}

#[test]
fn a_client_that_does_not_read_loses_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    for host in [socket.to_str().unwrap(), "127.0.0.1"] {
        let mut server = Server::start(command(MODEL, host).args(["--timeout", "2"]));
        let address = server.ready();
        let silent = address.request("POST", "/v1/completions", &verbose());
        within(|| (address.prop("/busy_slots") == 4).then_some(()));
        // The time that nothing is read is over before anybody tells the server to end.
        let log = BufReader::new(server.0.stderr.take().unwrap());
        let cut = |line: &String| line.contains("/v1/completions") && line.contains("broken off");
        let mut lines = log.lines().map(Result::unwrap);
        assert!(lines.any(|line| cut(&line)), "{host}");
        within(|| (address.prop("/busy_slots") == 0).then_some(()));
        drop(silent);
    }
}

#[test]
fn heads_are_bounded_in_lines_size_and_time() {
    let mut server = Server::start(command(MODEL, "127.0.0.1").args(["--timeout", "3"]));
    let address = server.ready();
    let many: Vec<String> = (0..150).map(|i| format!("X-{i}: 1")).collect();
    let mut head: Vec<&str> = many.iter().map(String::as_str).collect();
    head.push(HOST);
    assert_eq!(address.ask("GET", "/health", &head, "").status, 431);
    let large = format!("X-Large: {}", "x".repeat(100 << 10));
    assert_eq!(
        address.ask("GET", "/health", &[HOST, &large], "").status,
        431
    );
    let mut slow = address.connect().unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nHost: lo").unwrap();
    let mut end = Vec::new();
    // Closed, with an answer or without.
    drop(slow.read_to_end(&mut end));
    assert!(!String::from_utf8_lossy(&end).contains("200 OK"));
    let mut body = address.connect().unwrap();
    let head = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{";
    body.write_all(head.as_bytes()).unwrap();
    let answer = Answer::read(body);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (408, "request_timeout")
    );
}

#[test]
fn bodies_are_bounded_in_size_and_nesting() {
    let mut server = Server::start(&mut command(MODEL, "127.0.0.1"));
    let address = server.ready();
    let large = format!(r#"{{"content": "{}"}}"#, "x".repeat(17 << 20));
    let answer = address.ask("POST", "/tokenize", &[HOST], &large);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "body_too_large")
    );
    let deep = format!(r#"{{"content": {}"#, "[".repeat(1 << 20));
    let answer = address.ask("POST", "/tokenize", &[HOST], &deep);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "invalid_json")
    );
    assert_eq!(address.status("/health"), 200);
}

/// A connection that is served, and stays open.
fn kept(address: &Address) -> Option<Box<dyn Stream>> {
    let mut stream = address.connect().unwrap();
    write!(stream, "GET /health HTTP/1.1\r\n{HOST}\r\n\r\n").unwrap();
    let mut status = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut status).unwrap();
    status.ends_with(b"200").then_some(stream)
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let mut command = command(MODEL, "127.0.0.1");
    let few = || {
        let limit = libc::rlimit {
            rlim_cur: 160,
            rlim_max: 160,
        };
        // SAFETY: reads the structure that it is given.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(few) };
    let mut server = Server::start(&mut command);
    let address = server.ready();
    // A connection that has ended keeps its place for a moment: whoever comes just then tries again.
    let held: Vec<_> = (0..16).map(|_| within(|| kept(&address))).collect();
    let refused = address.ask("GET", "/props", &[HOST], "");
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "too_many_connections")
    );
    assert!(refused.header("retry-after").is_some());
    drop(held);
    within(|| (address.try_request("GET", "/health", "").is_ok()).then_some(()));
    within(|| (address.ask("GET", "/props", &[HOST], "").status == 200).then_some(()));
}

#[test]
fn routes_and_methods_that_do_not_exist_are_told() {
    let mut server = Server::start(command(MODEL, "127.0.0.1").arg("--strict-model"));
    let address = server.ready();
    assert_eq!(
        address.ask("GET", "/nowhere", &[HOST], "").code(),
        "not_found"
    );
    let answer = address.ask("GET", "/tokenize", &[HOST], "");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = address.ask("DELETE", "/v1/models", &[HOST], "");
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET,HEAD"))
    );
    for (path, rest) in [
        ("/v1/completions", r#""prompt": "a""#),
        (
            "/v1/chat/completions",
            r#""messages": [{"role": "user", "content": "a"}]"#,
        ),
    ] {
        for (model, status) in [("gpt-4", 404), ("mlxcel-tiny", 200)] {
            let body = format!(r#"{{"model": "{model}", "max_tokens": 1, {rest}}}"#);
            let answer = address.ask("POST", path, &[HOST], &body);
            assert_eq!(answer.status, status, "{path} {model}");
        }
    }
}
