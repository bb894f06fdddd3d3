//! The command tree: every verb and option of the one binary, with the text of its help.
//!
//! Verbs, options and their short forms are those of `patronictl`, so that fingers and scripts need not learn anew.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A build with planted flaws must not be taken for one to be used.
const VERSION: &str = if cfg!(feature = "zoo") {
    concat!(env!("CARGO_PKG_VERSION"), " with planted flaws")
} else {
    env!("CARGO_PKG_VERSION")
};

/// High availability for PostgreSQL: the agent, and the command line of its operator
#[derive(Debug, Parser)]
#[command(
    name = "surus",
    version = VERSION,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Configuration: the agent's own file, or one for the command line alone. Default: $PATRONICTL_CONFIG_FILE, $SURUS_CONFIG, ./patroni.yml, /etc/surus/surus.yml, /etc/patroni/config.yml, /etc/patroni.yml, ~/.config/patroni/patronictl.yaml
    #[arg(
        short = 'c',
        long,
        value_name = "FILE",
        global = true,
        help_heading = "Global options"
    )]
    pub config_file: Option<PathBuf>,
    /// The etcd to ask in place of the configured one, such as `etcd3://10.0.0.1:2379`; a path replaces the namespace
    #[arg(
        short = 'd',
        long,
        alias = "dcs",
        value_name = "URL",
        env = "DCS_URL",
        hide_env_values = true,
        global = true
    )]
    #[arg(help_heading = "Global options")]
    pub dcs_url: Option<String>,
    /// Accept certificates of members that cannot be verified
    #[arg(short = 'k', long, global = true, help_heading = "Global options")]
    pub insecure: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent of this node
    Run(Run),
    /// Route clients to the primary and the replicas, wherever they are
    Router(ConfigArg),
    /// Show the members of clusters
    List(List),
    /// Show the members of clusters as a tree of replication
    Topology(Topology),
    /// Show what a node believes and why it does what it does, or does not
    Explain(Explain),
    /// Hand the leadership to another member in good order
    Switchover(Switchover),
    /// Make a named member the leader, whether or not there is a healthy one
    Failover(Failover),
    /// Restart PostgreSQL of members
    Restart(Restart),
    /// Make the agents of members read their configuration files again
    Reload(Reload),
    /// Throw a replica's data away and copy them anew from the cluster
    Reinit(Reinit),
    /// Stop the agents from acting on their own (maintenance mode)
    Pause(Pause),
    /// Let the agents act on their own again
    Resume(Pause),
    /// Change the dynamic configuration
    EditConfig(EditConfig),
    /// Show the dynamic configuration
    ShowConfig(ClusterArg),
    /// Show the cluster's past leaders
    History(History),
    /// Drop scheduled restarts, or the scheduled switchover
    Flush(Flush),
    /// Delete everything that is stored about a cluster
    Remove(Remove),
    /// Print how to connect to a member
    Dsn(Dsn),
    /// Print the versions of this program and of members
    Version(Version),
    /// Check a configuration file, and the machine that the agent is to run on
    Validate(Validate),
    /// Show what the agent of today would have done with a recording
    Replay {
        /// The file that `surus run --record` wrote
        file: PathBuf,
    },
    /// Print a completion script
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one per verb
    #[command(hide = true)]
    Man {
        /// Write them into this directory
        directory: Option<PathBuf>,
    },
}

/// A configuration file as the only argument.
#[derive(Debug, Args)]
pub struct ConfigArg {
    /// The configuration file, or a directory of them
    #[arg(value_name = "CONFIG")]
    pub config: Option<PathBuf>,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The file.
    #[command(flatten)]
    pub file: ConfigArg,
    /// Write what the state machine is told into this file, for `surus replay`: about 1 MB in ten minutes
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// `validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// The file.
    #[command(flatten)]
    pub file: ConfigArg,
    /// Do not check that the ports are free: the agent is running
    #[arg(short, long)]
    pub ignore_listen_port: bool,
}

/// A cluster as the only argument.
#[derive(Debug, Args)]
pub struct ClusterArg {
    /// Name of the cluster; the configuration's `scope` unless given
    pub cluster: Option<String>,
}

/// A cluster, or members of it, or both.
#[derive(Debug, Args)]
pub struct Targets {
    /// Name of the cluster (the configuration's `scope` unless given), then names of members
    #[arg(value_name = "CLUSTER|MEMBER")]
    pub names: Vec<String>,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Format {
    /// A table for people
    #[default]
    Pretty,
    /// Values separated by tabs
    Tsv,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// YAML
    Yml,
}

/// Which members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The holder of the leader key
    Leader,
    /// The leader of a cluster that is no standby cluster
    Primary,
    /// The leader of a standby cluster
    StandbyLeader,
    /// All but the leader
    Replica,
    /// All but the leader
    Standby,
    /// All
    Any,
}

