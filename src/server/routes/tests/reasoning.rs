//! What requests say about thoughts, on the real engine.

use serde_json::{Value, json};

use super::{ask, engine, post, request, serving};
use crate::server::reader::Telling;

/// The message of a question that the model thinks about, with this beside it.
async fn thought(fields: Value) -> (Value, u64) {
    let mut body = json!({
        "messages": [{"role": "user", "content": "What is 17 + 25?"}],
        "temperature": 0,
        "max_tokens": 120,
    });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = post("/v1/chat/completions", body).await;
    assert!(answer.status.is_success(), "{fields}: {}", answer.text);
    let body = answer.json();
    let spent = &body["usage"]["completion_tokens_details"]["reasoning_tokens"];
    let message = body["choices"][0]["message"].clone();
    (message, spent.as_u64().unwrap())
}

#[tokio::test]
async fn a_budget_ends_a_thought_and_the_answer_follows() {
    let (message, free) = thought(json!({"enable_thinking": true})).await;
    let text = message["reasoning_content"].as_str().unwrap().to_owned();
    assert!(free > 8, "{text}");
    for fields in [
        json!({"thinking_budget": 4}),
        json!({"enable_thinking": true, "thinking_token_budget": 4}),
        json!({"reasoning_effort": "medium", "thinking_budget_tokens": 4}),
        json!({"reasoning": {"max_tokens": 4}}),
    ] {
        let (message, spent) = thought(fields.clone()).await;
        // The tag that ends it counts, and the line breaks behind it.
        assert!((4..=7).contains(&spent), "{fields}: {spent}");
        let short = message["reasoning_content"].as_str().unwrap();
        assert!(text.starts_with(short) && short.len() < text.len());
        assert_ne!(message["content"], "", "{fields}");
    }
    let (message, _) = thought(json!({"enable_thinking": true, "thinking_budget": 0})).await;
    assert_eq!(message.get("reasoning_content"), None, "{message}");
    let (message, spent) = thought(json!({"enable_thinking": true, "thinking_budget": -1})).await;
    assert_eq!((&message["reasoning_content"], spent), (&json!(text), free));
}

#[tokio::test]
async fn thoughts_are_told_where_the_request_wants_them() {
    let on = json!({"enable_thinking": true});
    let with = |more: Value| {
        let mut fields = on.clone();
        fields
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        thought(fields)
    };
    let (apart, spent) = with(json!({"reasoning_format": "deepseek"})).await;
    let (thoughts, answer) = (
        apart["reasoning_content"].as_str(),
        apart["content"].as_str(),
    );
    let (thoughts, answer) = (thoughts.unwrap(), answer.unwrap());
    for more in [
        json!({"include_reasoning": false}),
        json!({"reasoning": {"exclude": true}}),
    ] {
        let (silent, still) = with(more).await;
        assert_eq!(silent["content"], answer);
        assert_eq!((silent.get("reasoning_content"), still), (None, spent));
    }
    let (raw, _) = with(json!({"reasoning_format": "none"})).await;
    assert_eq!(raw.get("reasoning_content"), None);
    let raw = raw["content"].as_str().unwrap();
    assert!(raw.contains("</think>"), "{raw}");
    assert!(raw.contains(thoughts) && raw.ends_with(answer), "{raw}");

    // The server's own habit, and what the request says of it.
    let app = serving(engine(1, 1), |model| {
        model.policy.telling = Telling::InContent
    });
    let router = super::super::router(app);
    for (format, told) in [(None, raw), (Some("none"), raw), (Some("auto"), answer)] {
        let body = json!({"messages": [{"role": "user", "content": "What is 17 + 25?"}],
            "enable_thinking": true, "temperature": 0, "max_tokens": 120, "reasoning_format": format});
        let request = request("POST", "/v1/chat/completions", body.to_string());
        let answer = ask(&router, request).await.json();
        assert_eq!(
            answer["choices"][0]["message"]["content"], told,
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_response_bounds_its_thought_too() {
    let body = |reasoning: Value| {
        json!({"input": "What is 17 + 25?", "temperature": 0, "max_output_tokens": 120,
            "store": false, "reasoning": reasoning})
    };
    let spent = async |reasoning| {
        let answer = post("/v1/responses", body(reasoning)).await.json();
        answer["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64()
    };
    assert!(spent(json!({"effort": "medium"})).await > Some(8));
    let bounded = spent(json!({"effort": "medium", "max_tokens": 4})).await;
    assert!((Some(4)..=Some(7)).contains(&bounded), "{bounded:?}");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for (fields, param) in [
        (json!({"thinking_budget": -2}), "thinking_budget"),
        (
            json!({"thinking_token_budget": "4"}),
            "thinking_token_budget",
        ),
        (json!({"reasoning": 4}), "reasoning"),
        (json!({"reasoning": {"effort": "wild"}}), "reasoning.effort"),
        (json!({"reasoning": {"effort": "low"}}), "reasoning.effort"),
        (
            json!({"reasoning_format": "deepseek-legacy"}),
            "reasoning_format",
        ),
        (json!({"include_reasoning": 0}), "include_reasoning"),
    ] {
        let mut body = json!({"messages": messages, "max_tokens": 1});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let (status, _, named) = post("/v1/chat/completions", body).await.error();
        assert_eq!((status, named), (400, json!(param)), "{fields}");
    }
}
