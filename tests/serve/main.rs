//! The command as a process: what only a process shows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

mod access;
mod drain;
mod lease;
mod lifeline;
mod limits;
mod log;
mod process;

use process::{MODEL, Server, command, within};

#[test]
fn a_server_whose_output_nobody_reads_any_more_answers_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let mut server =
        Server::start(command(MODEL, socket.to_str().unwrap()).args(["--log-level", "trace"]));
    let address = server.address();
    drop(server.0.stderr.take());

    within(|| (address.status("/health") == 200).then_some(()));
    assert_eq!(address.status("/v1/models"), 200);
    server.signal(libc::SIGTERM);
    let ended = within(|| server.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert!(!socket.exists());
}
