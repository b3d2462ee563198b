//! Tokenizing and streaming, on the tokenizers of tests/tokenizers/build.py.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use mlxcel::text::{Detokenizer, StopMatcher, TextError, Tokenizer, stop_token_ids};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

const FAMILIES: [&str; 6] = [
    "byte-level",
    "byte-fallback",
    "metaspace",
    "no-decoder",
    "sentencepiece",
    "vocab-merges",
];

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
    fn a_stop_string_cuts_the_stream_where_it_cuts_the_whole(
        family in 0..FAMILIES.len(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..24),
        at: prop::sample::Index,
        length in 1..5usize,
        other in "[a-e<é\u{fffd} ]{1,3}",
    ) {
        let tokenizer = &TOKENIZERS[family];
        let ids: Vec<u32> =
            picks.iter().map(|pick| pick.index(tokenizer.vocab_size()) as u32).collect();
        let whole = tokenizer.decode(&ids, true).unwrap();
        let chars: Vec<char> = whole.chars().collect();
        let start = if chars.is_empty() { 0 } else { at.index(chars.len()) };
        let stops: Vec<String> = vec![chars.iter().skip(start).take(length).collect(), other];
        // The first one to be complete; of those that end together the longest.
        let ends = stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| {
            whole.find(stop.as_str()).map(|begin| (begin + stop.len(), begin))
        });
        let expected = ends.min().map_or(whole.as_str(), |(_, begin)| &whole[..begin]);

        let mut matcher = StopMatcher::new(stops.clone());
        let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer));
        let mut shown = String::new();
        for id in &ids {
            shown += &matcher.push(&detokenizer.push(*id).unwrap()).text;
        }
        shown += &matcher.push(&detokenizer.finish().unwrap()).text;
        shown += &matcher.finish();
        prop_assert_eq!(shown, expected, "{:?}", stops);
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
    let error = |files: &[(&str, &[u8])]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        Tokenizer::load(dir.path()).unwrap_err()
    };
    for (files, what) in [
        (&[] as &[(&str, &[u8])], "copy it from"),
        (&[("vocab.json", b"{}")], "merges.txt is missing"),
        (&[("merges.txt", b"")], "vocab.json is missing"),
        (
            &[("vocab.json", b"{}"), ("merges.txt", b"")],
            "without a tokenizer_class",
        ),
        (
            &[("qwen.tiktoken", b"IQ== 0\n")],
            "qwen.tiktoken is of another kind",
        ),
        (&[("tekken.json", b"{}")], "tekken.json is of another kind"),
        (
            &[("tokenizer.model", b"IQ== 0\nIg== 1\n")],
            "vocabulary of tiktoken",
        ),
    ] {
        let error = error(files);
        let found = matches!(&error, TextError::NoTokenizer { .. });
        assert!(found && error.to_string().contains(what), "{error}");
    }
    let gpt2 = (
        "tokenizer_config.json",
        br#"{"tokenizer_class": "GPT2TokenizerFast"}"#,
    );
    let other = (
        "tokenizer_config.json",
        br#"{"tokenizer_class": "CodeTokenizer"}"#,
    );
    let vocab = ("vocab.json", br#"{"a": 0, "b": 1, "ab": 2}"#);
    for (files, what) in [
        (
            &[("tokenizer.json", b"{\"version\": 3" as &[u8])] as &[(&str, &[u8])],
            "tokenizer.json",
        ),
        (&[("tokenizer.model", b"x")], "not a SentencePiece model"),
        (
            &[
                (gpt2.0, gpt2.1),
                (vocab.0, vocab.1),
                ("merges.txt", b"#version: 0.2\na b\nab a\n"),
            ],
            "line 3",
        ),
        (
            &[
                (gpt2.0, gpt2.1),
                (vocab.0, vocab.1),
                ("merges.txt", b"ab\n"),
            ],
            "line 1: not two tokens",
        ),
        (
            &[
                (gpt2.0, gpt2.1),
                ("vocab.json", b"{\"a\": -1}"),
                ("merges.txt", b""),
            ],
            "has no token id",
        ),
        (
            &[(other.0, other.1), (vocab.0, vocab.1), ("merges.txt", b"")],
            "of a CodeTokenizer",
        ),
    ] {
        let error = error(files).to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_decoder_that_cannot_be_streamed_is_named() {
    let json = std::fs::read_to_string(path("byte-level").join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    json["decoder"] =
        json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "|", "cleanup": true});
    let dir = folder(&[("tokenizer.json", json)]);
    let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("CTC"), "{error}");
}

