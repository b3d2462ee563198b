//! `GET /version`: of the server and of the MLX it computes with.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::mlx;

/// Versions.
#[derive(Serialize, ToSchema)]
pub struct Version {
    version: &'static str,
    mlx_version: String,
}

/// Versions of the server and of MLX
#[utoipa::path(get, path = "/version", tag = "server", responses((status = 200, body = Version)))]
pub async fn get() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        mlx_version: mlx::version().to_string(),
    })
}
