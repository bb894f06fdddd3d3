//! One host of the cluster: an agent, the guard it starts and the PostgreSQL below it, in a directory of their own.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::process::Child;

use crate::client::PASSWORD;
use crate::error::{Error, Result};
use crate::ground;
use crate::layout::{Layout, MEMBERS, node_name};
use crate::proc::{self, Account, Process};
use crate::tool;

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
    space: Option<String>,
    /// PostgreSQL's data is on a disk of its own.
    disk: bool,
    command: Vec<String>,
    agent: Option<Child>,
}

impl Node {
    /// Writes the host's configuration; nothing runs yet.
    ///
    /// `command` is the agent's command line without the configuration file; `ttl` in seconds is written only if given, so that
    /// otherwise the agent's own default is what gets measured. `disk` is the size in MiB of a disk of its own for PostgreSQL's data, in memory, which
    /// takes root.
    pub(crate) fn prepare(
        layout: &Layout,
        index: u8,
        account: &Account,
        command: Vec<String>,
        bin: &Path,
        ttl: Option<u32>,
        disk: Option<u32>,
    ) -> Result<Self> {
        let dir = layout.root.join(node_name(index));
        account.directory(&dir)?;
        let mut node = Self {
            index,
            name: node_name(index),
            postgres: layout.postgres(index),
            rest: layout.rest(index),
            account: account.clone(),
            space: layout.space(ground::POSTGRES + index),
            disk: false,
            command,
            agent: None,
            dir,
        };
        if let Some(size) = disk {
            node.account.directory(&node.mount())?;
            let size = format!("size={size}m");
            tool::output(
                Command::new("mount")
                    .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                    .arg(node.mount()),
            )?;
            node.disk = true;
            node.account.own(&node.mount())?;
        }
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
        if self.disk {
            return self.mount().join("data");
        }
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
        let addresses = layout.addresses();
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
  - host replication replicator {addresses} md5
  - host all all {addresses} md5

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
        let space = self.space.as_deref();
        self.agent = Some(proc::start(&self.account, space, &words, &self.dir, &self.log())?);
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

    /// The processes of its PostgreSQL.
    pub(crate) fn servers(&mut self) -> Vec<i32> {
        self.postgres_processes().map(|process| process.pid).collect()
    }

    /// One of PostgreSQL's processes that serve a client.
    pub(crate) fn backend(&mut self) -> Option<i32> {
        // So PostgreSQL names itself there: user, database, address.
        let serves = |process: &Process| process.command.contains(": postgres postgres ");
        self.postgres_processes().find(serves).map(|process| process.pid)
    }

    fn postgres_processes(&mut self) -> impl Iterator<Item = Process> + use<> {
        let others = [self.agent(), self.guard()];
        let all = proc::of(&self.dir).into_iter();
        all.filter(move |process| !others.contains(&Some(process.pid)))
    }

    /// Fills the disk of PostgreSQL's data to the last byte.
    ///
    /// # Errors
    /// [`Error::Unable`] when it has none of its own.
    pub(crate) fn fill_disk(&self) -> Result<()> {
        if !self.disk {
            return Err(Error::Unable(format!(
                "the data of {} is on no disk of its own",
                self.name
            )));
        }
        let path = self.ballast();
        let mut file = File::create(&path).map_err(Error::io(|| format!("create {}", path.display())))?;
        match io::copy(&mut io::repeat(0), &mut file) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(Error::io(|| format!("fill {}", path.display()))(error)),
            Ok(_) => unreachable!("there is no end to what is written"),
        }
    }

    /// Undoes [`Self::fill_disk`].
    pub(crate) fn empty_disk(&self) -> Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(|| format!("remove {}", self.ballast().display()))(
                    error,
                ))
            }
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.mount().join("ballast")
    }

    /// Where the disk of its own is, if it has one.
    fn mount(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Takes its disk away.
    pub(crate) fn unmount(&mut self) {
        if std::mem::take(&mut self.disk) {
            let _ = Command::new("umount").arg("--lazy").arg(self.mount()).status();
        }
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
