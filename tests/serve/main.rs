//! The command as a process: what only a process shows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that is killed when the test ends, however it ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already, which is what is wanted.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn serve(socket: &Path) -> Server {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tiny-model/mlxcel-tiny");
    let child = Command::new(env!("CARGO_BIN_EXE_mlxcel"))
        .args([
            "serve",
            "-m",
            model,
            "--port",
            "0",
            "--log-level",
            "trace",
            "--host",
        ])
        .arg(socket)
        .env_remove("LLAMA_API_KEY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Server(child.unwrap())
}

fn status(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned()
}

fn within<T>(mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_whose_output_nobody_reads_any_more_answers_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let mut server = serve(&socket);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains(r#""event":"listening""#), "{line}");
    drop(server.0.stderr.take());

    within(|| (status(&socket, "/health") == "200").then_some(()));
    assert_eq!(status(&socket, "/v1/models"), "200");
    let pid = i32::try_from(server.0.id()).unwrap();
    // SAFETY: sends a signal to a child that has not been waited for, so that the id is still its.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    let ended = within(|| server.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert!(!socket.exists());
}
