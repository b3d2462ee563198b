//! Who gets in: keys, names, sites.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::process::{MODEL, Server, command, within};

const HOST: &str = "Host: localhost";

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}")
}

#[test]
fn several_keys_open_and_the_file_is_read_anew_at_a_signal() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one\ntwo\n").unwrap();
    let mut command = command(MODEL, "127.0.0.1");
    let mut server = Server::start(command.arg("--api-key-file").arg(file.path()));
    let address = server.ready();
    let status = |head: &str| address.ask("GET", "/v1/models", &[HOST, head], "").status;
    for head in [&bearer("one"), &bearer("two"), "x-api-key: two"] {
        assert_eq!(status(head), 200, "{head}");
    }
    for head in [&bearer("three"), "x-api-key: t", "X-Nothing: one"] {
        assert_eq!(status(head), 401, "{head}");
    }

    std::fs::write(file.path(), "three\n").unwrap();
    assert_eq!(status(&bearer("three")), 401);
    server.signal(libc::SIGHUP);
    within(|| (status(&bearer("three")) == 200).then_some(()));
    assert_eq!(status(&bearer("one")), 401);

    // Nothing to read is no open door.
    std::fs::write(file.path(), "").unwrap();
    server.signal(libc::SIGHUP);
    let mut log = String::new();
    let mut lines = BufReader::new(server.0.stderr.take().unwrap());
    while !log.contains("the API keys stay as they were") {
        assert_ne!(lines.read_line(&mut log).unwrap(), 0, "{log}");
    }
    assert_eq!(status(&bearer("three")), 200);
    assert_eq!(status("X-Nothing: one"), 401);
    server.signal(libc::SIGTERM);
    lines.read_to_string(&mut log).unwrap();
    let ended = within(|| server.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0), "{log}");
    for key in ["one", "two", "three"] {
        assert!(!log.contains(&bearer(key)), "{log}");
    }
}

#[test]
fn everything_but_health_and_root_wants_the_key() {
    let mut server = Server::start(command(MODEL, "127.0.0.1").env("LLAMA_API_KEY", "secret"));
    let address = server.ready();
    let root: serde_json::Value = serde_json::from_str(&address.get("/").1).unwrap();
    let routes = root["routes"].as_array().unwrap();
    assert!(routes.len() > 9, "{root}");
    for route in routes {
        let (method, path) = route.as_str().unwrap().split_once(' ').unwrap();
        let answer = address.ask(method, path, &[HOST], "");
        match path {
            "/" | "/health" => assert_eq!(answer.status, 200, "{path}"),
            _ => {
                assert_eq!(answer.status, 401, "{path}");
                // Anthropic's envelope has a type and no code.
                let expected = match path.starts_with("/v1/messages") {
                    true => "authentication_error",
                    false => "invalid_api_key",
                };
                assert!(answer.body.contains(expected), "{path}: {}", answer.body);
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
    }
    assert_eq!(address.ask("GET", "/nowhere", &[HOST], "").status, 401);
    assert_eq!(address.ask("OPTIONS", "/props", &[HOST], "").status, 401);
}

#[test]
fn other_machines_are_served_with_a_key_or_on_demand_only() {
    let mut open = Server::start(&mut command(MODEL, "0.0.0.0"));
    let (code, log) = open.ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("--insecure"), "{log}");
    for change in ["key", "insecure"] {
        let mut command = command(MODEL, "0.0.0.0");
        match change {
            "key" => command.env("LLAMA_API_KEY", "secret"),
            _ => command.arg("--insecure"),
        };
        let mut server = Server::start(&mut command);
        server.address();
    }
}

#[test]
fn a_site_that_takes_this_machines_address_is_refused() {
    let mut server =
        Server::start(command(MODEL, "127.0.0.1").args(["--allowed-hosts", "box.lan,llm.example"]));
    let address = server.ready();
    let get = |host: &str| address.ask("GET", "/v1/models", &[&format!("Host: {host}")], "");
    for host in [
        "localhost:80",
        "127.0.0.1",
        "[::1]:1",
        "box.lan",
        "LLM.example:443",
    ] {
        assert_eq!(get(host).status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "x.box.lan"] {
        let answer = get(host);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "host_not_allowed")
        );
        assert!(answer.body.contains("--allowed-hosts"), "{}", answer.body);
    }
}

#[test]
fn a_socket_has_no_name_that_a_site_could_take() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let mut server = Server::start(&mut command(MODEL, socket.to_str().unwrap()));
    let address = server.ready();
    let answer = address.ask("GET", "/v1/models", &["Host: any.example"], "");
    assert_eq!(answer.status, 200);
    assert!(Path::new(&socket).exists());
}

#[test]
fn scripts_of_other_sites_are_let_in_by_name_only() {
    let body = r#"{"content": "a"}"#;
    let good = "Origin: https://good.example";
    let evil = "Origin: https://evil.example";
    let preflight = "Access-Control-Request-Method: POST";
    let allowed = "access-control-allow-origin";

    let mut closed = Server::start(&mut command(MODEL, "127.0.0.1"));
    let address = closed.ready();
    let answer = address.ask("POST", "/tokenize", &[HOST, good], body);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "origin_not_allowed")
    );
    let answer = address.ask("GET", "/v1/models", &[HOST, good], "");
    assert_eq!((answer.status, answer.header(allowed)), (200, None));
    let answer = address.ask("OPTIONS", "/tokenize", &[HOST, good, preflight], "");
    assert_eq!((answer.status, answer.header(allowed)), (405, None));

    let mut command = command(MODEL, "127.0.0.1");
    command.env("LLAMA_API_KEY", "secret");
    let mut open = Server::start(command.args(["--allowed-origins", "https://good.example"]));
    let address = open.ready();
    let answer = address.ask("OPTIONS", "/tokenize", &[HOST, good, preflight], "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header(allowed), Some("https://good.example"));
    let key = bearer("secret");
    let answer = address.ask("POST", "/tokenize", &[HOST, good, &key], body);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header(allowed), Some("https://good.example"));
    assert!(answer.header("access-control-expose-headers").is_some());
    for method in ["OPTIONS", "POST"] {
        let answer = address.ask(method, "/tokenize", &[HOST, evil, preflight, &key], body);
        assert_eq!(answer.header(allowed), None, "{method}");
    }
}