/// `ModelProto { normalizer_spec { .. }, trainer_spec { .. } }` around the pieces of a real model.
fn changed_model(trainer: &[u8], normalizer: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut model = std::fs::read(path("sentencepiece").join("tokenizer.model")).unwrap();
    // A message that comes twice: the later one counts.
    for (key, message) in [(0x12, trainer), (0x1a, normalizer)] {
        model.extend([key, message.len() as u8]);
        model.extend(message);
    }
    std::fs::write(dir.path().join("tokenizer.model"), model).unwrap();
    Tokenizer::load(dir.path()).unwrap_err().to_string()
}

#[test]
fn what_a_sentencepiece_model_asks_too_much_is_named() {
    assert!(changed_model(&[0x18, 3], &[]).contains("a model of words"));
    assert!(changed_model(&[0x18, 2, 0xc0, 0x01, 1], &[]).contains("treat_whitespace_as_suffix"));
    assert!(changed_model(&[0x18, 2], &[0x28, 0]).contains("escape_whitespaces"));
}

#[test]
fn a_charsmap_that_cannot_be_read_is_named() {
    let cut_off: [&[u8]; 4] = [
        &[0x12, 1, 9],
        &[0x12, 4, 0xff, 0xff, 0xff, 0x7f],
        &[0x12, 6, 4, 0, 0, 0, 1, 2],
        &[0x12, 9, 4, 0, 0, 0, 0, 0, 0, 0, 0xff],
    ];
    for charsmap in cut_off {
        assert!(changed_model(&[0x18, 2], charsmap).contains("precompiled_charsmap"));
    }
}

#[test]
fn a_sentencepiece_model_names_its_own_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let model = path("sentencepiece").join("tokenizer.model");
    std::fs::copy(model, dir.path().join("tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(
        (tokenizer.bos_token(), tokenizer.eos_token()),
        (Some("<s>"), Some("</s>"))
    );
    assert_eq!(stop_token_ids(dir.path(), &tokenizer).unwrap(), [2]);
    // No `add_bos_token`: nothing is put in front, as transformers 5 has it.
    assert!(tokenizer.encode("", true).unwrap().is_empty());
    let size = tokenizer.vocab_size();
    let config = json!({
        "bos_token": null,
        "added_tokens_decoder": {
            "2": {"content": "<|renamed|>", "special": true},
            (size.to_string()): {"content": "<|next|>", "special": true},
            (size + 7).to_string(): {"content": "<|far|>", "special": true},
        },
    });
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(tokenizer.bos_token(), None);
    assert_eq!(
        tokenizer.encode("<|renamed|><|next|>", true).unwrap(),
        [2, size as u32]
    );
    assert_eq!(tokenizer.token_id("<|far|>"), None);
}

#[test]
fn added_tokens_json_is_read_where_nothing_newer_is() {
    let size = family("sentencepiece").vocab_size();
    let dir = tempfile::tempdir().unwrap();
    let model = path("sentencepiece").join("tokenizer.model");
    std::fs::copy(model, dir.path().join("tokenizer.model")).unwrap();
    let write =
        |name: &str, json: Value| std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    write("added_tokens.json", json!({"<b>": size + 1, "<a>": size}));
    write(
        "special_tokens_map.json",
        json!({"additional_special_tokens": ["<a>"]}),
    );
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    let ids = [size as u32, size as u32 + 1];
    assert_eq!(tokenizer.encode("<a><b>", false).unwrap()[..2], ids);
    assert_eq!(
        (tokenizer.is_special(ids[0]), tokenizer.is_special(ids[1])),
        (true, false)
    );
}
