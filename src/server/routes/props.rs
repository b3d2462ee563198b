//! `GET /props`: what the server is, how it is set up (by llama-server's names), and how it fares.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::{SamplingParams, Stats};
use crate::mlx::{self, Device};
use crate::server::model::Capability;
use crate::server::openai::FINGERPRINT;
use crate::server::resident;
use crate::server::state::{App, Ready};

/// What the server is and how it fares.
#[derive(Serialize, ToSchema)]
pub struct Props {
    default_generation_settings: Defaults,
    /// Tokens of one request, prompt and answer together.
    n_ctx: usize,
    total_slots: usize,
    busy_slots: usize,
    queued_requests: usize,
    model_path: String,
    model_alias: Option<String>,
    model_id: String,
    chat_template: Option<String>,
    /// The one for requests with tools, where it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_tool_use: Option<String>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    modalities: Modalities,
    capabilities: Vec<Capability>,
    architecture: String,
    quantization: Option<String>,
    dtype: String,
    build_info: &'static str,
    version: &'static str,
    mlx_version: String,
    /// `cpu` or `gpu`.
    device: &'static str,
    endpoint_slots: bool,
    endpoint_metrics: bool,
    /// Whether the properties can be changed.
    endpoint_props: bool,
    pid: u32,
    /// Seconds since 1970.
    started_at: u64,
    uptime_seconds: f64,
    leases: usize,
    memory: Memory,
    kv_cache: KvCache,
    throughput: Throughput,
}

/// What a request gets that does not say otherwise.
#[derive(Serialize, ToSchema)]
struct Defaults {
    n_ctx: usize,
    params: Settings,
}

/// How tokens are chosen, by llama-server's names.
#[derive(Serialize, ToSchema)]
#[schema(as = SamplingSettings)]
pub struct Settings {
    n_predict: Option<usize>,
    seed: Option<u64>,
    temperature: f32,
    top_k: usize,
    typical_p: f32,
    top_p: f32,
    min_p: f32,
    xtc_probability: f32,
    xtc_threshold: f32,
    repeat_penalty: f32,
    repeat_last_n: i64,
    presence_penalty: f32,
    frequency_penalty: f32,
    dry_multiplier: f32,
    dry_base: f32,
    dry_allowed_length: usize,
    dry_penalty_last_n: i64,
}

#[derive(Serialize, ToSchema)]
struct Modalities {
    vision: bool,
    audio: bool,
}

/// In bytes; `rss` is the process's, the others are MLX's.
#[derive(Serialize, ToSchema)]
struct Memory {
    rss_bytes: Option<u64>,
    active_bytes: u64,
    peak_bytes: u64,
    cache_bytes: u64,
}

/// The states of requests, running and kept.
#[derive(Serialize, ToSchema)]
struct KvCache {
    budget_bytes: u64,
    running_bytes: u64,
    prefix_cache_bytes: u64,
    prefix_cache_tokens_total: u64,
    preemptions_total: u64,
}

/// Since the start, and over the last ten seconds.
#[derive(Serialize, ToSchema)]
struct Throughput {
    prompt_tokens_total: u64,
    generated_tokens_total: u64,
    prompt_tokens_per_second: f64,
    generated_tokens_per_second: f64,
}

impl Settings {
    /// `n_predict` is how many tokens an answer may have; `None` is as many as fit.
    pub fn of(sampling: &SamplingParams, n_predict: Option<usize>) -> Self {
        Self {
            n_predict,
            seed: sampling.seed,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            typical_p: sampling.typical_p,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            xtc_probability: sampling.xtc_probability,
            xtc_threshold: sampling.xtc_threshold,
            repeat_penalty: sampling.repetition_penalty,
            repeat_last_n: last_n(sampling.repetition_context),
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            dry_multiplier: sampling.dry.multiplier,
            dry_base: sampling.dry.base,
            dry_allowed_length: sampling.dry.allowed_length,
            dry_penalty_last_n: last_n(sampling.dry.window),
        }
    }
}

impl Memory {
    fn now() -> Self {
        let mlx = mlx::Memory::now();
        Self {
            rss_bytes: resident::bytes(),
            active_bytes: mlx.active,
            peak_bytes: mlx.peak,
            cache_bytes: mlx.cache,
        }
    }
}

impl From<&Stats> for KvCache {
    fn from(stats: &Stats) -> Self {
        Self {
            budget_bytes: stats.kv_budget,
            running_bytes: stats.kv_bytes,
            prefix_cache_bytes: stats.cache_bytes,
            prefix_cache_tokens_total: stats.cached_tokens,
            preemptions_total: stats.preemptions,
        }
    }
}

impl From<&Stats> for Throughput {
    fn from(stats: &Stats) -> Self {
        Self {
            prompt_tokens_total: stats.prompt_tokens,
            generated_tokens_total: stats.completion_tokens,
            prompt_tokens_per_second: stats.prompt_tokens_per_second,
            generated_tokens_per_second: stats.completion_tokens_per_second,
        }
    }
}

/// What the server is, and how it fares
#[utoipa::path(get, path = "/props", tag = "server", responses((status = 200, body = Props)))]
pub async fn get(State(app): State<App>, Ready(model): Ready) -> Json<Props> {
    let info = model.engine.model();
    let stats = model.engine.stats();
    let n_ctx = model.engine.context_length();
    let template = |with_tools| {
        let template = model.text.template.as_ref()?;
        template.source(with_tools).ok().map(str::to_owned)
    };
    let chat_template = template(false);
    Json(Props {
        default_generation_settings: Defaults {
            n_ctx,
            params: Settings::of(&model.text.defaults.0, model.n_predict),
        },
        n_ctx,
        total_slots: stats.parallel,
        busy_slots: stats.running,
        queued_requests: stats.waiting,
        model_path: model.path.display().to_string(),
        model_alias: model.alias.clone(),
        model_id: model.id.clone(),
        chat_template_tool_use: template(true).filter(|_| template(true) != chat_template),
        chat_template,
        bos_token: model.text.tokenizer.bos_token().map(str::to_owned),
        eos_token: model.text.tokenizer.eos_token().map(str::to_owned),
        modalities: Modalities {
            vision: false,
            audio: false,
        },
        capabilities: model.capabilities(),
        architecture: info.architecture.clone(),
        quantization: info.quantization.clone(),
        dtype: info.dtype.clone(),
        build_info: FINGERPRINT,
        version: env!("CARGO_PKG_VERSION"),
        mlx_version: mlx::version().to_string(),
        device: match model.engine.device() {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        },
        endpoint_slots: true,
        endpoint_metrics: true,
        endpoint_props: false,
        pid: std::process::id(),
        started_at: app.started_at(),
        uptime_seconds: app.uptime().as_secs_f64(),
        leases: app.usage().leases(),
        memory: Memory::now(),
        kv_cache: KvCache::from(&stats),
        throughput: Throughput::from(&stats),
    })
}

/// llama-server's word for a window over everything is -1.
fn last_n(window: usize) -> i64 {
    match window {
        0 => -1,
        window => i64::try_from(window).unwrap_or(i64::MAX),
    }
}
