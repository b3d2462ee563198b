//! `GET /lease` and `--exit-when-idle`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Address, ENDLESS, MODEL, Server, Stream, command, within};

/// How long a server of these tests stays unused.
const IDLE: Duration = Duration::from_secs(3);

fn idle_server(host: &str) -> (Server, Address) {
    let mut server = Server::start(command(MODEL, host).args(["--exit-when-idle", "3"]));
    let address = server.ready();
    (server, address)
}

/// Takes a lease and reads the line that names it.
fn lease(address: &Address) -> BufReader<Box<dyn Stream>> {
    let mut stream = BufReader::new(address.request("GET", "/lease", ""));
    let mut line = String::new();
    while !line.starts_with("{\"lease\":") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "no lease came");
    }
    stream
}

#[test]
fn a_server_that_nobody_uses_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let (mut server, _) = idle_server(socket.to_str().unwrap());
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("nobody uses this server"), "{log}");
    assert!(!socket.exists());
}

#[test]
fn leases_and_requests_keep_a_server_up_and_looking_at_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    for host in [socket.to_str().unwrap(), "127.0.0.1"] {
        let (mut server, address) = idle_server(host);
        let (one, two) = (lease(&address), lease(&address));
        assert_eq!(address.prop("/leases"), 2);
        drop(one);
        within(|| (address.prop("/leases") == 1).then_some(()));
        std::thread::sleep(IDLE * 2);
        assert_eq!(server.0.try_wait().unwrap(), None);

        // Longer than the idle time, and nothing of it is read.
        let request = address.request("POST", "/v1/completions", ENDLESS);
        within(|| (address.prop("/busy_slots") == 1).then_some(()));
        drop(two);
        let started = Instant::now();
        while started.elapsed() < IDLE * 2 && address.prop("/busy_slots") == 1 {
            assert_eq!(server.0.try_wait().unwrap(), None);
            std::thread::sleep(IDLE / 20);
        }
        drop(request);
        // Somebody looks at it all the while, in vain.
        within(|| {
            address.try_request("GET", "/health", "").err()?;
            Some(())
        });
        let (code, log) = server.ended();
        assert_eq!(code, Some(0), "{log}");
    }
}

/// A process that holds a lease, and dies without a word.
#[test]
fn a_lease_ends_with_the_process_that_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    for host in [socket.to_str().unwrap(), "127.0.0.1"] {
        let mut server = Server::start(&mut command(MODEL, host));
        let address = server.ready();
        let mut holder = holder(&address);
        within(|| (address.prop("/leases") == 1).then_some(()));
        holder.0.kill().unwrap();
        within(|| (address.prop("/leases") == 0).then_some(()));
    }
}

/// A child that has taken a lease of its own: this test's program, told to run nothing but `holder`.
fn holder(address: &Address) -> Server {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lease::hold", "--ignored", "--nocapture"])
        .env("LEASE_FROM", &address.0)
        .stdout(Stdio::null())
        .spawn();
    Server(child.unwrap())
}

#[test]
#[ignore = "the other side of `a_lease_ends_with_the_process_that_holds_it`"]
fn hold() {
    let address = Address(std::env::var("LEASE_FROM").unwrap());
    let mut stream = lease(&address);
    let mut line = String::new();
    while stream.read_line(&mut line).unwrap() > 0 {}
}

#[test]
fn a_lease_can_be_had_while_the_model_loads_and_does_not_hold_up_the_end() {
    let hub = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", hub.local_addr().unwrap());
    let mut loading = Server::start(
        command("owner/name", "127.0.0.1")
            .env("HF_ENDPOINT", endpoint)
            .env("HF_HOME", dir.path()),
    );
    let address = loading.address();
    assert_eq!(address.status("/props"), 503);
    drop(lease(&address));

    let mut server = Server::start(&mut command(MODEL, "127.0.0.1"));
    let address = server.ready();
    let mut held = lease(&address);
    server.signal(libc::SIGTERM);
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("cut off"), "{log}");
    // Ended as a whole answer, not broken off.
    let mut rest = String::new();
    held.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
}

#[test]
fn leases_are_bounded_and_want_the_key() {
    let mut server = Server::start(command(MODEL, "127.0.0.1").env("LLAMA_API_KEY", "secret"));
    let address = server.ready();
    assert_eq!(address.status("/lease"), 401);

    let mut server = Server::start(&mut command(MODEL, "127.0.0.1"));
    let address = server.ready();
    let mut held: Vec<_> = (0..128).map(|_| lease(&address)).collect();
    let (status, body) = address.get("/lease");
    assert_eq!(status, 503);
    assert!(body.contains("too_many_leases"), "{body}");
    held.pop();
    within(|| (address.prop("/leases") == 127).then_some(()));
    held.push(lease(&address));
}
