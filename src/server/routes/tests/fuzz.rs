//! Bodies that are almost right, and bytes that are not: no input gives a 500, hangs, or kills the
//! engine. `PROPTEST_CASES` makes it longer.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use super::{Answer, ask, engine, request, serving, valid_bodies};

/// No request of these takes longer, by far.
const LIMIT: Duration = Duration::from_secs(60);

/// What takes a value's place, or becomes a further one.
fn value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3i64..200).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "user|assistant|system|tool|text|auto|none|required|function|json_object|json_schema|low"
            .prop_map(Value::from),
        Just(Value::from("<|im_end|>\u{0}\u{202e}\u{1f469}\u{200d}\u{1f680}")),
        Just(Value::from("a".repeat(3000))),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let keys = "role|content|type|text|schema|json_schema|function|name|arguments|id|input|\
                    properties|items|anyOf|\\$ref|pattern|enum|required|strict|.{0,4}";
        let keys = keys.replace(char::is_whitespace, "");
        let keys = proptest::string::string_regex(&keys).unwrap();
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((keys, inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A change somewhere in a body.
#[derive(Debug, Clone)]
enum Change {
    Replace(Value),
    Remove,
    Repeat(usize),
    Rename(String),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => value().prop_map(Change::Replace),
        2 => Just(Change::Remove),
        1 => (1usize..200).prop_map(Change::Repeat),
        1 => ".{0,10}".prop_map(Change::Rename),
    ]
}

/// The `at`-th value of all that are within a value, counted depth first.
fn apply(value: &mut Value, at: &mut usize, change: &Change) -> bool {
    match value {
        Value::Object(map) => {
            for key in map.keys().cloned().collect::<Vec<_>>() {
                if *at == 0 {
                    change_field(map, &key, change);
                    return true;
                }
                *at -= 1;
                if map
                    .get_mut(&key)
                    .is_some_and(|inner| apply(inner, at, change))
                {
                    return true;
                }
            }
            false
        }
        Value::Array(list) => {
            for index in 0..list.len() {
                if *at == 0 {
                    match change {
                        Change::Replace(new) => list[index] = new.clone(),
                        Change::Remove => drop(list.remove(index)),
                        Change::Repeat(times) => {
                            let one = list[index].clone();
                            list.extend(std::iter::repeat_n(one, *times));
                        }
                        Change::Rename(name) => list.push(Value::from(name.as_str())),
                    }
                    return true;
                }
                *at -= 1;
                if apply(&mut list[index], at, change) {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

fn change_field(map: &mut Map<String, Value>, key: &str, change: &Change) {
    match change {
        Change::Replace(new) => drop(map.insert(key.to_owned(), new.clone())),
        Change::Remove => drop(map.remove(key)),
        Change::Repeat(times) => {
            let one = map.get(key).cloned().unwrap_or_default();
            map.insert(key.to_owned(), Value::from(vec![one; *times]));
        }
        Change::Rename(name) => {
            let one = map.remove(key).unwrap_or_default();
            map.insert(name.clone(), one);
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(|inner| 1 + size(inner)).sum(),
        Value::Array(list) => list.iter().map(|inner| 1 + size(inner)).sum(),
        _ => 0,
    }
}

/// What is done to a body's bytes.
#[derive(Debug, Clone)]
enum Damage {
    None,
    Cut(Index),
    Flip(Index, u8),
    Nest(usize),
    Anything(Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        12 => Just(Damage::None),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        1 => (1usize..5000).prop_map(Damage::Nest),
        1 => vec(any::<u8>(), 0..64).prop_map(Damage::Anything),
    ]
}

fn damaged(body: &Value, damage: &Damage) -> Vec<u8> {
    let mut bytes = body.to_string().into_bytes();
    match damage {
        Damage::None => {}
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Flip(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        Damage::Nest(depth) => {
            bytes = [vec![b'['; *depth], bytes, vec![b']'; *depth]].concat();
        }
        Damage::Anything(other) => bytes.clone_from(other),
    }
    bytes
}

/// Refused for its own sake, answered, or told that there is no room for so many outputs.
fn is_fair(answer: &Answer) -> bool {
    answer.status.is_success()
        || answer.status.is_client_error()
        || (answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.error().1 == "queue_full")
}

/// Cases are not kept in files: a failure prints its own.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn no_request_is_a_500_hangs_or_kills_the_engine() {
    let app = serving(engine(4, 16), |model| model.n_predict = Some(3));
    let router = super::super::router(app);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let send = |method: &str, path: &str, body: Body| {
        let asked = ask(&router, request(method, path, body));
        runtime
            .block_on(async { tokio::time::timeout(LIMIT, asked).await })
            .unwrap_or_else(|_| panic!("{method} {path} hangs"))
    };
    let bodies = valid_bodies();
    let paths: Vec<&str> = bodies.iter().map(|(path, _)| *path).collect();
    let changes = vec((any::<Index>(), change()), 0..4);
    let cases = (
        any::<Index>(),
        any::<Index>(),
        changes,
        damage(),
        any::<bool>(),
    );
    let mut runner = TestRunner::new(config());
    let outcome = runner.run(&cases, |(route, seed, changes, damage, stream)| {
        // Mostly a body of its own route, now and then one of another.
        let at = route.index(bodies.len() * 8);
        let path = paths[at % bodies.len()];
        let mut body = match at / bodies.len() {
            0 => bodies[seed.index(bodies.len())].1.clone(),
            _ => bodies[at % bodies.len()].1.clone(),
        };
        if stream {
            body["stream"] = json!(true);
        }
        for (at, change) in &changes {
            let mut at = at.index(size(&body).max(1));
            apply(&mut body, &mut at, change);
        }
        let bytes = damaged(&body, &damage);
        let answer = send("POST", path, bytes.into());
        prop_assert!(
            is_fair(&answer),
            "{path}: {} {}",
            answer.status,
            answer.text
        );
        Ok(())
    });
    outcome.unwrap();
    for (path, body) in &bodies {
        let answer = send("POST", path, body.to_string().into());
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    }
}

#[test]
fn no_path_is_a_500() {
    let router = super::router();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listed = super::super::listed();
    let segment = "[a-zA-Z0-9_%./?&=-]{0,20}";
    let cases = (
        any::<Index>(),
        "GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS|TRACE",
        segment,
        segment,
    );
    let mut runner = TestRunner::new(config());
    let outcome = runner.run(&cases, |(route, method, id, more)| {
        let (_, path) = &listed[route.index(listed.len())];
        let (before, after) = path.split_once('{').map_or((path.as_str(), ""), |(a, b)| {
            (a, b.split_once('}').map_or("", |(_, rest)| rest))
        });
        let path = if path.contains('{') {
            format!("{before}{id}{after}{more}")
        } else {
            format!("{before}{more}")
        };
        if path.starts_with("/lease") || path.parse::<axum::http::Uri>().is_err() {
            return Ok(());
        }
        let asked = ask(&router, request(&method, &path, "{}"));
        let answer = runtime
            .block_on(async { tokio::time::timeout(LIMIT, asked).await })
            .unwrap();
        let what = format!("{method} {path}: {} {}", answer.status, answer.text);
        prop_assert!(is_fair(&answer), "{}", what);
        Ok(())
    });
    outcome.unwrap();
}
