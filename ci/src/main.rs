//! `cargo ci <verb>`: what CI and people run around the product.
//!
//! - on real processes: [`demo`] (one fault, shown), [`bench`] (all of them, against [`budgets`] and beside [`patroni`], drawn by
//!   [`plot`]), [`cost`] (what an agent costs its host, under the [`load`] of health checks), [`checks`] (the promises one by one), [`router`],
//!   [`synchronous`] and [`storm`] (with a synchronous cluster: [`standing`], [`strike`]);
//!   they stand on [`cluster`] = [`etcd`] + three [`node`]s + [`haproxy`] on some [`ground`], hit it with [`faults`], and judge by what [`client`]s
//!   saw ([`history`]) in a [`trial`]; [`phases`] says where the time went
//! - on the tree: [`tidy`]
//! - in any world: [`stories`], and [`courses`] of one held against those of another
//! - for a release: [`package`]
//!
//! What the suites share with others is in the library `surus_ci`.
//!
//! Guarantees: nothing is ended that a run did not start, nothing stays behind unless asked for, and the exit code is 0 only when the
//! product did all that the verb is about (1: it did not; 2: could not find out; 130: interrupted).

mod bench;
mod budgets;
mod checks;
mod cluster;
mod cost;
mod courses;
mod demo;
mod etcd;
mod faults;
mod ground;
mod haproxy;
mod layout;
mod load;
mod node;
mod package;
mod patroni;
mod phases;
mod plot;
mod proc;
mod reader;
mod router;
mod standing;
mod stories;
mod storm;
mod strike;
mod synchronous;
mod tidy;
mod trial;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

// Seen by every module here as if it were of this crate.
use surus_ci::{client, error, gateway, history, http, images, lock, report, tool};

use crate::error::{Result, chain};
use crate::report::{Paint, Report};

/// What CI and people run around Surus
#[derive(Debug, Parser)]
#[command(name = "cargo ci")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Three nodes, one fault at the primary, and what every client saw of it (use ./ci/demo)
    Demo(demo::Demo),
    /// Every fault, measured against the budgets in ci/budgets.toml, and beside Patroni if asked for
    Bench(bench::Bench),
    /// Kill and freeze agent and guard under writers on every node: two primaries never
    SplitBrain(checks::Suite),
    /// Kill and start the agent over a running primary: clients notice nothing
    AgentRestart(checks::Suite),
    /// Stop all of etcd and start it again: the primary goes on
    EtcdOutage {
        /// How long etcd is away
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        #[command(flatten)]
        suite: checks::Suite,
    },
    /// Clients behind the built-in router beside direct ones, and switchovers under pgbench -C
    Router(router::Options),
    /// Synchronous replication in each mode: who stands in for whom, how long commits wait, and that none is lost
    Synchronous(synchronous::Plays),
    /// Random faults, one or two at a time, in each synchronous mode: no acknowledged write is lost
    Storm(storm::Storm),
    /// What an agent and its guard cost their host, against the budgets in ci/budgets.toml, and beside Patroni if asked for
    Cost(cost::Options),
    /// Check the rules of the tree that no compiler checks
    Tidy,
    /// Build the Debian package
    Package(package::Package),
    /// Make the Docker images of hosts, from Debian's packages, where they are missing or out of date
    Images(stories::Images),
    /// Play stories of scenarios/ in a simulated world or on containers
    Stories(stories::Stories),
    /// Install the package as the README says in a container of a Debian release
    TryInstall(package::TryInstall),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = Report::new();
    match run(&arguments.verb, report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.line(&report.paint(Paint::Red, format!("failed: {}", chain(&error))));
            ExitCode::from(error.exit_code())
        }
    }
}

#[tokio::main]
async fn run(verb: &Verb, report: Report) -> Result<()> {
    match verb {
        Verb::Demo(options) => demo::demo(options, report).await,
        Verb::Bench(options) => bench::bench(options, report).await,
        Verb::SplitBrain(suite) => checks::split_brain(suite, report).await,
        Verb::AgentRestart(suite) => checks::agent_restart(suite, report).await,
        Verb::EtcdOutage { seconds, suite } => checks::etcd_outage(suite, *seconds, report).await,
        Verb::Router(options) => router::router(options, report).await,
        Verb::Synchronous(options) => synchronous::synchronous(options, report).await,
        Verb::Storm(options) => storm::storm(options, report).await,
        Verb::Cost(options) => cost::cost_of(options, report).await,
        Verb::Tidy => tidy::tidy(report),
        Verb::Package(options) => package::package(options, report),
        Verb::Images(options) => stories::images(options, report),
        Verb::Stories(options) => stories::stories(options, report),
        Verb::TryInstall(options) => package::try_install(options, report),
    }
}
