//! What lies in the cache afterwards, and what is asked of the hub for it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use mlxcel::hub::{HubOptions, Progress, resolve};

use super::stand_in::{Fault, HubFile, hex};
use super::*;

#[tokio::test]
async fn a_download_has_the_hubs_layout_and_is_fetched_once() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    let reports = Mutex::new(Vec::<Progress>::new());
    let report = |progress| reports.lock().unwrap().push(progress);
    let snapshot = resolve("o/n", &options, report).await.unwrap();

    assert_eq!(snapshot, home.repo().join("snapshots").join(COMMIT));
    assert_whole(&snapshot);
    let blob = PathBuf::from("../../blobs").join(hex(&weights()));
    assert_eq!(std::fs::read_link(snapshot.join(WEIGHTS)).unwrap(), blob);
    assert_eq!(
        std::fs::read_to_string(home.repo().join("refs/main")).unwrap(),
        COMMIT
    );
    let mut names: Vec<_> = snapshot
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["config.json", WEIGHTS, "tokenizer.json"]);
    let blobs = home.repo().join("blobs").read_dir().unwrap();
    assert!(
        blobs
            .map(|e| e.unwrap().path())
            .all(|path| path.extension().is_none())
    );

    let reports = reports.into_inner().unwrap();
    let last = reports.last().unwrap();
    assert_eq!(
        (last.bytes, last.total),
        (100_000 + 23 + 2, 100_000 + 23 + 2)
    );
    assert!(reports.is_sorted_by_key(|report| report.bytes) && !last.waiting);

    for request in hub.log() {
        let to_the_hub = request.host.starts_with("127.0.0.1");
        let expected = to_the_hub.then(|| format!("Bearer {TOKEN}"));
        assert_eq!(request.authorization, expected, "{}", request.path);
    }

    // Again: one question whether `main` has moved, and none for a commit.
    hub.forget_log();
    let report = |progress| panic!("nothing to download, yet {progress:?}");
    assert_eq!(resolve("o/n", &options, report).await.unwrap(), snapshot);
    assert_eq!(hub.log().len(), 1);
    assert_eq!(
        get(&format!("o/n@{COMMIT}"), &options).await.unwrap(),
        snapshot
    );
    assert_eq!(hub.log().len(), 1);
}

#[tokio::test]
async fn named_templates_come_along_in_their_folder() {
    let (hub, home) = (StandIn::start().await, Home::new());
    let name = "additional_chat_templates/tool_use.jinja";
    let mut files = model();
    files.push((name, HubFile::small("{{ tools }}")));
    hub.push("o/n", "main", COMMIT, &files);
    let options = home.options(&hub);
    let snapshot = get("o/n", &options).await.unwrap();
    let template = std::fs::read_to_string(snapshot.join(name)).unwrap();
    assert_eq!(template, "{{ tools }}");
    assert!(snapshot.join(name).is_symlink());
    hub.forget_log();
    get("o/n", &options).await.unwrap();
    assert!(hub.gets().is_empty());
}

#[tokio::test]
async fn without_the_hub_the_cache_does() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    let offline = HubOptions {
        offline: true,
        ..options.clone()
    };
    let text = error("o/n", &offline).await;
    assert!(
        text.contains("HF_HUB_OFFLINE") && text.contains(home.cache().to_str().unwrap()),
        "{text}"
    );
    assert!(hub.log().is_empty());

    let snapshot = get("o/n", &options).await.unwrap();
    hub.forget_log();
    assert_eq!(get("o/n", &offline).await.unwrap(), snapshot);
    assert!(hub.log().is_empty());
    assert!(error("o/n@other", &offline).await.contains("no `other`"));

    // A hub in trouble, then none at all.
    hub.fail_listing([503, 503]);
    assert_eq!(get("o/n", &options).await.unwrap(), snapshot);
    hub.push(
        "o/n",
        "main",
        NEWER,
        &[("config.json", HubFile::small("{ }")), model()[2].clone()],
    );
    hub.fail("config.json", std::iter::repeat_n(Fault::Status(500), 5));
    assert_eq!(get("o/n", &options).await.unwrap(), snapshot);
    drop(hub);
    tokio::task::yield_now().await;
    let start = Instant::now();
    assert_eq!(get("o/n", &options).await.unwrap(), snapshot);
    assert!(
        start.elapsed() < options.timeout / 2,
        "{:?}",
        start.elapsed()
    );
    let text = error("o/other", &options).await;
    assert!(
        text.contains("127.0.0.1") && text.contains("check the network"),
        "{text}"
    );
}

#[tokio::test]
async fn revisions_are_branches_tags_and_commits() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    hub.push("o/n", "refs/pr/1", NEWER, &model());
    let snapshot = |commit: &str| home.repo().join("snapshots").join(commit);
    assert_eq!(
        get("o/n@refs/pr/1", &options).await.unwrap(),
        snapshot(NEWER)
    );
    assert_eq!(
        std::fs::read_to_string(home.repo().join("refs/refs/pr/1")).unwrap(),
        NEWER
    );
    hub.forget_log();
    assert_eq!(
        get(&format!("o/n@{COMMIT}"), &options).await.unwrap(),
        snapshot(COMMIT)
    );
    assert!(hub.gets().is_empty(), "the same blobs serve another commit");
    assert!(!home.repo().join("refs").join(COMMIT).exists());

    let text = error("o/n@nope", &options).await;
    assert!(text.contains("o/n has no revision `nope`"), "{text}");
    let text = error("o/missing", &options).await;
    assert!(text.contains("no repository o/missing"), "{text}");
    hub.without_codes();
    assert!(
        error("o/n@nope", &options)
            .await
            .contains("no revision `nope`")
    );
    assert!(
        error("o/missing@nope", &options)
            .await
            .contains("no repository o/missing")
    );
}

#[tokio::test]
async fn a_branch_that_moved_brings_only_what_changed() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    let old = get("o/n", &options).await.unwrap();
    let mut files = model();
    files[0].1 = HubFile::small(r#"{"model_type": "llama", "new": 1}"#);
    hub.push("o/n", "main", NEWER, &files);
    hub.forget_log();
    let new = get("o/n", &options).await.unwrap();
    assert_eq!(new, home.repo().join("snapshots").join(NEWER));
    let gets: Vec<_> = hub.gets().into_iter().map(|request| request.path).collect();
    assert_eq!(gets, [format!("/o/n/resolve/{NEWER}/config.json")]);
    assert_whole(&old);
}

#[tokio::test]
async fn a_long_list_of_files_is_asked_for_by_itself() {
    let (hub, home) = (hub().await, Home::new());
    hub.without_siblings();
    assert_whole(&get("o/n", &home.options(&hub)).await.unwrap());
    let tree = format!("/api/models/o/n/tree/{COMMIT}");
    assert!(hub.log().iter().any(|request| request.path == tree));
}

#[tokio::test]
async fn a_snapshot_with_a_configuration_is_whole() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    let snapshot = home.repo().join("snapshots").join(COMMIT);
    let obstacle = snapshot.join("tokenizer.json/in/the/way");
    std::fs::create_dir_all(&obstacle).unwrap();
    assert!(error("o/n", &options).await.contains("cannot create"));
    assert!(!snapshot.join("config.json").exists());
    assert!(!home.repo().join("refs/main").exists());
}

#[test]
fn a_download_can_be_spawned() {
    fn is_send(_: impl Send) {}
    let options = HubOptions::from_env();
    is_send(resolve("o/n", &options, |_| ()));
}
