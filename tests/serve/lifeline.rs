//! `MLXCEL_LIFELINE`: the server ends with its owner.

use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::process::{ENDLESS, MODEL, Server, command, within};

/// Lets a child inherit the reading end of a pipe, and tells it that `owner` holds the other.
fn tie(command: &mut Command, owner: u32) -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let descriptor = reader.as_raw_fd();
    command.env("MLXCEL_LIFELINE", format!("{descriptor}:{owner}"));
    let inherit = move || {
        // SAFETY: clears a flag of a descriptor; for one that is not open it fails.
        match unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(inherit) };
    (reader, writer)
}

/// Starts an owner: a shell that becomes the parent of the server and then does what `script` says.
fn owned(script: &str, server: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(script)
        .arg("sh")
        .arg(server.get_program());
    shell.args(server.get_args());
    shell.env_remove("LLAMA_API_KEY");
    shell
}

#[test]
fn the_server_ends_with_the_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let mut command = command(MODEL, socket.to_str().unwrap());
    let (reader, writer) = tie(&mut command, std::process::id());
    let mut server = Server::start(&mut command);
    drop(reader);
    let address = server.ready();
    assert_eq!(address.status("/props"), 200);
    // A request that would run for long does not hold it up, although its client stays.
    let _request = address.request("POST", "/v1/completions", ENDLESS);
    within(|| (address.prop("/busy_slots") == 1).then_some(()));
    drop(writer);
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("started this server is gone"), "{log}");
    assert!(!socket.exists());
}

#[test]
fn the_server_ends_while_it_loads() {
    let hub = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let mut command = command("owner/name", socket.to_str().unwrap());
    command
        .env(
            "HF_ENDPOINT",
            format!("http://{}", hub.local_addr().unwrap()),
        )
        .env("HF_HOME", dir.path());
    let (reader, writer) = tie(&mut command, std::process::id());
    let mut server = Server::start(&mut command);
    drop(reader);
    let address = server.address();
    assert_eq!(address.status("/health"), 503);
    drop(writer);
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(!socket.exists());
}

/// The owner is killed, and the pipe's other end lives on in a process that it left behind.
#[test]
fn the_server_ends_with_its_parent_although_the_pipe_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    // The server is started in the background, so that the shell stays its parent.
    let script = r#"MLXCEL_LIFELINE="$LIFE:$$" "$@" & wait"#;
    let mut shell = owned(script, &command(MODEL, socket.to_str().unwrap()));
    let (reader, writer) = tie(&mut shell, 0);
    shell.env("LIFE", reader.as_raw_fd().to_string());
    shell.env_remove("MLXCEL_LIFELINE");
    let mut owner = Server::start(&mut shell);
    within(|| socket.exists().then_some(()));
    let address = crate::process::Address::unix(&socket);
    within(|| (address.status("/health") == 200).then_some(()));
    let pid: libc::pid_t = address.prop("/pid").as_i64().unwrap().try_into().unwrap();
    owner.0.kill().unwrap();
    owner.0.wait().unwrap();
    // SAFETY: signal 0 only asks whether the process is there.
    within(|| (unsafe { libc::kill(pid, 0) } == -1).then_some(()));
    assert!(!socket.exists());
    drop((reader, writer));
}

#[test]
fn a_value_that_makes_no_sense_is_an_error() {
    for value in ["", "x", "7", "99999:1", "1:1"] {
        let mut command = command(MODEL, "127.0.0.1");
        let mut server = Server::start(command.env("MLXCEL_LIFELINE", value));
        let (code, log) = server.ended();
        assert_eq!(code, Some(1), "{value}");
        assert!(log.starts_with("error: MLXCEL_LIFELINE"), "{log}");
    }
}

/// A client decides by these words whether a binary can do it, without running it.
#[test]
fn the_binary_holds_the_words_that_tell_what_it_can() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_mlxcel")).unwrap();
    for word in ["MLXCEL_LIFELINE", "exit-when-idle", "--exit-when-idle"] {
        let found = binary
            .windows(word.len())
            .any(|window| window == word.as_bytes());
        assert!(found, "{word}");
    }
}
