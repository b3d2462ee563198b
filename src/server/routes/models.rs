//! `GET /v1/models` and `GET /v1/models/{id}`: the one model that is served.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use serde::Serialize;

use crate::server::error::ApiError;
use crate::server::model::ServedModel;
use crate::server::state::Ready;

#[derive(Serialize)]
pub struct List {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize)]
pub struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    meta: Meta,
}

/// llama-server's names where it has one.
#[derive(Serialize)]
struct Meta {
    architecture: String,
    n_params: u64,
    n_vocab: usize,
    n_ctx: usize,
    n_ctx_train: usize,
    size: u64,
    quantization: Option<String>,
    dtype: String,
    chat: bool,
}

impl Model {
    fn of(model: &ServedModel) -> Self {
        let info = model.engine.model();
        let meta = Meta {
            architecture: info.architecture.clone(),
            n_params: info.parameters,
            n_vocab: info.vocab_size,
            n_ctx: model.engine.context_length(),
            n_ctx_train: info.context_length,
            size: info.weight_bytes,
            quantization: info.quantization.clone(),
            dtype: info.dtype.clone(),
            chat: model.text.template.is_some(),
        };
        let id = model.id.clone();
        Self {
            id,
            object: "model",
            created: model.created,
            owned_by: "mlxcel",
            meta,
        }
    }
}

pub async fn list(Ready(model): Ready) -> Json<List> {
    Json(List {
        object: "list",
        data: vec![Model::of(&model)],
    })
}

pub async fn retrieve(
    Ready(model): Ready,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::invalid("model", error.body_text()))?;
    if id == model.id {
        Ok(Json(Model::of(&model)))
    } else {
        Err(ApiError::model_not_found(&id, &model.id))
    }
}
