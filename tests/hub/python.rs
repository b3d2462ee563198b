//! The same cache, shared with Python's `huggingface_hub`.

use std::path::Path;
use std::process::Command;

use axum::http::Method;
use mlxcel::hub::HubOptions;

use super::stand_in::StandIn;
use super::*;

/// Python's own library finds what we downloaded, and has nothing to add to it.
#[tokio::test]
async fn python_finds_our_download() {
    let (hub, home) = (hub().await, Home::new());
    let snapshot = get("o/n", &home.options(&hub)).await.unwrap();
    let script = "from huggingface_hub import snapshot_download as get
print(get('o/n', local_files_only=True))";
    assert_eq!(
        python(script, &hub, &home).await,
        snapshot.to_str().unwrap()
    );

    hub.forget_log();
    let script = "from huggingface_hub import snapshot_download as get
print(get('o/n', allow_patterns=['*.json', 'model*.safetensors']))";
    assert_eq!(
        python(script, &hub, &home).await,
        snapshot.to_str().unwrap()
    );
    assert!(hub.gets().is_empty(), "{:?}", hub.gets());
}

/// What Python's library downloaded is not fetched again, and what it left half done is completed.
#[tokio::test]
async fn pythons_download_is_found() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    let offline = HubOptions {
        offline: true,
        ..options.clone()
    };
    let some = "from huggingface_hub import snapshot_download as get
print(get('o/n', allow_patterns=['config.json', 'model.safetensors']))";
    let snapshot = python(some, &hub, &home).await;
    let text = error("o/n", &offline).await;
    assert!(text.contains("tokenizer.json was not downloaded"), "{text}");

    let all = "from huggingface_hub import snapshot_download as get\nprint(get('o/n'))";
    assert_eq!(python(all, &hub, &home).await, snapshot);
    hub.forget_log();
    assert_eq!(get("o/n", &offline).await.unwrap(), Path::new(&snapshot));
    assert_eq!(get("o/n", &options).await.unwrap(), Path::new(&snapshot));
    assert!(
        hub.log()
            .iter()
            .all(|request| request.path.starts_with("/api/"))
    );
    assert!(
        hub.log()
            .iter()
            .all(|request| request.method == Method::GET)
    );
    assert_whole(Path::new(&snapshot));
}

/// Runs a script with the `.venv` that `make setup` makes.
async fn python(script: &str, hub: &StandIn, home: &Home) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let mut command = Command::new(&python);
    command
        .args(["-c", script])
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1");
    environment(&mut command, hub, home);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap();
    let output = output.unwrap_or_else(|error| panic!("{python:?}: {error}"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
