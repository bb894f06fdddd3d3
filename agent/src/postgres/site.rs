//! The place where PostgreSQL lives: its directory, its programs, its processes.
//!
//! [`Site`] is the seam between carrying out an order ([`Postgres`](super::Postgres): in which sequence, until when, under whose guard)
//! and touching the machine. In production it is [`Local`](super::Local), files and processes of this host; a simulator puts its model of a
//! server behind it. What goes over a connection (SQL) does not pass here but through [`Dial`](crate::net::Dial), and the postmaster
//! itself is started through [`ProcessControl`](super::ProcessControl).
//!
//! Every method says what *is* or does one thing; none decides. All may take as long as a disk or a program takes, and callers bound them.
//! Dropping a future of [`Site::create`], [`Site::copy_from`], [`Site::rewind`] or [`Site::hook`] kills the program that it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use surus_core::action::Upstream;
use surus_core::sync::Names;
use surus_core::types::{Lsn, SystemId, Timeline};
use surus_core::view::{ControlData, ControlState, HistoryLine};

use super::{BoxFuture, Error, Signal};
use crate::config::settings::{Bootstrap, CustomMethod, PostgresSettings};

/// The place where PostgreSQL lives.
pub trait Site: Send + Sync + 'static {
    /// New settings are in force: where things are, and what tools are run with.
    fn obey(&self, settings: Arc<PostgresSettings>);

    // What is there.

    /// Looks at the few small files that change while a server starts, runs and stops.
    fn look(&self) -> BoxFuture<'_, Look>;
    /// The process lives and is a server process of this directory.
    fn alive(&self, pid: u32) -> BoxFuture<'_, bool>;
    /// All server processes at work here: the postmaster and its children, or those that outlived it.
    fn users(&self) -> BoxFuture<'_, BTreeSet<u32>>;
    /// What the directory holds, judged by a server of the major version `major` if that is known.
    fn inspect(&self, major: Option<u32>) -> BoxFuture<'_, Found>;
    /// All of the control file.
    fn control_file(&self) -> BoxFuture<'_, Result<ControlFile, Error>>;
    /// What was begun here and is not finished.
    fn unfinished(&self) -> BoxFuture<'_, Option<Unfinished>>;
    /// The text of a timeline's history file; `None` if there is none.
    fn history(&self, timeline: Timeline) -> BoxFuture<'_, Option<String>>;
    /// By whom commits are acknowledged, as [`Site::configure`] last wrote it; `None` if it left that to the user.
    fn synchronous(&self) -> BoxFuture<'_, Option<Names>>;
    /// Whom the server lets in, as [`Site::configure`] last wrote it; `None` if it wrote of no gate.
    fn gate(&self) -> BoxFuture<'_, Option<Gate>>;
    /// A server calls `data_directory` its own: is that this one?
    fn is_here(&self, data_directory: String) -> BoxFuture<'_, bool>;

    // What is installed.

    /// The major version of the installed server.
    fn major(&self) -> BoxFuture<'_, Result<u32, Error>>;
    /// The parameters that the installed server knows, numbers brought into its range.
    fn fitting<'a>(
        &'a self,
        wanted: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, Error>>;
    /// What to start as the postmaster, with these parameters on its command line.
    fn launch(&self, command_line: &BTreeMap<String, String>) -> Launch;

    // Processes.

    /// Signals a server that is in nobody's custody; [`Signal::Kill`] goes to every process of it. One that is gone is no error.
    fn signal(&self, pid: u32, signal: Signal) -> BoxFuture<'_, Result<(), Error>>;
    /// Asks the running standby for promotion without a connection.
    fn promote(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Wakes the startup process `pid` of the running standby.
    fn wake(&self, pid: u32) -> BoxFuture<'_, ()>;
    /// Ends the tools (initdb, pg_basebackup, pg_rewind) that a killed agent left at work on the directory.
    fn clear_strays(&self) -> BoxFuture<'_, Result<(), Error>>;

    // Files.

    /// Writes the configuration. Returns whether anything changed.
    fn configure<'a>(&'a self, wanted: &'a Configuration) -> BoxFuture<'a, Result<bool, Error>>;
    /// Puts the signal files in order for a start as primary or as standby, and clears away what a dead server left: its pid file, and for
    /// a standby the reserved timelines of a promotion that did not happen, and what came of one that has not begun. Returns whether a
    /// standby.signal was taken away. Fails when server processes are at work here.
    fn prepare(&self, primary: bool) -> BoxFuture<'_, Result<bool, Error>>;
    /// Writes standby.signal, or takes it away.
    fn set_standby(&self, standby: bool) -> BoxFuture<'_, Result<(), Error>>;
    /// Removes the pid file of a dead server. Fails when server processes are at work here.
    fn remove_stale_pid_file(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Makes sure that a promotion takes a timeline above `above`: the numbers up to it that have no history file get an empty one.
    fn reserve(&self, above: Timeline) -> BoxFuture<'_, Result<(), Error>>;
    /// Puts the passwords for a member where PostgreSQL and its tools find them.
    fn keep_passwords<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Result<(), Error>>;
    /// The copy of the dynamic configuration, which refills an emptied DCS.
    fn kept_dynamic(&self) -> BoxFuture<'_, Option<Value>>;
    /// Keeps that copy, if there is a cluster to keep it in.
    fn keep_dynamic<'a>(&'a self, dynamic: &'a Value) -> BoxFuture<'a, ()>;

    // Programs.

    /// Puts one command to another server, in SQL or in the language of the replication protocol; columns come separated by tabs.
    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<String, Error>>;
    /// Marks that an operation begins, and makes room for it as it wants.
    fn begin(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>>;
    /// The operation is done: the mark goes, and a clone is made a standby.
    fn finish(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>>;
    /// The operation failed: what it made goes out of the way where it may, and the mark with it. A bootstrap's directory is moved aside;
    /// a clone's, in which nothing else ever was, emptied.
    fn abandon(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>>;
    /// Makes a new cluster with initdb or the user's own method.
    fn create<'a>(&'a self, bootstrap: &'a Bootstrap) -> BoxFuture<'a, Result<(), Error>>;
    /// Runs the user's script on a new cluster, whose server `file` names.
    fn post_bootstrap<'a>(&'a self, file: PidFile, command: &'a str) -> BoxFuture<'a, Result<(), Error>>;
    /// Copies a member's cluster with pg_basebackup or the user's own `method`.
    fn copy_from<'a>(
        &'a self,
        from: &'a Upstream,
        method: Option<&'a CustomMethod>,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Error>>;
    /// Keeps a copy of the WAL that only this node has, beside the directory.
    fn keep_diverged(&self, divergence: Divergence) -> BoxFuture<'_, Result<(), Error>>;
    /// Rewinds the stopped directory onto the history of the member at `at`, to which `conninfo` leads.
    fn rewind<'a>(
        &'a self,
        at: &'a Address,
        conninfo: &'a str,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Error>>;
    /// Runs one of the user's hooks to its end.
    fn hook<'a>(
        &'a self,
        name: &'static str,
        command: &'a str,
        limit: Duration,
    ) -> BoxFuture<'a, Result<(), Error>>;
    /// Starts the user's callback for `action` (`on_start`, …), if there is one, ending the one before it.
    fn callback(&self, action: &'static str, role: &'static str);
}

/// Is told how far a copy has come.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// How far a copy has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `basebackup` or `rewind`.
    pub operation: &'static str,
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes to copy, as far as the tool knows.
    pub total_bytes: u64,
}

/// The small files of a data directory at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// What `postmaster.pid` says, whether its postmaster lives or not.
    pub pid_file: Option<PidFile>,
    /// The postmaster that it names lives, and is at work here.
    pub alive: bool,
    /// The beginning of the control file; `None` if it cannot be read.
    pub control: Option<Light>,
    /// There is a standby.signal.
    pub standby: bool,
    /// There is a backup_label: no server has come up on this base backup yet.
    pub backup_label: bool,
}

impl Look {
    /// The living postmaster.
    #[must_use]
    pub fn postmaster(self) -> Option<PidFile> {
        self.pid_file.filter(|_| self.alive)
    }

    /// The position of the shutdown checkpoint, if the server was stopped cleanly.
    #[must_use]
    pub fn clean_checkpoint(&self) -> Option<Lsn> {
        let stopped = |light: &Light| {
            matches!(
                light.state,
                ControlState::ShutDown | ControlState::ShutDownInRecovery
            )
        };
        self.control.filter(stopped).map(|light| light.checkpoint)
    }
}

/// What `postmaster.pid` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PidFile {
    /// The postmaster.
    pub pid: u32,
    /// Its port; `None` as long as it has not opened its sockets.
    pub port: Option<u16>,
    /// The directory of its Unix socket.
    pub socket_dir: Option<PathBuf>,
    /// The first address it listens on.
    pub listen: Option<String>,
    /// `starting`, `stopping`, `ready` or `standby`.
    pub status: Option<String>,
}

