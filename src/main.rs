//! The `mlxcel` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    mlxcel::cli::main()
}
