//! Answers that go on with what the assistant has begun, on the real engine.

use serde_json::{Value, json};

use super::post;

fn begun(text: &str) -> Value {
    json!([{"role": "user", "content": "What is 17 + 25?"}, {"role": "assistant", "content": text}])
}

#[tokio::test]
async fn an_answer_goes_on_where_it_was_left() {
    let whole = post(
        "/v1/chat/completions",
        json!({"messages": [{"role": "user", "content": "What is 17 + 25?"}], "temperature": 0,
            "max_tokens": 60, "enable_thinking": false}),
    )
    .await;
    let whole = whole.json()["choices"][0]["message"]["content"].clone();
    let whole = whole.as_str().unwrap();
    let half = whole.floor_char_boundary(whole.len() / 2);
    // Where the text is cut, tokens are too: it is the answer that must come out, not its tokens.
    let half = whole[..half].rfind(' ').unwrap();
    let chat = json!({"messages": begun(&whole[..half]), "continue_final_message": true,
        "temperature": 0, "max_tokens": 60});
    let prompt = post("/apply-template", chat.clone()).await.json();
    assert!(prompt["prompt"].as_str().unwrap().ends_with(&whole[..half]));
    let answer = post("/v1/chat/completions", chat).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], whole[half..]);
    let anthropic = json!({"model": "m", "messages": begun(&whole[..half]), "temperature": 0,
        "max_tokens": 60});
    let message = post("/v1/messages", anthropic.clone()).await.json();
    assert_eq!(message["content"][0]["text"], whole[half..]);
    let count = post("/v1/messages/count_tokens", anthropic).await.json();
    let usage = &message["usage"];
    let sent =
        ["input_tokens", "cache_read_input_tokens"].map(|name| usage[name].as_u64().unwrap());
    assert_eq!(count["input_tokens"], sent[0] + sent[1]);
}

#[tokio::test]
async fn what_cannot_go_on_is_named() {
    let user = json!([{"role": "user", "content": "a"}]);
    for (path, fields, param) in [
        (
            "/v1/chat/completions",
            json!({"messages": user}),
            "continue_final_message",
        ),
        (
            "/v1/chat/completions",
            json!({"add_generation_prompt": true}),
            "add_generation_prompt",
        ),
        (
            "/v1/chat/completions",
            json!({"response_format": {"type": "json_object"}}),
            "continue_final_message",
        ),
        (
            "/v1/chat/completions",
            json!({"enable_thinking": true}),
            "continue_final_message",
        ),
        (
            "/v1/messages",
            json!({"thinking": {"type": "enabled", "budget_tokens": 1}}),
            "messages",
        ),
    ] {
        let mut body = json!({"model": "m", "messages": begun("It is"), "max_tokens": 2});
        if path.contains("chat") {
            body["continue_final_message"] = json!(true);
        }
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let answer = post(path, body).await;
        assert_eq!(answer.status, 400, "{fields}");
        let error = &answer.json()["error"];
        let named = error["param"].as_str().map(str::to_owned);
        let named = named.unwrap_or_else(|| error["message"].as_str().unwrap().to_owned());
        assert!(named.contains(param), "{fields}: {}", answer.text);
    }
}
