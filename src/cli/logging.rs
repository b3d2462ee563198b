//! Logs go to stderr: stdout is for what programs read.

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Failures only.
    Error,
    /// And what deserves attention.
    Warn,
    /// And one line a request.
    Info,
    /// And health checks and broken connections.
    Debug,
    /// Everything.
    Trace,
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; once a process.
///
/// A log that cannot be written (the reader of the pipe is gone) is no reason to fail a request, so
/// the subscriber's own complaint about it, which panics without a stderr, is off.
pub fn init(level: Level, format: Format) {
    let filter = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // hf-hub calls every failed try an error, also when a cached copy is found after it.
    let targets = Targets::new()
        .with_default(filter)
        .with_target("hf_hub", LevelFilter::OFF);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(targets);
    match format {
        Format::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry
                .with(layer.with_target(false).with_ansi(colours))
                .init();
        }
        Format::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
}
