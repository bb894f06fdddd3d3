//! One host of the cluster: an agent, the guard it starts and the PostgreSQL below it, in a directory of their own.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use tokio::process::Child;

use crate::client::PASSWORD;
use crate::error::{Error, Result};
use crate::layout::{Layout, MEMBERS, node_name};
use crate::proc::{self, Account, Process};

/// One host.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its place in the layout, from 0.
    pub(crate) index: u8,
    /// Its member name.
    pub(crate) name: String,
    /// Everything of it is below this directory.
    pub(crate) dir: PathBuf,
    /// Its PostgreSQL.
    pub(crate) postgres: SocketAddrV4,
    /// Its REST API.
    pub(crate) rest: SocketAddrV4,
    account: Account,
    command: Vec<String>,
    agent: Option<Child>,
}

impl Node {
    /// Writes the host's configuration; nothing runs yet.
    ///
    /// `command` is the agent's command line without the configuration file; `ttl` in seconds is written only if given, so that
    /// otherwise the agent's own default is what gets measured.
    pub(crate) fn prepare(
        layout: &Layout,
        index: u8,
        account: &Account,
        command: Vec<String>,
        bin: &Path,
        ttl: Option<u32>,
    ) -> Result<Self> {
        let dir = layout.root.join(node_name(index));
        account.directory(&dir)?;
        let node = Self {
            index,
            name: node_name(index),
            postgres: layout.postgres(index),
            rest: layout.rest(index),
            account: account.clone(),
            command,
            agent: None,
            dir,
        };
        account.directory(&node.sockets())?;
        let path = node.config();
        fs::write(&path, node.configuration(layout, bin, ttl))
            .map_err(Error::io(|| format!("write {}", path.display())))?;
        account.own(&path)?;
        Ok(node)
    }

    /// The agent's configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("surus.yml")
    }

    /// What agent, guard and PostgreSQL print.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// PostgreSQL's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where PostgreSQL's socket is: not in the data directory, whose lock file a base backup would copy to a host on which, this
    /// being one machine, the process that it names is alive.
    fn sockets(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn configuration(&self, layout: &Layout, bin: &Path, ttl: Option<u32>) -> String {
        let hosts: String = (0..MEMBERS)
            .map(|i| format!("  - {}\n", layout.etcd_client(i)))
            .collect();
        let ttl = ttl.map(|ttl| format!("    ttl: {ttl}\n")).unwrap_or_default();
        let (name, rest, postgres) = (&self.name, self.rest, self.postgres);
        let (data, pgpass, bin) = (self.data(), self.dir.join("pgpass"), bin.display());
        format!(
            "scope: demo
namespace: /db/
name: {name}

restapi:
  listen: {rest}
  connect_address: {rest}

etcd3:
  hosts:
{hosts}
bootstrap:
  dcs:
{ttl}    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:

  initdb:
  - encoding: UTF8
  - data-checksums

  pg_hba:
  - host replication replicator 127.0.0.0/8 md5
  - host all all 127.0.0.0/8 md5

postgresql:
  listen: {postgres}
  connect_address: {postgres}
  data_dir: {}
  bin_dir: {bin}
  pgpass: {}
  authentication:
    replication:
      username: replicator
      password: {PASSWORD}
    superuser:
      username: postgres
      password: {PASSWORD}
  basebackup:
  - checkpoint: fast
  parameters:
    unix_socket_directories: {}

tags:
  nofailover: false
  noloadbalance: false
  clonefrom: false
  nosync: false
",
            data.display(),
            pgpass.display(),
            self.sockets().display()
        )
    }

    /// Starts the agent, as the service manager would.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut words = self.command.clone();
        words.push(self.config().display().to_string());
        self.agent = Some(proc::start(&self.account, &words, &self.dir, &self.log())?);
        Ok(())
    }

    /// The agent's process id while it runs.
    pub(crate) fn agent(&mut self) -> Option<i32> {
        let child = self.agent.as_mut()?;
        match child.try_wait() {
            Ok(None) => child.id().and_then(|id| i32::try_from(id).ok()),
            _ => None,
        }
    }

    /// The postmaster's process id, from its pid file, while it runs.
    pub(crate) fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        proc::alive(pid).then_some(pid)
    }

    /// The guard, while it runs: by its command line, not being the agent.
    pub(crate) fn guard(&mut self) -> Option<i32> {
        let agent = self.agent();
        let mine = proc::of(&self.dir)
            .into_iter()
            .filter(|process| Some(process.pid) != agent);
        mine.filter(Process::is_guard).map(|process| process.pid).next()
    }

    /// Agent and guard, each with its name.
    pub(crate) fn overhead(&mut self) -> Vec<(&'static str, i32)> {
        let agent = self.agent().map(|pid| ("agent", pid));
        agent
            .into_iter()
            .chain(self.guard().map(|pid| ("guard", pid)))
            .collect()
    }

    /// Kills everything of this host at once and returns what died.
    ///
    /// # Errors
    /// [`Error::Unable`] when the agent was not among it: then this account may not see whose processes are whose.
    pub(crate) fn kill_all(&mut self) -> Result<Vec<Process>> {
        let agent = self.agent();
        let killed = proc::kill_all(&self.dir);
        if agent.is_none_or(|agent| killed.iter().any(|process| process.pid == agent)) {
            return Ok(killed);
        }
        Err(Error::Unable(format!(
            "the agent of {} could not be found in /proc",
            self.name
        )))
    }
}
