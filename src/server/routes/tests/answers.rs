//! What answers say, whole and streamed.

use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};

use super::{ask, engine, post, request, with_model};
use crate::server::auth::Keys;
use crate::server::sites::Sites;
use crate::server::state::App;

#[tokio::test]
async fn a_named_event_begins_with_its_name() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for (path, body) in [
        (
            "/v1/responses",
            json!({"input": "a", "max_output_tokens": 2, "stream": true}),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "messages": messages, "max_tokens": 2, "stream": true}),
        ),
    ] {
        let answer = post(path, body).await;
        let events: Vec<&str> = answer.text.trim_end().split("\n\n").collect();
        assert!(events.len() > 5, "{}", answer.text);
        for event in events {
            let (name, data) = event.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["type"], name);
        }
    }
}

#[tokio::test]
async fn tokens_go_both_ways() {
    let text = "Grüße 👋🏽 <|im_end|>";
    let tokens = post("/tokenize", json!({"content": text})).await.json()["tokens"].clone();
    let back = post("/detokenize", json!({"tokens": tokens})).await.json();
    assert_eq!(back["content"], text);
    let pieces = post("/tokenize", json!({"content": text, "with_pieces": true}))
        .await
        .json();
    assert_eq!(
        pieces["tokens"].as_array().unwrap().len(),
        tokens.as_array().unwrap().len()
    );
    let unknown = post("/detokenize", json!({"tokens": [1, 1_000_000]})).await;
    assert_eq!(
        unknown.error(),
        (400, json!("invalid_value"), json!("tokens[1]"))
    );
}

#[tokio::test]
async fn a_streamed_answer_is_the_whole_one_in_pieces() {
    for (path, body) in [
        (
            "/v1/completions",
            json!({"prompt": "mlxcel is", "max_tokens": 12, "n": 2, "seed": 3}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 12, "n": 2}),
        ),
    ] {
        // Usage tells what of a prompt is cached: all of it but the last token, from the second on.
        post(path, body.clone()).await;
        let whole = post(path, body.clone()).await.json();
        let mut streaming = body.clone();
        streaming["stream"] = json!(true);
        streaming["stream_options"] = json!({"include_usage": true});
        let events = post(path, streaming).await.events();
        let (done, chunks) = events.split_last().unwrap();
        assert_eq!(done, "[DONE]");
        let chunks: Vec<Value> = chunks
            .iter()
            .map(|c| serde_json::from_str(c).unwrap())
            .collect();
        let (last, chunks) = chunks.split_last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"], whole["usage"]);
        assert!(last["timings"]["predicted_n"].as_u64().unwrap() > 0);
        for index in 0..2 {
            let (mut text, mut reasons) = (String::new(), Vec::new());
            for choice in chunks
                .iter()
                .map(|c| &c["choices"][0])
                .filter(|c| c["index"] == index)
            {
                let piece = choice["text"]
                    .as_str()
                    .or(choice["delta"]["content"].as_str());
                text.push_str(piece.unwrap_or_default());
                reasons.extend(choice["finish_reason"].as_str());
            }
            let choice = &whole["choices"][index];
            let want = choice["text"]
                .as_str()
                .or(choice["message"]["content"].as_str());
            assert_eq!(text, want.unwrap(), "{path}");
            assert_eq!(reasons, [choice["finish_reason"].as_str().unwrap()]);
        }
    }
}

/// Tokens of the prompt that usage tells to be cached.
async fn cached(router: &Router, key: &str, body: serde_json::Value) -> u64 {
    let mut request = request("POST", "/v1/completions", body.to_string());
    let bearer = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    let answer = ask(router, request).await.json();
    let details = &answer["usage"]["prompt_tokens_details"];
    details["cached_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn usage_tells_the_hit_and_salts_keep_tenants_apart() {
    let prompt: Vec<u32> = (100..160).collect();
    let body = |salt: Option<&str>| json!({"prompt": prompt, "max_tokens": 2, "cache_salt": salt});
    for per_key in [false, true] {
        // Open to any key, so that tenants have their own.
        let app = App::new(Keys::default(), Sites::default(), Duration::from_secs(5));
        let app = with_model(app, engine(2, 4), |model| {
            model.policy.cache_per_key = per_key;
        });
        let router = super::super::router(app);
        let other = if per_key { 0 } else { 59 };
        for (key, salt, tokens) in [
            ("a", None, 0),
            ("a", None, 59),
            ("b", None, other),
            ("a", Some("x"), 0),
            ("a", Some("x"), 59),
            ("b", Some("x"), other),
            ("a", Some("y"), 0),
        ] {
            let found = cached(&router, key, body(salt)).await;
            assert_eq!(found, tokens, "per key: {per_key}, {key} {salt:?}");
        }
    }
}
