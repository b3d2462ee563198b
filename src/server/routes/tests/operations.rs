//! What operators and tools ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::{StatusCode, header};
use serde_json::{Value, json};

use super::{ask, endless, engine, idle, post, request, roomy, router, serving, valid_bodies};
use crate::server::routes::{documents, listed};
use futures::StreamExt;
use tower::ServiceExt;

fn document() -> Value {
    serde_json::to_value(documents::document()).unwrap()
}

async fn get(path: &str) -> Value {
    ask(&router(), request("GET", path, "")).await.json()
}

#[test]
fn the_document_has_the_routes_that_there_are() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert((method.to_uppercase(), path.clone()));
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(operation["responses"]["default"].is_object(), "{path}");
            let open = matches!(path.as_str(), "/" | "/health");
            assert_eq!(operation["security"].is_array(), !open, "{path}");
        }
    }
    let listed = listed().into_iter().map(|(m, p)| (m.to_owned(), p));
    assert_eq!(described, listed.collect());
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| references(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

/// The names of a schema's fields, through references and parts.
fn fields(document: &Value, schema: &Value, found: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        fields(document, target, found);
    }
    found.extend(
        schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(|p| p.keys().cloned()),
    );
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fields(document, part, found);
    }
}

#[tokio::test]
async fn every_field_that_is_described_is_known() {
    let document = document();
    let router = router();
    let valid: BTreeMap<&str, Value> = valid_bodies().into_iter().collect();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(content) = item["post"].get("requestBody") else {
            continue;
        };
        let mut names = BTreeSet::new();
        fields(
            &document,
            &content["content"]["application/json"]["schema"],
            &mut names,
        );
        let mut body = valid[path.as_str()].clone();
        assert!(!names.is_empty(), "{path}");
        for name in names {
            body.as_object_mut()
                .unwrap()
                .entry(name)
                .or_insert(Value::Null);
        }
        let answer = ask(&router, request("POST", path, body.to_string())).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        let ignored = answer.headers.get("x-mlxcel-ignored");
        assert_eq!(ignored, None, "{path}");
    }
}

