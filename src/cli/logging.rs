//! Logs go to stderr: stdout is for what programs read.

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

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
pub fn init(level: Level, format: Format) {
    let filter = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(filter)
        // It would tell stderr that stderr is gone, and panic: a server outlives whoever read its log.
        .log_internal_errors(false);
    match format {
        Format::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_target(false).with_ansi(colours).init();
        }
        Format::Json => builder.json().flatten_event(true).init(),
    }
}
