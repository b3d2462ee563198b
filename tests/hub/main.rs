//! Downloads from a stand-in for the Hugging Face hub.

// Clippy knows tests by their attribute only; these helpers are tests too.
#![allow(clippy::unwrap_used)]

mod layout;
mod python;
mod refusals;
mod sharing;
mod stand_in;
mod transfers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mlxcel::hub::{HubError, HubOptions, Token, resolve};
use stand_in::{HubFile, SIGNATURE, StandIn, hex};

const COMMIT: &str = "1111111111111111111111111111111111111111";
const NEWER: &str = "2222222222222222222222222222222222222222";
const TOKEN: &str = "hf_aVerySecretToken";
const WEIGHTS: &str = "model.safetensors";

/// Bytes that no two offsets share, so that a part put in the wrong place shows.
fn weights() -> Vec<u8> {
    (0..25_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn model() -> Vec<(&'static str, HubFile)> {
    vec![
        ("config.json", HubFile::small(r#"{"model_type": "llama"}"#)),
        ("tokenizer.json", HubFile::small("{}")),
        (WEIGHTS, HubFile::large(weights())),
        ("pytorch_model.bin", HubFile::large("pickle")),
        ("README.md", HubFile::small("# A model")),
        ("onnx/model.safetensors", HubFile::large("elsewhere")),
    ]
}

async fn hub() -> StandIn {
    let hub = StandIn::start().await;
    hub.push("o/n", "main", COMMIT, &model());
    hub
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("hub")
    }

    fn repo(&self) -> PathBuf {
        self.cache().join("models--o--n")
    }

    fn options(&self, hub: &StandIn) -> HubOptions {
        HubOptions {
            cache_dir: self.cache(),
            endpoint: hub.endpoint(),
            token: Token::new(TOKEN),
            offline: false,
            home: None,
            executable: PathBuf::new(),
            timeout: Duration::from_secs(10),
            retry_delay: Duration::from_millis(5),
            free_space: |_| Ok(u64::MAX),
        }
    }
}

async fn get(model: &str, options: &HubOptions) -> Result<PathBuf, HubError> {
    resolve(model, options, |_| ()).await
}

/// The error's text, which holds no secret.
async fn error(model: &str, options: &HubOptions) -> String {
    let error = get(model, options).await.unwrap_err();
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(
            !text.contains(TOKEN) && !text.contains(SIGNATURE),
            "a secret in: {text}"
        );
    }
    error.to_string()
}

fn assert_whole(snapshot: &Path) {
    assert!(
        std::fs::read(snapshot.join(WEIGHTS)).unwrap() == weights(),
        "wrong bytes"
    );
    let config = std::fs::read_to_string(snapshot.join("config.json")).unwrap();
    assert_eq!(config, r#"{"model_type": "llama"}"#);
}

fn environment(command: &mut Command, hub: &StandIn, home: &Home) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["HF_", "HUGGINGFACE_", "TRANSFORMERS_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
        .env("HF_HOME", home.0.path())
        .env("HF_ENDPOINT", hub.endpoint())
        .env("HF_TOKEN", TOKEN);
}

async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