/// Repeating the output.
#[derive(Debug, Clone, Copy, Args)]
pub struct Watch {
    /// Refresh every two seconds
    #[arg(short = 'W')]
    pub watch: bool,
    /// Refresh every so many seconds
    #[arg(short = 'w', long = "watch", value_name = "SEC", value_parser = seconds)]
    pub every: Option<Duration>,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Names of clusters; the configuration's `scope` unless given
    pub clusters: Vec<String>,
    /// Show the columns for pending and scheduled restarts and tags even if they are empty
    #[arg(short, long)]
    pub extended: bool,
    /// Show the time
    #[arg(short, long)]
    pub timestamp: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true)]
    #[arg(help = "Output format: pretty, tsv, json, yaml or yml")]
    pub format: Format,
    /// Repeating the output.
    #[command(flatten)]
    pub watch: Watch,
}

/// `topology`.
#[derive(Debug, Args)]
pub struct Topology {
    /// Names of clusters; the configuration's `scope` unless given
    pub clusters: Vec<String>,
    /// Repeating the output.
    #[command(flatten)]
    pub watch: Watch,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Name of the member; the node of the configuration file unless given
    pub node: Option<String>,
    /// Output format
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    pub format: String,
}

/// `switchover`.
#[derive(Debug, Args)]
pub struct Switchover {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Name of the leader that shall step down
    #[arg(long, visible_alias = "primary", value_name = "NAME")]
    pub leader: Option<String>,
    /// Name of the member that shall take over
    #[arg(long, value_name = "NAME")]
    pub candidate: Option<String>,
    /// When: `now`, or a time with its zone such as 2026-11-24T10:33:00+01:00
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

/// `failover`.
#[derive(Debug, Args)]
pub struct Failover {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Name of the member that shall take over
    #[arg(long, value_name = "NAME")]
    pub candidate: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

/// `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// The members.
    #[command(flatten)]
    pub targets: Targets,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value = "any")]
    pub role: Role,
    /// One member of those that match, rather than all of them
    #[arg(long)]
    pub any: bool,
    /// When: `now`, or a time with its zone such as 2026-11-24T10:33:00+01:00
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Only where PostgreSQL is older than this, such as 15.18
    #[arg(long, value_name = "VERSION")]
    pub pg_version: Option<String>,
    /// Only where a setting waits for a restart
    #[arg(long)]
    pub pending: bool,
    /// Give up on a start that takes longer than this, and fail over if it is the leader's
    #[arg(long, value_name = "SEC", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

/// `reload`.
#[derive(Debug, Args)]
pub struct Reload {
    /// The members.
    #[command(flatten)]
    pub targets: Targets,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value = "any")]
    pub role: Role,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

/// `reinit`.
#[derive(Debug, Args)]
pub struct Reinit {
    /// The members.
    #[command(flatten)]
    pub targets: Targets,
    /// Ask nothing, and cancel what the member may be doing
    #[arg(long)]
    pub force: bool,
    /// Copy from the leader rather than from a member with the tag `clonefrom`
    #[arg(long)]
    pub from_leader: bool,
    /// Wait until it is done
    #[arg(long)]
    pub wait: bool,
}

/// `pause` and `resume`.
#[derive(Debug, Args)]
pub struct Pause {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Wait until every member has acknowledged it
    #[arg(long)]
    pub wait: bool,
}

/// `edit-config`.
#[derive(Debug, Args)]
pub struct EditConfig {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Set a key, such as ttl=20 or postgresql.use_slots=false; null deletes it
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Set a parameter of PostgreSQL, such as max_connections=200; null deletes it
    #[arg(short, long = "pg", value_name = "NAME=VALUE")]
    pub pg: Vec<String>,
    /// Merge a YAML file into the configuration; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub apply: Option<PathBuf>,
    /// Replace the configuration by a YAML file; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    pub replace: Option<PathBuf>,
    /// Do not show the difference
    #[arg(short, long)]
    pub quiet: bool,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

/// `history`.
#[derive(Debug, Args)]
pub struct History {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true)]
    #[arg(help = "Output format: pretty, tsv, json, yaml or yml")]
    pub format: Format,
}

/// `flush`.
#[derive(Debug, Args)]
pub struct Flush {
    /// Name of the cluster (the configuration's `scope` unless given), names of members, and `restart` or `switchover`
    #[arg(value_name = "CLUSTER|MEMBER|restart|switchover", required = true)]
    pub names: Vec<String>,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value = "any")]
    pub role: Role,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

/// `remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// Name of the cluster
    pub cluster: String,
}

/// `dsn`.
#[derive(Debug, Args)]
pub struct Dsn {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The first member with this role; the leader unless given
    #[arg(short, long, value_enum)]
    pub role: Option<Role>,
    /// This member
    #[arg(short, long, value_name = "NAME", conflicts_with = "role")]
    pub member: Option<String>,
}

/// `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// The members.
    #[command(flatten)]
    pub targets: Targets,
}

/// A positive number of seconds, optionally with a unit.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let scale = match unit.trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("`{other}` is no unit of time; use ms, s, min or h")),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| "expected a number of seconds, such as 5".to_owned())?;
    if !(number > 0.0 && number * scale <= 1e9) {
        return Err("expected a positive number of seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(number * scale))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(seconds("5"), Ok(Duration::from_secs(5)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("2min"), Ok(Duration::from_secs(120)));
        for text in ["0", "-1", "x", "", "5 weeks", "nan", "1e300"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