impl PidFile {
    /// It takes no connections any more.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.status.as_deref() == Some("stopping")
    }

    /// It takes no connections yet.
    #[must_use]
    pub fn starting(&self) -> bool {
        matches!(self.status.as_deref(), None | Some("starting" | "standby"))
    }
}

/// What the beginning of the control file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Light {
    /// Identifies the cluster.
    pub system_id: SystemId,
    /// What the server was doing when it last wrote the file.
    pub state: ControlState,
    /// Where the last checkpoint record begins.
    pub checkpoint: Lsn,
    /// Its timeline.
    pub timeline: Timeline,
}

/// All of the control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// What the core wants to know of it.
    pub data: ControlData,
    /// The settings that a standby may not go below: name of the parameter and value.
    pub minimums: Vec<(&'static str, u64)>,
    /// Bytes of a WAL segment.
    pub segment: u64,
}

/// What is found at the path of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Missing or empty.
    Empty,
    /// A cluster, as far as its outside shows.
    Cluster,
    /// Half-made.
    Incomplete(String),
    /// Not to be touched.
    Unusable(String),
}

/// What was begun in a data directory and is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// It was a bootstrap, which may be begun again.
    pub bootstrap: bool,
    /// In words, for people.
    pub text: String,
}

/// What is marked beside the data directory while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new cluster is made.
    Bootstrap,
    /// Another member's cluster is copied.
    Clone {
        /// What is there is kept for the user's method to build on; otherwise it is moved aside, or deleted if an earlier clone that did
        /// not finish had made all of it.
        keep_data: bool,
    },
}

