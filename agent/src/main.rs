//! The `surus` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    surus::guard::run_if_guard().unwrap_or(ExitCode::FAILURE)
}
