//! `GET /`: who answers here. Open to all.

use axum::Json;
use serde_json::{Value, json};

pub async fn get() -> Json<Value> {
    let routes = super::listed()
        .into_iter()
        .map(|(method, path)| format!("{method} {path}"));
    Json(json!({
        "name": "mlxcel",
        "version": env!("CARGO_PKG_VERSION"),
        "routes": routes.collect::<Vec<_>>(),
    }))
}
