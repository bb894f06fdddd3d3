//! The operator's command line: `surus VERB`, and the same under the name `patronictl`.
//!
//! It reads the cluster's keys from etcd and asks the members' REST API to act; what it writes itself it writes by
//! compare-and-swap. It holds no state and decides nothing about the cluster.
//!
//! - **Data goes to standard output, everything else to standard error**, so that output can be piped.
//! - **A failure says what to do next**, as `error: …`, its causes, and `hint: …`; exit code 1 if the request cannot be
//!   fulfilled, 2 for wrong usage and for errors of our own.
//! - **Nothing changes before it was confirmed** or `--force` was given, and no password is ever printed.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command tree |
//! | [`session`] | what every command works with: the world, the terminal, the cluster that is meant |
//! | [`access`], [`live`] | the world as a trait, and the real one |
//! | [`terminal`], [`failure`] | talking to the operator |
//! | [`list`], [`edit`], [`switch`], [`members`], [`maintenance`], [`info`] | the verbs |
//! | [`table`], [`yaml`] | output formats |

pub mod access;
pub mod cli;
pub mod edit;
pub mod failure;
#[cfg(test)]
mod fake;
pub mod info;
pub mod list;
pub mod live;
pub mod maintenance;
pub mod members;
mod parse;
pub mod replay;
pub mod session;
pub mod settings;
pub mod switch;
pub mod table;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod yaml;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::config::validate::Options;
use crate::ctl::cli::{Cli, Command};
use crate::ctl::failure::Failure;
use crate::ctl::session::Session;
use crate::ctl::terminal::Terminal;

/// The version of Patroni whose command line this one stands in for; scripts that run it as `patronictl` compare it.
const PATRONICTL_VERSION: &str = "4.1.5";

/// The verbs that stay: they take over the process, with their configuration.
#[derive(Debug, Clone, Copy)]
pub struct Services {
    /// The agent, and where it is to record what it is told.
    pub run: fn(&Path, Option<&Path>) -> ExitCode,
    /// The router.
    pub router: fn(&Path) -> ExitCode,
}

/// The whole program.
pub fn main(arguments: Vec<OsString>, services: Services) -> ExitCode {
    let program = arguments.first().map(PathBuf::from).unwrap_or_default();
    let as_patronictl = program.file_stem().is_some_and(|name| name == "patronictl");
    let mut command = Cli::command();
    if as_patronictl {
        command = command.name("patronictl").bin_name("patronictl");
    }
    let parsed = command
        .try_get_matches_from_mut(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and have the exit code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Command::Run(arguments) = &cli.command {
        let file = arguments
            .file
            .config
            .clone()
            .or_else(|| cli.global.config_file.clone());
        return match file.map_or_else(settings::find, Ok) {
            Ok(file) => (services.run)(&file, arguments.record.as_deref()),
            Err(failure) => report(&mut Terminal::standard(), &failure, "error"),
        };
    }
    if let Command::Router(arguments) = &cli.command {
        let file = arguments
            .config
            .clone()
            .or_else(|| cli.global.config_file.clone());
        return match file.map_or_else(settings::find, Ok) {
            Ok(file) => (services.router)(&file),
            Err(failure) => report(&mut Terminal::standard(), &failure, "error"),
        };
    }
    let mut terminal = Terminal::standard();
    let result = match local(&cli, &mut terminal, as_patronictl) {
        Some(result) => result,
        None => match connect(&cli.global, &mut terminal) {
            Ok((access, node)) => {
                let mut session = Session {
                    access: Box::new(access),
                    terminal,
                    node,
                };
                let result = dispatch(&mut session, &cli.command);
                terminal = session.terminal;
                result
            }
            Err(failure) => Err(failure),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Programs that were written against patronictl look for its capital letter.
        Err(failure) => report(
            &mut terminal,
            &failure,
            if as_patronictl { "Error" } else { "error" },
        ),
    }
}

fn connect(global: &cli::Global, terminal: &mut Terminal) -> Result<(live::Live, session::Node), Failure> {
    let settings = settings::load(global, terminal)?;
    Ok((live::Live::new(&settings)?, settings.node))
}

fn report(terminal: &mut Terminal, failure: &Failure, word: &str) -> ExitCode {
    if failure.code() != 0 {
        terminal.note(&format!("{word}: {failure}"));
    }
    ExitCode::from(failure.code())
}

/// Verbs that need no cluster; `None` for all others.
fn local(cli: &Cli, terminal: &mut Terminal, as_patronictl: bool) -> Option<Result<(), Failure>> {
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "surus", &mut script);
            Some(terminal.print(&String::from_utf8_lossy(&script)))
        }
        Command::Man { directory } => Some(manual(terminal, directory.as_deref())),
        Command::Validate(arguments) => {
            let file = arguments
                .file
                .config
                .clone()
                .or_else(|| cli.global.config_file.clone());
            let options = Options {
                ignore_listen_port: arguments.ignore_listen_port,
            };
            let file = file.map_or_else(settings::find, Ok);
            Some(file.and_then(|file| settings::validate(terminal, &file, options)))
        }
        Command::Replay { file } => Some(replay::replay(terminal, file)),
        Command::Version(arguments) => {
            let line = if as_patronictl {
                format!("patronictl version {PATRONICTL_VERSION}")
            } else {
                format!("surus version {}", env!("CARGO_PKG_VERSION"))
            };
            let printed = terminal.print(&line);
            (arguments.targets.names.is_empty() || printed.is_err()).then_some(printed)
        }
        _ => None,
    }
}

/// Runs one verb that concerns a cluster.
pub fn dispatch(session: &mut Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list::list(session, arguments),
        Command::Topology(arguments) => list::topology(session, arguments),
        Command::History(arguments) => list::history(session, arguments),
        Command::Explain(arguments) => info::explain(session, arguments),
        Command::Switchover(arguments) => switch::switchover(session, arguments),
        Command::Failover(arguments) => switch::failover(session, arguments),
        Command::Restart(arguments) => members::restart(session, arguments),
        Command::Reload(arguments) => members::reload(session, arguments),
        Command::Reinit(arguments) => members::reinit(session, arguments),
        Command::Pause(arguments) => maintenance::pause(session, arguments, true),
        Command::Resume(arguments) => maintenance::pause(session, arguments, false),
        Command::EditConfig(arguments) => edit::edit_config(session, arguments),
        Command::ShowConfig(arguments) => edit::show_config(session, arguments),
        Command::Flush(arguments) => maintenance::flush(session, arguments),
        Command::Remove(arguments) => maintenance::remove(session, arguments),
        Command::Dsn(arguments) => info::dsn(session, arguments),
        Command::Version(arguments) => info::version(session, arguments),
        Command::Run(_)
        | Command::Router(_)
        | Command::Validate(_)
        | Command::Replay { .. }
        | Command::Completions { .. }
        | Command::Man { .. } => Err(Failure::internal("a verb without a cluster was sent to one")),
    }
}

fn manual(terminal: &mut Terminal, directory: Option<&Path>) -> Result<(), Failure> {
    if let Some(directory) = directory {
        let trouble =
            |error| Failure::new(format!("cannot write to {}", directory.display())).because(&error);
        std::fs::create_dir_all(directory).map_err(trouble)?;
        return clap_mangen::generate_to(Cli::command(), directory).map_err(trouble);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    terminal.print(&String::from_utf8_lossy(&page))
}