/// What to start as the postmaster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The binary, absolute.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
}

/// Where a member's PostgreSQL is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A command for another server.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where it is.
    pub at: &'a Address,
    /// How to connect, in libpq's notation; `replication=1` in it means that the command is one of the replication protocol.
    pub conninfo: &'a str,
    /// The command.
    pub command: &'a str,
    /// How long the answer may take.
    pub limit: Duration,
}

/// Whom a standby follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// `primary_conninfo`; empty for nobody.
    pub conninfo: String,
    /// `primary_slot_name`.
    pub slot: Option<String>,
}

/// What the configuration is written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A primary.
    Primary,
    /// A standby.
    Replica(Recovery),
}

/// Whom a server lets in that is started with a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Whom the user's rules let in.
    Open,
    /// Of those the members of the cluster alone.
    Shut,
}

impl Gate {
    /// Shut, or open.
    #[must_use]
    pub fn new(shut: bool) -> Self {
        if shut { Self::Shut } else { Self::Open }
    }
}

/// A configuration to write. All parameters are such as the installed server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Whom it is for.
    pub role: Role,
    /// What must be equal across the cluster, and goes on the command line too.
    pub command_line: BTreeMap<String, String>,
    /// All other parameters.
    pub file: BTreeMap<String, String>,
    /// `synchronous_standby_names`; `None`: what `file` or the user's own files say.
    pub synchronous: Option<Names>,
    /// Whom it lets in; `None`: whom the user's rules let in, for as long as it runs.
    pub gate: Option<Gate>,
    /// The user's recovery parameters, for a standby.
    pub recovery: BTreeMap<String, String>,
    /// This is the first start of a new cluster, with these lines of pg_hba.conf unless the settings have some.
    pub first_hba: Option<Vec<String>>,
}

/// Where this node's history left the leader's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The own timeline.
    pub own: Timeline,
    /// The leader's.
    pub leader: Timeline,
    /// How the leader came to it.
    pub leader_history: Vec<HistoryLine>,
    /// Bytes of a WAL segment.
    pub segment: u64,
}
