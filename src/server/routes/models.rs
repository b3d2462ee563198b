//! `GET /v1/models` and `GET /v1/models/{id}`: the one model that is served.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::error::{ApiError, Envelope};
use crate::server::model::{Capability, ServedModel};
use crate::server::state::Ready;

/// All that is served.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelList)]
pub struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// A model. Beside OpenAI's fields, what tells whether it can do a job.
#[derive(Serialize, ToSchema)]
pub struct Model {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// Tokens of one request, prompt and answer together: vLLM's name for it.
    max_model_len: usize,
    capabilities: Vec<Capability>,
    meta: Meta,
}

/// llama-server's names where it has one.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelMeta)]
struct Meta {
    architecture: String,
    n_params: u64,
    n_vocab: usize,
    n_ctx: usize,
    n_ctx_train: usize,
    /// Bytes of the weights.
    size: u64,
    quantization: Option<String>,
    dtype: String,
    chat: bool,
}

impl Model {
    fn of(model: &ServedModel) -> Self {
        let info = model.engine.model();
        let n_ctx = model.engine.context_length();
        let meta = Meta {
            architecture: info.architecture.clone(),
            n_params: info.parameters,
            n_vocab: info.vocab_size,
            n_ctx,
            n_ctx_train: info.context_length,
            size: info.weight_bytes,
            quantization: info.quantization.clone(),
            dtype: info.dtype.clone(),
            chat: model.text.template.is_some(),
        };
        Self {
            id: model.id.clone(),
            object: "model",
            created: model.created,
            owned_by: "mlxcel",
            max_model_len: n_ctx,
            capabilities: model.capabilities(),
            meta,
        }
    }
}

/// The models that are served
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = List)))]
pub async fn list(Ready(model): Ready) -> Json<List> {
    Json(List {
        object: "list",
        data: vec![Model::of(&model)],
    })
}

/// One of them
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "models",
    params(("id" = String, Path, description = "As `GET /v1/models` tells it; slashes need no escape.")),
    responses((status = 200, body = Model), (status = 404, description = "Another model.", body = Envelope))
)]
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
