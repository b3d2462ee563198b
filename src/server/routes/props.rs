//! `GET /props`: what the server is and how it is set up, by llama-server's names.

use axum::Json;
use serde_json::{Value, json};

use crate::server::openai::FINGERPRINT;
use crate::server::state::Ready;

pub async fn get(Ready(model): Ready) -> Json<Value> {
    let info = model.engine.model();
    let defaults = &model.text.defaults.0;
    let stats = model.engine.stats();
    let n_ctx = model.engine.context_length();
    let template = model
        .text
        .template
        .as_ref()
        .and_then(|template| template.source(false).ok());
    Json(json!({
        "default_generation_settings": {
            "n_ctx": n_ctx,
            "params": {
                "n_predict": model.n_predict,
                "temperature": defaults.temperature,
                "top_p": defaults.top_p,
                "top_k": defaults.top_k,
                "min_p": defaults.min_p,
                "repeat_penalty": defaults.repetition_penalty,
            },
        },
        "n_ctx": n_ctx,
        "total_slots": stats.parallel,
        "busy_slots": stats.running,
        "queued_requests": stats.waiting,
        "model_path": model.path,
        "model_alias": model.alias,
        "model_id": model.id,
        "chat_template": template,
        "bos_token": model.text.tokenizer.bos_token(),
        "eos_token": model.text.tokenizer.eos_token(),
        "modalities": {"vision": false, "audio": false},
        "architecture": info.architecture,
        "quantization": info.quantization,
        "dtype": info.dtype,
        "build_info": FINGERPRINT,
    }))
}
