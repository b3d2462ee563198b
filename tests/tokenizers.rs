//! Tokenizing and streaming, on the tokenizers of tests/tokenizers/build.py.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use mlxcel::text::{Detokenizer, TextError, Tokenizer, stop_token_ids};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

const FAMILIES: [&str; 4] = ["byte-level", "byte-fallback", "metaspace", "no-decoder"];

static TOKENIZERS: LazyLock<Vec<Arc<Tokenizer>>> = LazyLock::new(|| {
    FAMILIES
        .map(|name| Arc::new(Tokenizer::load(&path(name)).unwrap()))
        .into()
});

fn path(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tokenizers")
        .join(family)
}

fn family(name: &str) -> Arc<Tokenizer> {
    let index = FAMILIES.iter().position(|family| *family == name).unwrap();
    Arc::clone(&TOKENIZERS[index])
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    bare: Vec<u32>,
    decoded: String,
    shown: String,
}

#[test]
fn encodes_and_decodes_like_transformers() {
    for (name, tokenizer) in FAMILIES.iter().zip(TOKENIZERS.iter()) {
        let cases = std::fs::read_to_string(path(name).join("expected.json")).unwrap();
        for case in serde_json::from_str::<Vec<Case>>(&cases).unwrap() {
            let place = format!("{name}: {:?}", case.text);
            assert_eq!(
                tokenizer.encode(&case.text, true).unwrap(),
                case.ids,
                "{place}"
            );
            assert_eq!(
                tokenizer.encode(&case.text, false).unwrap(),
                case.bare,
                "{place}"
            );
            assert_eq!(
                tokenizer.decode(&case.ids, false).unwrap(),
                case.decoded,
                "{place}"
            );
            assert_eq!(
                tokenizer.decode(&case.ids, true).unwrap(),
                case.shown,
                "{place}"
            );
        }
    }
}

/// The text of all prefixes, streamed, against the whole decode.
fn check_stream(tokenizer: &Arc<Tokenizer>, ids: &[u32], show_special: bool) {
    let mut streamed = String::new();
    let mut detokenizer = Detokenizer::with_special(Arc::clone(tokenizer), show_special);
    for length in 0..=ids.len() {
        if length > 0 {
            streamed += &detokenizer.push(ids[length - 1]).unwrap();
        }
        let whole = tokenizer.decode(&ids[..length], !show_special).unwrap();
        let rest = detokenizer.clone().finish().unwrap();
        assert_eq!(format!("{streamed}{rest}"), whole, "{:?}", &ids[..length]);
    }
}

proptest! {
    #[test]
    fn streaming_random_tokens_equals_decoding_them(
        family in 0..FAMILIES.len(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
        show_special: bool,
    ) {
        let tokenizer = &TOKENIZERS[family];
        // Two ids more than there are tokens.
        let ids: Vec<u32> =
            picks.iter().map(|pick| pick.index(tokenizer.vocab_size() + 2) as u32).collect();
        check_stream(tokenizer, &ids, show_special);
    }

    #[test]
    fn streaming_a_text_equals_decoding_it(
        family in 0..FAMILIES.len(),
        text in "(\\PC|[ \n\té日👩\u{200d}🇩🇪]){0,16}",
        cut in 0..4usize,
    ) {
        let tokenizer = &TOKENIZERS[family];
        let mut ids = tokenizer.encode(&text, true).unwrap();
        ids.truncate(ids.len().saturating_sub(cut));
        check_stream(tokenizer, &ids, false);
    }

    #[test]
    fn token_bytes_spell_the_text(text in "\\PC{0,24}") {
        let tokenizer = family("byte-level");
        let ids = tokenizer.encode(&text, false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap()).collect();
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
}

#[test]
fn no_piece_holds_half_a_character() {
    let tokenizer = family("byte-level");
    let ids = tokenizer.encode("👩‍👩‍👧", false).unwrap();
    let mut detokenizer = Detokenizer::new(tokenizer);
    let pieces: Vec<String> = ids
        .iter()
        .map(|id| detokenizer.push(*id).unwrap())
        .collect();
    assert!(pieces.iter().any(String::is_empty) && pieces.iter().all(|p| !p.contains('\u{fffd}')));
    assert_eq!(detokenizer.finish().unwrap(), "");
    assert_eq!(pieces.concat(), "👩‍👩‍👧");
}

#[test]
fn bytes_of_single_tokens() {
    let bytes = |name: &str, token: &str| {
        let tokenizer = family(name);
        tokenizer
            .token_bytes(tokenizer.token_id(token).unwrap())
            .unwrap()
    };
    assert_eq!(bytes("byte-level", "Ġ"), b" ");
    assert_eq!(bytes("byte-level", "ÿ"), [0xff]);
    assert_eq!(bytes("byte-level", "<|end|>"), b"<|end|>");
    assert_eq!(bytes("byte-fallback", "<0xE2>"), [0xe2]);
    assert_eq!(bytes("byte-fallback", "▁"), b" ");
    assert_eq!(bytes("byte-fallback", "<tool_call>"), b"<tool_call>");
    assert_eq!(bytes("metaspace", "▁"), b" ");
    let tokenizer = family("byte-level");
    assert_eq!(tokenizer.token_bytes(tokenizer.vocab_size() as u32), None);
    assert!(tokenizer.is_special(tokenizer.token_id("<|end|>").unwrap()));
    assert!(!tokenizer.is_special(tokenizer.token_id("<tool_call>").unwrap()));
    assert_eq!(
        (tokenizer.bos_token(), tokenizer.eos_token()),
        (Some("<|bos|>"), Some("<|end|>"))
    );
}

#[test]
fn every_byte_has_its_place_in_the_alphabet() {
    let tokenizer = family("byte-level");
    let mut bytes: Vec<u8> = (0..tokenizer.vocab_size() as u32)
        .filter_map(|id| tokenizer.token_bytes(id))
        .filter_map(|bytes| <[u8; 1]>::try_from(bytes).ok())
        .map(|[byte]| byte)
        .collect();
    bytes.sort_unstable();
    assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
}

/// A model folder with a tokenizer and the given JSON files.
fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(path("byte-level").join(name), dir.path().join(name)).unwrap();
    }
    for (name, json) in files {
        std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    }
    dir
}