#[tokio::test]
async fn unknown_fields_are_named_wherever_a_body_is_read() {
    let router = router();
    for (path, mut body) in valid_bodies() {
        body["tempratur"] = json!(1);
        let answer = ask(&router, request("POST", path, body.to_string())).await;
        let ignored = answer.headers.get("x-mlxcel-ignored");
        assert_eq!(ignored.unwrap(), "tempratur", "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_strict_server_answers_to_its_models_name_only() {
    let app = serving(engine(1, 1), |model| model.policy.strict_model = true);
    let router = super::super::router(app);
    for (path, mut body) in valid_bodies() {
        if path.ends_with("tokenize") {
            continue;
        }
        for (model, status) in [("gpt-4o", 404), ("mlxcel-tiny", 200)] {
            body["model"] = json!(model);
            let answer = ask(&router, request("POST", path, body.to_string())).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text);
        }
    }
}

/// The samples of a page of metrics, by name and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn metrics_count_what_requests_came_to() {
    let engine = roomy(2, 4);
    let router = super::super::router(serving(engine.clone(), |_| {}));
    let prompt: Vec<u32> = (100..160).collect();
    let body = json!({"prompt": prompt, "max_tokens": 5, "temperature": 0, "logit_bias": {"2040": -100, "2041": -100}});
    for _ in 0..2 {
        let answer = ask(
            &router,
            request("POST", "/v1/completions", body.to_string()),
        )
        .await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let mut stopped = body.clone();
    stopped["stop"] = json!(["e", "a", " "]);
    stopped["max_tokens"] = json!(200);
    ask(
        &router,
        request("POST", "/v1/completions", stopped.to_string()),
    )
    .await;
    let running = router.clone().oneshot(endless(true)).await.unwrap();
    let mut stream = running.into_body().into_data_stream();
    assert!(stream.next().await.is_some());
    drop(stream);
    idle(&engine).await;

    let answer = ask(&router, request("GET", "/metrics", "")).await;
    let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let samples = samples(&answer.text);
    let of = |name: &str| samples[&format!("{name}{{model_name=\"mlxcel-tiny\"}}")];
    let ended = |reason: &str| {
        let labels = format!("finished_reason=\"{reason}\",model_name=\"mlxcel-tiny\"");
        samples[&format!("vllm:request_success_total{{{labels}}}")]
    };
    assert_eq!(
        (ended("length"), ended("abort"), ended("error")),
        (2.0, 1.0, 0.0)
    );
    assert_eq!(ended("stop"), 1.0);
    assert_eq!(
        (
            of("vllm:num_requests_running"),
            of("vllm:num_requests_waiting")
        ),
        (0.0, 0.0)
    );
    assert_eq!(of("vllm:prefix_cache_hits_total"), 2.0 * 59.0);
    assert!(of("vllm:prefix_cache_queries_total") >= 180.0);
    assert!(of("vllm:prompt_tokens_total") >= 180.0);
    assert!(of("vllm:generation_tokens_total") >= 11.0);
    assert_eq!(of("vllm:time_to_first_token_seconds_count"), 4.0);
    assert_eq!(of("vllm:request_queue_time_seconds_count"), 4.0);
    assert!(of("vllm:inter_token_latency_seconds_count") >= 8.0);
    assert!(of("vllm:inter_token_latency_seconds_sum") > 0.0);
    assert_eq!(of("vllm:e2e_request_latency_seconds_count"), 3.0);
    assert_eq!(of("vllm:request_prompt_tokens_sum"), 180.0);
    let first = "vllm:time_to_first_token_seconds_bucket{model_name=\"mlxcel-tiny\",le=\"+Inf\"}";
    assert_eq!(samples[first], 4.0);
    for line in answer
        .text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
    {
        let name = line.split(' ').nth(2).unwrap();
        assert!(answer.text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[tokio::test]
async fn slots_show_what_runs_where() {
    let engine = roomy(2, 4);
    let router = super::super::router(serving(engine.clone(), |_| {}));
    let slots = || async { ask(&router, request("GET", "/slots", "")).await };
    let once = async |shown: fn(&Value) -> bool| {
        let there = async {
            loop {
                let slots = slots().await.json();
                if shown(&slots) {
                    break slots;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let wait = Duration::from_secs(60);
        tokio::time::timeout(wait, there).await.unwrap()
    };
    let quiet = slots().await.json();
    assert_eq!(quiet.as_array().unwrap().len(), 2);
    for (id, slot) in quiet.as_array().unwrap().iter().enumerate() {
        assert_eq!(
            (&slot["id"], &slot["is_processing"]),
            (&json!(id), &json!(false))
        );
        assert!(slot.get("id_task").is_none());
        assert_eq!(slot["n_ctx"], 8192);
    }
    let running = router.clone().oneshot(endless(true)).await.unwrap();
    let mut stream = running.into_body().into_data_stream();
    assert!(stream.next().await.is_some());
    // What is shown follows what is sent, by less than a step.
    let busy = once(|slots| slots[0]["next_token"]["n_decoded"].as_u64() > Some(0)).await;
    assert_eq!(busy[0]["is_processing"], true, "{busy}");
    assert_eq!(
        (&busy[0]["id_task"], &busy[0]["n_prompt_tokens"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(busy[0]["params"]["temperature"], 1.0);
    assert_eq!(busy[1]["is_processing"], false);
    assert!(!busy.to_string().contains("prompt\":"));
    let free = ask(&router, request("GET", "/slots?fail_on_no_slot=1", "")).await;
    assert_eq!(free.status, StatusCode::OK);
    let other = router.clone().oneshot(endless(true)).await.unwrap();
    let mut second = other.into_body().into_data_stream();
    assert!(second.next().await.is_some());
    let none = ask(&router, request("GET", "/slots?fail_on_no_slot=1", "")).await;
    assert_eq!(none.error(), (503, json!("no_slot_available"), Value::Null));
    assert!(none.headers.contains_key(header::RETRY_AFTER));
    drop(stream);
    // The second keeps its place.
    let left = once(|slots| slots[0]["is_processing"] == false).await;
    assert_eq!(
        (&left[1]["is_processing"], &left[1]["id_task"]),
        (&json!(true), &json!(1))
    );
    drop(second);
    let idle = |slots: &Value| {
        slots
            .as_array()
            .unwrap()
            .iter()
            .all(|slot| slot["is_processing"] == false)
    };
    assert_eq!(once(idle).await, quiet);
}

#[tokio::test]
async fn a_template_is_applied_as_a_chat_applies_it() {
    let messages = json!([{"role": "user", "content": "Hello!"}]);
    let prompt = post("/apply-template", json!({"messages": messages}))
        .await
        .json();
    let prompt = prompt["prompt"].as_str().unwrap().to_owned();
    assert!(prompt.contains("Hello!") && prompt.len() > 10, "{prompt}");
    let tokens = post("/tokenize", json!({"content": prompt})).await.json();
    let count = tokens["tokens"].as_array().unwrap().len();
    let chat = json!({"messages": messages, "max_tokens": 1});
    let usage = post("/v1/chat/completions", chat).await.json()["usage"].clone();
    assert_eq!(usage["prompt_tokens"], count);
    let tool = json!([{"type": "function", "function": {"name": "look_up", "parameters": {}}}]);
    let with = post(
        "/apply-template",
        json!({"messages": messages, "tools": tool}),
    )
    .await
    .json();
    assert!(
        with["prompt"].as_str().unwrap().contains("look_up"),
        "{with}"
    );
    let open = json!({"messages": messages, "add_generation_prompt": false});
    let open = post("/apply-template", open).await.json();
    assert!(prompt.starts_with(open["prompt"].as_str().unwrap()) && open["prompt"] != prompt);
    for body in [
        json!({}),
        json!({"messages": []}),
        json!({"messages": messages, "n": 0}),
    ] {
        assert_eq!(post("/apply-template", body).await.error().0, 400);
    }
}

#[tokio::test]
async fn special_tokens_in_a_text_are_read_or_not() {
    let text = "<|im_end|>";
    let count = |body: Value| async move {
        let tokens = post("/tokenize", body).await.json();
        tokens["tokens"].as_array().unwrap().len()
    };
    assert_eq!(count(json!({"content": text})).await, 1);
    assert_eq!(
        count(json!({"content": text, "parse_special": true})).await,
        1
    );
    assert!(count(json!({"content": text, "parse_special": false})).await > 1);
    let pieces = json!({"content": "a ü", "with_pieces": true, "parse_special": false});
    let pieces = post("/tokenize", pieces).await.json();
    let text: Vec<u8> = pieces["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|token| match &token["piece"] {
            Value::String(text) => text.clone().into_bytes(),
            bytes => serde_json::from_value(bytes.clone()).unwrap(),
        })
        .collect();
    assert_eq!(String::from_utf8(text).unwrap().trim_start(), "a ü");
}

#[tokio::test]
async fn a_model_tells_what_it_can_do() {
    // One server: each knows when it was made.
    let router = router();
    let list = ask(&router, request("GET", "/v1/models", "")).await.json();
    let model = &list["data"][0];
    let one = ask(&router, request("GET", "/v1/models/mlxcel-tiny", "")).await;
    assert_eq!(one.json(), *model);
    assert_eq!(
        (&model["max_model_len"], &model["meta"]["n_ctx"]),
        (&json!(512), &json!(512))
    );
    let can = model["capabilities"].as_array().unwrap();
    for word in [
        "completion",
        "chat",
        "tools",
        "reasoning",
        "structured_output",
    ] {
        assert!(can.contains(&json!(word)), "{model}");
    }
    let props = get("/props").await;
    assert_eq!(props["capabilities"], model["capabilities"]);
    let version = get("/version").await;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["mlx_version"], props["mlx_version"]);
}

#[tokio::test]
async fn props_tell_how_the_server_fares() {
    let router = super::super::router(serving(engine(1, 1), |_| {}));
    let body = json!({"prompt": "mlxcel is", "max_tokens": 8, "temperature": 0});
    let answer = ask(
        &router,
        request("POST", "/v1/completions", body.to_string()),
    )
    .await;
    let generated = answer.json()["usage"]["completion_tokens"].clone();
    let props = ask(&router, request("GET", "/props", "")).await.json();
    assert_eq!(props["throughput"]["generated_tokens_total"], generated);
    for rate in ["prompt_tokens_per_second", "generated_tokens_per_second"] {
        assert!(props["throughput"][rate].as_f64().unwrap() > 0.0, "{props}");
    }
    let memory = &props["memory"];
    assert!(memory["active_bytes"].as_u64() <= memory["peak_bytes"].as_u64());
    assert!(memory["rss_bytes"].as_u64() > memory["cache_bytes"].as_u64());
    assert_eq!(props["pid"], std::process::id());
    assert_eq!(props["leases"], 0);
}
