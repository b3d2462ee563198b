//! `GET /`: who answers here. Open to all.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// Who answers.
#[derive(Serialize, ToSchema)]
#[schema(as = Server)]
pub struct Root {
    name: &'static str,
    version: &'static str,
    /// Each as its method and its path.
    routes: Vec<String>,
}

/// Name, version, routes
#[utoipa::path(get, path = "/", tag = "server", responses((status = 200, body = Root)))]
pub async fn get() -> Json<Root> {
    let routes = super::listed()
        .into_iter()
        .map(|(method, path)| format!("{method} {path}"));
    Json(Root {
        name: "mlxcel",
        version: env!("CARGO_PKG_VERSION"),
        routes: routes.collect(),
    })
}