#[test]
fn stop_tokens_of_all_files_together() {
    let end = family("byte-level").token_id("<|end|>").unwrap();
    let stops = |files: &[(&str, Value)]| {
        let dir = folder(files);
        stop_token_ids(dir.path(), &Tokenizer::load(dir.path()).unwrap())
    };
    assert_eq!(stops(&[]).unwrap(), [end]);
    let files = [
        ("generation_config.json", json!({"eos_token_id": [7, 9]})),
        (
            "config.json",
            json!({"eos_token_id": 9, "text_config": {"eos_token_id": 11}}),
        ),
    ];
    assert_eq!(stops(&files).unwrap(), [7, 9, 11, end]);
    assert_eq!(
        stops(&[("config.json", json!({"eos_token_id": null}))]).unwrap(),
        [end]
    );
    let error = stops(&[("config.json", json!({"eos_token_id": "</s>"}))]).unwrap_err();
    assert!(
        error.to_string().contains("config.json: eos_token_id"),
        "{error}"
    );
}

#[test]
fn the_configuration_names_special_tokens() {
    // An object with `content`, a token that tokenizer.json does not mark, one it does not have.
    let config = json!({
        "bos_token": {"content": "<|bos|>", "lstrip": false},
        "eos_token": "Ġthe",
        "pad_token": "<|nowhere|>",
    });
    let dir = folder(&[("tokenizer_config.json", config)]);
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(tokenizer.bos_token(), Some("<|bos|>"));
    assert!(tokenizer.is_special(tokenizer.token_id("Ġthe").unwrap()));
    assert_eq!(tokenizer.token_id("<|nowhere|>"), None);
    assert_eq!(tokenizer.vocab_size(), family("byte-level").vocab_size());

    let dir = folder(&[
        ("tokenizer_config.json", json!({})),
        (
            "special_tokens_map.json",
            json!({"eos_token": {"content": "<|bos|>"}}),
        ),
    ]);
    assert_eq!(
        Tokenizer::load(dir.path()).unwrap().eos_token(),
        Some("<|bos|>")
    );
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = Tokenizer::load(empty.path()).unwrap_err();
    assert!(matches!(&error, TextError::NoTokenizer { .. }), "{error}");
    std::fs::write(empty.path().join("tokenizer.model"), "x").unwrap();
    assert!(
        Tokenizer::load(empty.path())
            .unwrap_err()
            .to_string()
            .contains("convert")
    );
    std::fs::write(empty.path().join("tokenizer.json"), "{\"version\": 3").unwrap();
    let error = Tokenizer::load(empty.path()).unwrap_err();
    assert!(matches!(&error, TextError::Invalid { .. }), "{error}");

    let json = std::fs::read_to_string(path("byte-level").join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    json["decoder"] =
        json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "|", "cleanup": true});
    let dir = folder(&[("tokenizer.json", json)]);
    let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("CTC"), "{error}");
}
