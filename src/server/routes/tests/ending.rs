//! `min_tokens`, `stop_token_ids` and `ignore_eos` on the real engine.

use serde_json::{Value, json};

use super::{Answer, ask, dir, post, request, router};
use crate::text::Tokenizer;

/// A question whose answer the model ends by itself, with this beside it.
fn question(fields: &Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "What is 17 + 25?"}],
        "chat_template_kwargs": {"enable_thinking": false},
        "temperature": 0,
        "max_tokens": 60,
    });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn answered(fields: Value) -> (String, String, u64) {
    let answer = post("/v1/chat/completions", question(&fields)).await;
    said(&answer)
}

/// Its text, why it ended, and its tokens.
fn said(answer: &Answer) -> (String, String, u64) {
    let body = answer.json();
    let choice = &body["choices"][0];
    let text = choice["message"]["content"].as_str();
    let reason = choice["finish_reason"].as_str();
    let tokens = body["usage"]["completion_tokens"].as_u64();
    let told = (text.map(str::to_owned), reason.map(str::to_owned), tokens);
    let (Some(text), Some(reason), Some(tokens)) = told else {
        panic!("{}", answer.text);
    };
    (text, reason, tokens)
}

#[tokio::test]
async fn an_answer_goes_on_where_its_end_is_not_allowed() {
    let (text, reason, tokens) = answered(json!({})).await;
    assert_eq!(reason, "stop");
    assert!(tokens < 30, "{text}");
    let (longer, reason, count) = answered(json!({"ignore_eos": true})).await;
    assert_eq!((reason.as_str(), count), ("length", 60));
    assert!(longer.starts_with(&text), "{text:?}, {longer:?}");
    let (longer, _, count) = answered(json!({"min_tokens": 40})).await;
    assert!((41..=60).contains(&count), "{count}");
    assert!(longer.starts_with(&text), "{text:?}, {longer:?}");
    let (same, _, count) = answered(json!({"min_tokens": tokens - 1})).await;
    assert_eq!((same, count), (text, tokens), "that is when it ends anyway");
}

#[tokio::test]
async fn a_token_of_the_requests_own_ends_the_answer_before_it() {
    let (text, _, tokens) = answered(json!({})).await;
    let ids = Tokenizer::load(dir())
        .unwrap()
        .encode(&text, false)
        .unwrap();
    let last = *ids.last().unwrap();
    let first = ids.iter().position(|&id| id == last).unwrap() as u64;
    let (cut, reason, count) = answered(json!({"stop_token_ids": [last]})).await;
    assert_eq!((reason.as_str(), count), ("stop", first + 1));
    assert!(text.starts_with(&cut) && cut.len() < text.len(), "{cut:?}");
    // Withheld with the model's own.
    let (_, _, count) = answered(json!({"stop_token_ids": [last], "min_tokens": tokens})).await;
    assert!(count > tokens);
}

#[tokio::test]
async fn a_stop_string_is_looked_for_behind_the_least_tokens() {
    let (text, _, _) = answered(json!({})).await;
    let first = &text[..text.ceil_char_boundary(1)];
    let (cut, reason, _) = answered(json!({"stop": first})).await;
    assert_eq!((cut.as_str(), reason.as_str()), ("", "stop"));
    let (longer, _, count) = answered(json!({"stop": [first, "\n"], "min_tokens": 3})).await;
    assert!(count > 3 && longer.starts_with(first), "{longer:?}");
}

#[tokio::test]
async fn in_a_batch_each_output_has_its_own_end() {
    let router = router();
    let wishes = [
        json!({}),
        json!({"min_tokens": 30}),
        json!({"ignore_eos": true}),
        json!({"n": 2, "min_tokens": 20}),
    ];
    let ask_for = |fields: &Value| {
        let body = question(fields).to_string();
        ask(&router, request("POST", "/v1/chat/completions", body))
    };
    let together = futures::future::join_all(wishes.iter().map(ask_for)).await;
    for (fields, together) in wishes.iter().zip(together) {
        let alone = ask_for(fields).await;
        assert_eq!(
            together.json()["choices"],
            alone.json()["choices"],
            "{fields}"
        );
    }
}

#[tokio::test]
async fn a_grammar_that_is_at_its_end_wins() {
    for wish in [json!({"min_tokens": 20}), json!({"ignore_eos": true})] {
        let mut fields = wish.clone();
        fields["choice"] = json!(["yes", "no"]);
        let (text, reason, _) = answered(fields).await;
        assert!(["yes", "no"].contains(&text.as_str()), "{wish}: {text}");
        assert_eq!(reason, "stop");
    }
}

#[tokio::test]
async fn what_contradicts_itself_is_named() {
    for (fields, param) in [
        (json!({"min_tokens": 61}), "min_tokens"),
        (json!({"min_tokens": -1}), "min_tokens"),
        (json!({"min_tokens": "3"}), "min_tokens"),
        (json!({"stop_token_ids": [1_000_000]}), "stop_token_ids[0]"),
        (json!({"stop_token_ids": 3}), "stop_token_ids"),
        (json!({"ignore_eos": 1}), "ignore_eos"),
    ] {
        let answer = post("/v1/chat/completions", question(&fields)).await;
        let (status, _, named) = answer.error();
        assert_eq!((status, named), (400, json!(param)), "{fields}");
    }
}
