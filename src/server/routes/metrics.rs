//! `GET /metrics`: Prometheus's text format, by vLLM's names where the meaning is the same.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{TEXT_FORMAT, TextEncoder};

use crate::engine::Histogram;
use crate::server::error::ApiError;
use crate::server::model::ServedModel;
use crate::server::resident;
use crate::server::state::{App, Ready};

/// Counters and latencies in Prometheus's text format
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub async fn get(State(app): State<App>, Ready(model): Ready) -> Result<Response, ApiError> {
    let text = TextEncoder::new()
        .encode_to_string(&families(&app, &model))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

fn families(app: &App, model: &ServedModel) -> Vec<MetricFamily> {
    let stats = model.engine.stats();
    let waits = model.engine.latencies();
    let metrics = &model.metrics;
    let page = Page { model: &model.id };
    let used = stats.kv_bytes as f64 / stats.kv_budget.max(1) as f64;
    let mut all = vec![
        page.gauge(
            "vllm:num_requests_running",
            "Outputs in the batch.",
            stats.running as f64,
        ),
        page.gauge(
            "vllm:num_requests_waiting",
            "Outputs that wait for a place in the batch.",
            stats.waiting as f64,
        ),
        page.gauge(
            "vllm:kv_cache_usage_perc",
            "Share of the memory for states that running requests take, 0 to 1.",
            used,
        ),
        page.counter(
            "vllm:prefix_cache_queries_total",
            "Prompt tokens that were looked for in the prefix cache.",
            stats.queried_tokens,
        ),
        page.counter(
            "vllm:prefix_cache_hits_total",
            "Prompt tokens that were found there.",
            stats.cached_tokens,
        ),
        page.counter(
            "vllm:num_preemptions_total",
            "Places taken back for want of memory.",
            stats.preemptions,
        ),
        page.counter(
            "vllm:prompt_tokens_total",
            "Tokens of prompts, computed or found in the prefix cache.",
            stats.prompt_tokens + stats.cached_tokens,
        ),
        page.counter(
            "vllm:generation_tokens_total",
            "Tokens generated.",
            stats.completion_tokens,
        ),
        page.ended(metrics.ended()),
    ];
    for (name, help, histogram) in [
        (
            "vllm:time_to_first_token_seconds",
            "From submission to the first token.",
            &waits.first_token,
        ),
        (
            "vllm:inter_token_latency_seconds",
            "From a token to the next.",
            &waits.between_tokens,
        ),
        (
            "vllm:request_queue_time_seconds",
            "From submission to the first step.",
            &waits.queued,
        ),
        (
            "vllm:request_time_per_output_token_seconds",
            "An output's mean from token to token.",
            &metrics.per_token,
        ),
        (
            "vllm:e2e_request_latency_seconds",
            "From submission to the last token.",
            &metrics.whole,
        ),
        (
            "vllm:request_inference_time_seconds",
            "From the first step to the last token.",
            &metrics.inference,
        ),
        (
            "vllm:request_prefill_time_seconds",
            "From the first step to the first token.",
            &metrics.prefill,
        ),
        (
            "vllm:request_decode_time_seconds",
            "From the first token to the last.",
            &metrics.decode,
        ),
        (
            "vllm:request_prompt_tokens",
            "Tokens of the prompt.",
            &metrics.prompt_tokens,
        ),
        (
            "vllm:request_generation_tokens",
            "Tokens of the output.",
            &metrics.generated_tokens,
        ),
    ] {
        all.push(page.histogram(name, help, histogram));
    }
    for (name, help, value) in [
        (
            "mlxcel:slots",
            "Places in the batch.",
            stats.parallel as f64,
        ),
        (
            "mlxcel:kv_cache_budget_bytes",
            "Memory for the states of requests, running and kept.",
            stats.kv_budget as f64,
        ),
        (
            "mlxcel:prefix_cache_bytes",
            "Memory that kept prompts take.",
            stats.cache_bytes as f64,
        ),
        (
            "mlxcel:leases",
            "Leases that are held.",
            app.usage().leases() as f64,
        ),
        (
            "process_start_time_seconds",
            "When the server started, in seconds since 1970.",
            app.started_at() as f64,
        ),
    ] {
        all.push(page.gauge(name, help, value));
    }
    if let Some(bytes) = resident::bytes() {
        let help = "Memory of the process that is in RAM, mapped weights included.";
        all.push(page.gauge("process_resident_memory_bytes", help, bytes as f64));
    }
    all
}

/// Writes metrics of one model.
struct Page<'a> {
    model: &'a str,
}

impl Page<'_> {
    fn labels(&self, more: Option<(&str, &str)>) -> Vec<LabelPair> {
        let pair = |(name, value): (&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        let all = more.into_iter().chain([("model_name", self.model)]);
        all.map(pair).collect()
    }

    fn gauge(&self, name: &str, help: &str, value: f64) -> MetricFamily {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(self.labels(None));
        metric.set_gauge(gauge);
        family(name, help, MetricType::GAUGE, vec![metric])
    }

    fn count(&self, label: Option<(&str, &str)>, value: u64) -> Metric {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::from_label(self.labels(label));
        metric.set_counter(counter);
        metric
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> MetricFamily {
        let metric = self.count(None, value);
        family(name, help, MetricType::COUNTER, vec![metric])
    }

    fn ended(&self, reasons: impl Iterator<Item = (&'static str, u64)>) -> MetricFamily {
        let of = |(reason, value)| self.count(Some(("finished_reason", reason)), value);
        let help = "Outputs by how they ended.";
        let kind = MetricType::COUNTER;
        family(
            "vllm:request_success_total",
            help,
            kind,
            reasons.map(of).collect(),
        )
    }

    fn histogram(&self, name: &str, help: &str, histogram: &Histogram) -> MetricFamily {
        let spread = histogram.spread();
        let bucket = |(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut told = prometheus::proto::Histogram::default();
        told.set_bucket(spread.buckets.into_iter().map(bucket).collect());
        told.set_sample_count(spread.count);
        told.set_sample_sum(spread.sum);
        let mut metric = Metric::from_label(self.labels(None));
        metric.set_histogram(told);
        family(name, help, MetricType::HISTOGRAM, vec![metric])
    }
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
