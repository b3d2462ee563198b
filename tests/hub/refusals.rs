//! What cannot be downloaded, and what is said about it.

use mlxcel::hub::{HubOptions, Token};

use super::stand_in::HubFile;
use super::*;

#[tokio::test]
async fn refusals_say_what_to_do() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    let nobody = HubOptions {
        token: None,
        ..options.clone()
    };

    hub.refuse("o/private", 401, Some("RepoNotFound"));
    assert!(
        error("o/private", &options)
            .await
            .contains("renew HF_TOKEN")
    );
    assert!(
        error("o/private", &nobody)
            .await
            .contains("set HF_TOKEN to a token")
    );
    hub.refuse("o/forbidden", 403, None);
    assert!(
        error("o/forbidden", &options)
            .await
            .contains("forbids reading o/forbidden (403)")
    );
    hub.refuse("o/hidden", 403, Some("GatedRepo"));
    assert!(
        error("o/hidden", &options)
            .await
            .contains("accept its licence")
    );

    hub.push("o/gated", "main", COMMIT, &model());
    hub.gate("o/gated");
    let text = error("o/gated", &options).await;
    assert!(
        text.contains(&format!("accept its licence at {}/o/gated", hub.endpoint())),
        "{text}"
    );
    assert!(text.contains("HF_TOKEN"), "{text}");

    let broken = HubOptions {
        token: Token::new("hf_\u{1}bad"),
        ..options.clone()
    };
    let text = error("o/n", &broken).await;
    assert!(
        text.contains("set HF_TOKEN anew") && !text.contains("bad"),
        "{text}"
    );
    let nowhere = HubOptions {
        endpoint: "huggingface.co".to_owned(),
        ..options
    };
    assert!(error("o/n", &nowhere).await.contains("HF_ENDPOINT"));
}

#[tokio::test]
async fn a_copy_in_the_cache_is_offered_when_the_hub_refuses() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    get("o/n", &options).await.unwrap();
    hub.refuse("o/n", 401, Some("RepoNotFound"));
    assert!(error("o/n", &options).await.contains("HF_HUB_OFFLINE=1"));
}

#[tokio::test]
async fn repositories_without_safetensors_name_their_formats() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    let config = ("config.json", HubFile::small("{}"));
    let pickle = ("pytorch_model.bin", HubFile::large("pickle"));
    let gguf = ("q4.gguf", HubFile::large("gguf"));
    hub.push("o/other", "main", COMMIT, &[config.clone(), pickle, gguf]);
    let text = error("o/other", &options).await;
    assert!(text.contains("GGUF, PyTorch .bin"), "{text}");
    hub.push("o/empty", "main", COMMIT, &[config]);
    assert!(
        error("o/empty", &options)
            .await
            .contains("no *.safetensors file")
    );
    hub.push("o/bare", "main", COMMIT, &[(WEIGHTS, HubFile::large("w"))]);
    assert!(error("o/bare", &options).await.contains("no config.json"));
    assert!(
        hub.log()
            .iter()
            .all(|request| request.path.starts_with("/api/"))
    );
    assert!(
        !home.cache().exists(),
        "nothing is written for what cannot be loaded"
    );
}

#[tokio::test]
async fn names_that_would_leave_the_cache_are_refused() {
    let (hub, home) = (hub().await, Home::new());
    let options = home.options(&hub);
    let mut evil = HubFile::large("w");
    evil.etag = format!("..{}", "x".repeat(62));
    hub.push(
        "o/evil",
        "main",
        COMMIT,
        &[("config.json", HubFile::small("{}")), (WEIGHTS, evil)],
    );
    assert!(error("o/evil", &options).await.contains("has no ETag"));
    hub.push("o/commit", "main", "../../../commit", &model());
    assert!(
        error("o/commit", &options)
            .await
            .contains("names no commit")
    );
}
