//! Fields that are unknown, known and not honoured, or out of their range: each is named.

use axum::http::StatusCode;
use serde_json::json;

use super::{ask, engine, post, request, router, serving, valid_bodies};

#[tokio::test]
async fn unknown_fields_are_named_and_the_request_id_comes_back() {
    let mut request = request(
        "POST",
        "/tokenize",
        json!({"content": "hi", "tempratur": 1}).to_string(),
    );
    request
        .headers_mut()
        .insert("x-request-id", "mine-1".parse().unwrap());
    let answer = ask(&router(), request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["x-mlxcel-ignored"], "tempratur");
    assert_eq!(answer.headers["x-request-id"], "mine-1");
}

#[tokio::test]
async fn what_is_read_is_not_called_unknown() {
    for (path, body) in valid_bodies() {
        let answer = post(path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(answer.headers.get("x-mlxcel-ignored"), None, "{path}");
    }
}

#[tokio::test]
async fn another_model_is_found_on_no_route_that_is_strict() {
    let app = serving(engine(1, 1), |model| model.policy.strict_model = true);
    let router = super::super::router(app);
    for (path, mut body) in valid_bodies() {
        for (model, status) in [
            (json!("other"), 404),
            (json!(3), 400),
            (json!("mlxcel-tiny"), 200),
        ] {
            body["model"] = model;
            let answer = ask(&router, request("POST", path, body.to_string())).await;
            assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn unknown_fields_within_others_are_named_too() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for (path, body, named) in [
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 1, "stream": true,
                "stream_options": {"usage": true}, "reasoning": {"effrt": "low"}}),
            "stream_options.usage,reasoning.effrt",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}],
                "max_tokens": 1, "response_format": {"type": "json_schema", "x": 1,
                "json_schema": {"name": "n", "schema": {"type": "integer"}, "y": 1}},
                "tools": [{"type": "function", "function": {"name": "f"}}],
                "tool_choice": {"type": "function", "function": {"name": "f", "x": 1}}}),
            "response_format.x,response_format.json_schema.y,messages[0].content[0].x,\
             tool_choice.function.x",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "max_tokens": 1, "stream": true, "stream_options": {"x": 1}}),
            "stream_options.x",
        ),
        (
            "/v1/responses",
            json!({"input": "a", "max_output_tokens": 1, "stream": true, "reasoning": {"x": 1},
                "stream_options": {"include_usage": true}}),
            "reasoning.x,stream_options.include_usage",
        ),
        (
            "/v1/responses",
            json!({"input": [{"role": "user", "x": 1, "content": [{"type": "input_text", "text": "a",
                "y": 1}]}], "max_output_tokens": 1, "text": {"x": 1, "format": {"type": "text", "y": 1}},
                "tools": [{"type": "function", "name": "f", "x": 1}], "tool_choice": "none"}),
            "input[0].x,input[0].content[0].y,tools[0].x,text.x,text.format.y",
        ),
        (
            "/v1/messages",
            json!({"model": "m", "messages": messages, "max_tokens": 1,
                "metadata": {"x": 1}, "output_config": {"y": 1}}),
            "metadata.x,output_config.y",
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 1, "system": [{"type": "text", "text": "a", "x": 1}],
                "messages": [{"role": "user", "x": 1, "content": [{"type": "text", "text": "a", "y": 1}]}],
                "tools": [{"name": "f", "input_schema": {"type": "object"}, "x": 1}],
                "tool_choice": {"type": "none", "x": 1}, "thinking": {"type": "disabled", "x": 1}}),
            "system[0].x,messages[0].x,messages[0].content[0].y,tools[0].x,tool_choice.x,thinking.x",
        ),
    ] {
        let answer = post(path, body).await;
        assert_eq!(answer.headers["x-mlxcel-ignored"], named, "{path}");
    }
}

