//! The `surus` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The guard must not have a second thread, nor much memory: it goes its own way before anything else is set up.
    if let Some(code) = surus::guard::run_if_guard() {
        return code;
    }
    let services = surus::ctl::Services {
        run: surus::agent::run_command,
        router: surus::router::command::router_command,
    };
    surus::ctl::main(std::env::args_os().collect(), services)
}
