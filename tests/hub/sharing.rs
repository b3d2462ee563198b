//! One download for many starters.

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use mlxcel::hub::{HubOptions, Progress, resolve};

use super::stand_in::{Fault, StandIn};
use super::*;

#[tokio::test]
async fn ten_tasks_share_one_download() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    hub.fail(WEIGHTS, [Fault::Slow(Duration::from_millis(20))]);
    let waited = Mutex::new(Vec::new());
    let report = |progress: Progress| {
        if progress.waiting {
            waited.lock().unwrap().push(progress);
        }
    };
    let starts = (0..10).map(|_| resolve("o/n", &options, report));
    for snapshot in futures::future::join_all(starts).await {
        assert_whole(&snapshot.unwrap());
    }
    assert_eq!(
        hub.gets().len(),
        3,
        "each file is fetched once: {:?}",
        hub.gets()
    );
    assert_eq!(hub.fetches(WEIGHTS).len(), 1);
    let waited = waited.into_inner().unwrap();
    assert!(
        waited
            .iter()
            .any(|progress| progress.file == WEIGHTS && progress.bytes > 8192)
    );
}

#[tokio::test]
async fn several_processes_share_one_download() {
    let (hub, home) = (hub().await, Home::new());
    hub.fail(WEIGHTS, [Fault::Slow(Duration::from_millis(50))]);
    let children: Vec<_> = (0..4).map(|_| starter(&hub, &home)).collect();
    for child in children {
        let wait = tokio::task::spawn_blocking(|| child.wait_with_output());
        let output = wait.await.unwrap().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    assert_eq!(
        hub.gets().len(),
        3,
        "each file is fetched once: {:?}",
        hub.gets()
    );
    assert_eq!(hub.fetches(WEIGHTS).len(), 1);
    assert_whole(&home.repo().join("snapshots").join(COMMIT));
}

#[tokio::test]
async fn a_killed_process_holds_nobody_up() {
    let (hub, home) = (hub().await, Home::new());
    hub.fail(WEIGHTS, [Fault::Stall(40_960)]);
    let mut child = starter(&hub, &home);
    let partial = home
        .repo()
        .join("blobs")
        .join(format!("{}.incomplete", hex(&weights())));
    until(|| partial.metadata().is_ok_and(|m| m.len() == 40_960)).await;

    let options = home.options(&hub);
    let waiting = Mutex::new(false);
    let report = |progress: Progress| *waiting.lock().unwrap() |= progress.waiting;
    let kill = async {
        until(|| *waiting.lock().unwrap()).await;
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let (snapshot, ()) = tokio::join!(resolve("o/n", &options, report), kill);
    assert_whole(&snapshot.unwrap());
    assert_eq!(
        hub.fetches(WEIGHTS)[1].range.as_deref(),
        Some("bytes=40960-")
    );
}

/// A process of its own that resolves `o/n`, by [`a_starter`].
fn starter(hub: &StandIn, home: &Home) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "sharing::a_starter", "--ignored", "--nocapture"]);
    environment(&mut command, hub, home);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "not a test: the process that other tests start"]
async fn a_starter() {
    get("o/n", &HubOptions::from_env()).await.unwrap();
}
