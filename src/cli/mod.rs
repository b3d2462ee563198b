//! The command line, one file a command.

mod bytes;
mod download;
#[cfg(test)]
mod engine_death;
mod logging;
mod serve;

use std::io::Write;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

/// The crate's version and that of the MLX it was built against.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (MLX {})",
        env!("CARGO_PKG_VERSION"),
        crate::mlx::version()
    )
});

/// Serves language models on Apple's MLX, speaking the OpenAI API.
#[derive(Parser)]
#[command(name = "mlxcel", version = VERSION.as_str(), arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Download(download::Args),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    end_by_faults();
    match Cli::parse().command {
        Command::Serve(args) => serve::run(*args),
        Command::Download(args) => download::run(args),
    }
}

/// Leaves faults to the system. Rust's own handler, which has a message for an overflown stack, takes in the first
/// SIGSEGV or SIGBUS that another process sends: whoever sends one waits for an end that never comes.
fn end_by_faults() {
    #[cfg(unix)]
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: nothing of ours handles these, and no other thread runs yet.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A failure as the user sees it: one line, and exit code 1.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    // A line break in a message would hide its end from who reads one line.
    let line = error
        .to_string()
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    // Without anybody to read it there is still the exit code.
    let _ = writeln!(std::io::stderr(), "error: {line}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_names_mlx() {
        let version = Cli::command().render_version();
        assert!(
            version.contains(env!("CARGO_PKG_VERSION")) && version.contains("(MLX "),
            "{version}"
        );
    }
}