#[tokio::test]
async fn fields_that_cannot_be_honoured_are_named() {
    let user = json!([{"role": "user", "content": "x"}]);
    for (body, param) in [
        (json!({}), "messages"),
        (json!({"messages": user, "tools": [{}]}), "tools[0].type"),
        (
            json!({"messages": user, "modalities": ["audio"]}),
            "modalities",
        ),
        (json!({"messages": user, "top_logprobs": 3}), "top_logprobs"),
        (
            json!({"messages": user, "chat_template_kwargs": {"tools": []}}),
            "chat_template_kwargs.tools",
        ),
        (
            json!({"messages": user, "stream_options": {}}),
            "stream_options",
        ),
        (
            json!({"messages": user, "functions": [{"name": "f"}]}),
            "functions",
        ),
        (
            json!({"messages": user, "function_call": "auto"}),
            "function_call",
        ),
        (json!({"messages": user, "audio": {}}), "audio"),
        (
            json!({"messages": user, "prediction": {"type": "content", "content": "x"}}),
            "prediction",
        ),
        (
            json!({"messages": user, "web_search_options": {}}),
            "web_search_options",
        ),
        (json!({"messages": user, "verbosity": "low"}), "verbosity"),
        (json!({"messages": user, "store": true}), "store"),
        (
            json!({"messages": user, "service_tier": "flex"}),
            "service_tier",
        ),
        (
            json!({"messages": user, "moderation": {"model": "m"}}),
            "moderation",
        ),
        (
            json!({"messages": user, "prompt_cache_retention": "24h"}),
            "prompt_cache_retention",
        ),
        (
            json!({"messages": user, "prompt_cache_options": {}}),
            "prompt_cache_options",
        ),
        (json!({"messages": user, "user": 3}), "user"),
        (
            json!({"messages": user, "metadata": {"a": 1}}),
            "metadata.a",
        ),
        (
            json!({"messages": user, "reasoning_effort": "low"}),
            "reasoning_effort",
        ),
        (
            json!({"messages": user, "reasoning_effort": "huge"}),
            "reasoning_effort",
        ),
        (
            json!({"messages": user, "enable_thinking": true, "reasoning_effort": "none"}),
            "enable_thinking",
        ),
        (
            json!({"messages": user, "tools": [{"type": "custom", "custom": {"name": "c"}}]}),
            "tools[0].type",
        ),
        (json!({"messages": user, "n": 129}), "n"),
        (
            json!({"messages": user, "temperature": "hot"}),
            "temperature",
        ),
        (
            json!({"messages": user, "response_format": {"type": "poem"}}),
            "response_format.type",
        ),
    ] {
        let answer = post("/v1/chat/completions", body.clone()).await;
        let (status, _, named) = answer.error();
        assert_eq!((status, named), (400, json!(param)), "{body}");
    }
}

#[tokio::test]
async fn more_outputs_than_run_and_wait_at_a_time_are_refused_by_name() {
    let router = super::super::router(serving(engine(1, 2), |_| {}));
    for (n, status) in [(3, 200), (4, 400)] {
        let body = json!({"prompt": "a", "max_tokens": 1, "n": n}).to_string();
        let answer = ask(&router, request("POST", "/v1/completions", body)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.text.contains(r#""param":"n""#), status == 400);
    }
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_told_both_numbers() {
    let answer = post("/v1/completions", json!({"prompt": vec![5; 600]})).await;
    assert_eq!(
        answer.error(),
        (400, json!("context_length_exceeded"), json!("prompt"))
    );
    assert!(
        answer.text.contains("600") && answer.text.contains("512"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_schema_that_cannot_be_enforced_is_named() {
    let schema = json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true});
    let format = json!({"type": "json_schema", "name": "n", "schema": schema});
    let nested = json!({"type": "json_schema", "json_schema": format});
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, body, param) in [
        (
            "/v1/completions",
            json!({"prompt": "x", "response_format": nested}),
            "response_format",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "response_format": nested}),
            "response_format",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "guided_json": schema}),
            "guided_json",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "text": {"format": format}}),
            "text.format.schema",
        ),
    ] {
        let answer = post(path, body).await;
        let unsupported = json!("unsupported_parameter");
        assert_eq!(answer.error(), (400, unsupported, json!(param)), "{path}");
        assert!(answer.text.contains("uniqueItems"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_grammar_that_is_none_is_named_by_its_field_also_behind_a_thought() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for thinking in [true, false] {
        for (field, grammar) in [("regex", "(["), ("grammar", "start: (")] {
            let body = json!({"messages": messages, "enable_thinking": thinking, field: grammar});
            let error = post("/v1/chat/completions", body).await.error();
            assert_eq!(error, (400, json!("invalid_value"), json!(field)));
        }
    }
}

#[tokio::test]
async fn a_model_without_a_template_points_to_completions() {
    let app = serving(engine(1, 1), |model| model.text.template = None);
    let body = json!({"messages": [{"role": "user", "content": "x"}]}).to_string();
    let answer = ask(
        &super::super::router(app),
        request("POST", "/v1/chat/completions", body),
    )
    .await;
    assert_eq!(answer.error().0, 400);
    assert!(answer.text.contains("/v1/completions"), "{}", answer.text);
}

#[tokio::test]
async fn n_predict_bounds_every_answer() {
    let app = serving(engine(1, 1), |model| model.n_predict = Some(3));
    let router = super::super::router(app);
    for fields in [
        json!({"prompt": "mlxcel is"}),
        json!({"prompt": "mlxcel is", "max_tokens": 9}),
    ] {
        let answer = ask(
            &router,
            request("POST", "/v1/completions", fields.to_string()),
        )
        .await;
        assert_eq!(answer.json()["usage"]["completion_tokens"], 3);
    }
}
