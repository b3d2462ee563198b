//! `GET /props`: what the server is, how it is set up (by llama-server's names), and how it fares.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::mlx::{self, Device, Memory};
use crate::server::openai::FINGERPRINT;
use crate::server::resident;
use crate::server::state::{App, Ready};

pub async fn get(State(app): State<App>, Ready(model): Ready) -> Json<Value> {
    let memory = Memory::now();
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
        "version": env!("CARGO_PKG_VERSION"),
        "mlx_version": mlx::version(),
        "device": match model.engine.device() {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        },
        "pid": std::process::id(),
        "started_at": app.started_at(),
        "uptime_seconds": app.uptime().as_secs_f64(),
        "leases": app.usage().leases(),
        "memory": {
            "rss_bytes": resident::bytes(),
            "active_bytes": memory.active,
            "peak_bytes": memory.peak,
            "cache_bytes": memory.cache,
        },
        "kv_cache": {
            "budget_bytes": stats.kv_budget,
            "running_bytes": stats.kv_bytes,
            "prefix_cache_bytes": stats.cache_bytes,
            "prefix_cache_tokens_total": stats.cached_tokens,
            "preemptions_total": stats.preemptions,
        },
        "throughput": {
            "prompt_tokens_total": stats.prompt_tokens,
            "generated_tokens_total": stats.completion_tokens,
            "prompt_tokens_per_second": stats.prompt_tokens_per_second,
            "generated_tokens_per_second": stats.completion_tokens_per_second,
        },
    }))
}

/// llama-server's word for a window over everything is -1.
fn last_n(window: usize) -> i64 {
    match window {
        0 => -1,
        window => i64::try_from(window).unwrap_or(i64::MAX),
    }
}
