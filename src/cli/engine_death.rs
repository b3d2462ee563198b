//! What becomes of the process when its engine thread dies: this test binary runs itself as a server
//! whose model panics where nothing catches it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

use super::{Cli, Command as Subcommand, serve};

/// Tells the server's process what to serve, and where.
const MODEL: &str = "MLXCEL_TEST_MORTAL_MODEL";
/// States that the model gives: the engine's own, the warm-up's, and the first request's.
const STATES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "the server's process, which the other test starts"]
fn server_process() {
    let model = std::env::var(MODEL).unwrap();
    let socket = format!("{model}/s.sock");
    let line = ["mlxcel", "serve", "-m", &model, "--host", &socket];
    let Subcommand::Serve(args) = Cli::parse_from(line).command else {
        panic!("no server");
    };
    // It leaves through `_exit`.
    serve::run(*args);
}

#[test]
fn a_dead_engine_takes_the_process_with_it() {
    let folder = mortal_model();
    let socket = folder.path().join("s.sock");
    let mut server = Server::start(folder.path());
    within("healthy", || {
        let health = get(&socket, "/health").ok()?;
        health.starts_with("HTTP/1.1 200").then_some(())
    });
    let answer = complete(&socket).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The second request is deadly. Whether a word of it is answered is a race with the process's end.
    let _cut_off = complete(&socket);
    let status = within("gone", || server.0.try_wait().unwrap());
    let mut log = String::new();
    let mut stderr = server.0.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert_eq!(status.code(), Some(serve::ENGINE_DIED), "{log}");
    let last = log.lines().last().unwrap();
    assert_eq!(
        last, "error: the engine died: the engine thread panicked; its message is above",
        "{log}"
    );
    assert!(log.contains("a forced death"), "{log}");
    assert!(UnixStream::connect(&socket).is_err(), "HTTP is still up");
}

/// The built-in model under the type that dies.
fn mortal_model() -> tempfile::TempDir {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&tiny).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let config = folder.path().join("config.json");
    let mut changed: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    changed["model_type"] = json!("mortal");
    changed["states"] = json!(STATES);
    std::fs::write(config, changed.to_string()).unwrap();
    folder
}

/// Killed when the test ends, however it ends.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "cli::engine_death::server_process"])
            .args(["--ignored", "--nocapture"])
            .env(MODEL, folder)
            .env_remove("LLAMA_API_KEY")
            .env_remove("MLXCEL_LIFELINE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already, which is what is wanted.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn complete(socket: &Path) -> io::Result<String> {
    let body = r#"{"prompt": "Once", "max_tokens": 2}"#;
    let length = body.len();
    exchange(
        socket,
        &format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    )
}

fn get(socket: &Path, path: &str) -> io::Result<String> {
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    exchange(socket, &head)
}

fn exchange(socket: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not {what} in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}
