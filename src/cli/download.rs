//! `mlxcel download`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::logging::{Format, Level, init};
use crate::hub::{self, HubOptions};

/// Download a model from the Hugging Face hub, and print the folder it lies in
///
/// Files go to the hub's own cache, which Python's huggingface_hub shares; what is there is not
/// fetched again. Honours HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE.
#[derive(clap::Args)]
pub struct Args {
    /// The repository, as `owner/name` or `owner/name@revision`
    repo: String,
}

/// Downloads.
pub fn run(args: Args) -> ExitCode {
    init(Level::Warn, Format::Text);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(&error),
    };
    let bar = bar();
    let progress = |progress: hub::Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.bytes);
        bar.set_message(progress.file);
    };
    let found = runtime.block_on(hub::resolve(&args.repo, &HubOptions::from_env(), progress));
    bar.finish_and_clear();
    match found {
        Ok(folder) => match writeln!(std::io::stdout(), "{}", folder.display()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::fail(&error),
        },
        Err(error) => super::fail(&error),
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let line = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";
    match ProgressStyle::with_template(line) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
