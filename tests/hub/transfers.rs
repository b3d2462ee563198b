//! Transfers that break, and what is left of them.

use std::sync::Mutex;
use std::time::Duration;

use mlxcel::hub::{HubOptions, Progress, resolve};

use super::stand_in::Fault;
use super::*;

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was() {
    let (hub, home) = (hub().await, Home::new());
    hub.fail(WEIGHTS, [Fault::Cut(40_960), Fault::Cut(20_480)]);
    let snapshot = get("o/n", &home.options(&hub)).await.unwrap();
    assert_whole(&snapshot);
    let ranges: Vec<_> = hub
        .fetches(WEIGHTS)
        .into_iter()
        .map(|request| request.range)
        .collect();
    let range = |from: u32| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, range(40_960), range(61_440)]);
}

#[tokio::test]
async fn a_later_start_goes_on_where_an_earlier_one_ended() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    hub.fail(WEIGHTS, [Fault::Stall(40_960)]);
    let partial = home
        .repo()
        .join("blobs")
        .join(format!("{}.incomplete", hex(&weights())));
    tokio::select! {
        result = get("o/n", &options) => panic!("it should hang: {result:?}"),
        () = until(|| partial.metadata().is_ok_and(|m| m.len() == 40_960)) => (),
    }
    let first = Mutex::new(None);
    let report = |progress: Progress| {
        first.lock().unwrap().get_or_insert(progress.bytes);
    };
    assert_whole(&resolve("o/n", &options, report).await.unwrap());
    assert!(
        first.into_inner().unwrap().unwrap() >= 40_960,
        "what was there counts"
    );
    assert_eq!(
        hub.fetches(WEIGHTS)[1].range.as_deref(),
        Some("bytes=40960-")
    );
}

#[tokio::test]
async fn a_silent_hub_is_asked_again() {
    let (hub, home) = (hub().await, Home::new());
    let options = HubOptions {
        timeout: Duration::from_secs(2),
        ..home.options(&hub)
    };
    hub.fail(WEIGHTS, [Fault::Stall(8192)]);
    assert_whole(&get("o/n", &options).await.unwrap());
    assert_eq!(
        hub.fetches(WEIGHTS)[1].range.as_deref(),
        Some("bytes=8192-")
    );
}

#[tokio::test]
async fn a_hub_that_ignores_ranges_does_not_spoil_the_file() {
    let (hub, home) = (hub().await, Home::new());
    hub.fail(WEIGHTS, [Fault::Cut(40_960), Fault::WholeFile]);
    assert_whole(&get("o/n", &home.options(&hub)).await.unwrap());
    assert_eq!(hub.fetches(WEIGHTS).len(), 2);
}

#[tokio::test]
async fn what_arrives_is_checked() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    hub.fail(WEIGHTS, [Fault::Damage]);
    let text = error("o/n", &options).await;
    assert!(text.contains(WEIGHTS) && text.contains("SHA-256"), "{text}");
    let blob = home.repo().join("blobs").join(hex(&weights()));
    assert!(!blob.exists() && !blob.with_extension("incomplete").exists());
    assert!(
        !home
            .repo()
            .join("snapshots")
            .join(COMMIT)
            .join("config.json")
            .exists()
    );

    // A small file has no hash to find rubbish out by, so none of it is kept.
    let config = &model()[0].1;
    let blobs = home.repo().join("blobs");
    std::fs::write(blobs.join(format!("{}.incomplete", config.etag)), [7; 10]).unwrap();
    assert_whole(&get("o/n", &options).await.unwrap());

    // Rubbish that an earlier attempt left is found out too, whatever its length.
    for rubbish in [vec![7; 1000], vec![7; 100_000], vec![7; 200_000]] {
        let home = Home::new();
        let blobs = home.repo().join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(
            blobs.join(format!("{}.incomplete", hex(&weights()))),
            rubbish,
        )
        .unwrap();
        assert_whole(&get("o/n", &home.options(&hub)).await.unwrap());
    }
}

#[tokio::test]
async fn trouble_that_passes_is_waited_for() {
    let (hub, home) = (hub().await, Home::new());
    hub.fail_listing([503, 429]);
    hub.fail(
        WEIGHTS,
        [Fault::Status(500), Fault::Status(403), Fault::Cut(0)],
    );
    hub.fail("config.json", [Fault::Status(502)]);
    assert_whole(&get("o/n", &home.options(&hub)).await.unwrap());
}

#[tokio::test]
async fn trouble_that_stays_names_the_host() {
    let (hub, home) = (hub().await, Home::new());
    hub.fail(WEIGHTS, std::iter::repeat_n(Fault::Cut(0), 10));
    let text = error("o/n", &home.options(&hub)).await;
    assert!(text.contains(&format!("127.0.0.1:{}", hub.port)), "{text}");
    assert_eq!(hub.fetches(WEIGHTS).len(), 5);
}

#[tokio::test]
async fn a_full_disk_is_noticed_before_the_first_byte() {
    let (hub, home) = (hub().await, Home::new());
    let options = HubOptions {
        free_space: |_| Ok(60_000),
        ..home.options(&hub)
    };
    let text = error("o/n", &options).await;
    let folder = home.cache();
    for part in [
        "100025 bytes",
        "60000 bytes",
        folder.to_str().unwrap(),
        "HF_HUB_CACHE",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(hub.gets().is_empty());

    // What is there already need not fit again.
    let blobs = home.repo().join("blobs");
    std::fs::write(
        blobs.join(format!("{}.incomplete", hex(&weights()))),
        &weights()[..50_000],
    )
    .unwrap();
    assert_whole(&get("o/n", &options).await.unwrap());
}
