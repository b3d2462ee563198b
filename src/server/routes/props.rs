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
                "top_k": defaults.top_k,
                "typical_p": defaults.typical_p,
                "top_p": defaults.top_p,
                "min_p": defaults.min_p,
                "xtc_probability": defaults.xtc_probability,
                "xtc_threshold": defaults.xtc_threshold,
                "repeat_penalty": defaults.repetition_penalty,
                "repeat_last_n": last_n(defaults.repetition_context),
                "presence_penalty": defaults.presence_penalty,
                "frequency_penalty": defaults.frequency_penalty,
                "dry_multiplier": defaults.dry.multiplier,
                "dry_base": defaults.dry.base,
                "dry_allowed_length": defaults.dry.allowed_length,
                "dry_penalty_last_n": last_n(defaults.dry.window),
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

/// llama-server's word for a window over everything is -1.
fn last_n(window: usize) -> i64 {
    match window {
        0 => -1,
        window => i64::try_from(window).unwrap_or(i64::MAX),
    }
}
