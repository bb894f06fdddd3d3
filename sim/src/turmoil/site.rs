//! The agent's [`Site`]: its files, tools and processes are the model's. What takes time takes time, and can be killed in the midst of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use surus::config::settings::{Bootstrap, CustomMethod, PostgresSettings};
use surus::postgres::site::{
    Address, Configuration, ControlFile, Divergence, Found, Gate, Launch, Light, Look, OnProgress, Operation,
    PidFile, Question, Role, Site, Unfinished,
};
use surus::postgres::{Error, Signal};
use surus::task::BoxFuture;
use surus_core::action::Upstream;
use surus_core::sync::Names;
use surus_core::types::{Lsn, SystemId, Timeline};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::host::Inside;
use super::hub::Hub;
use super::postgres::{PORT, data_dir, history};
use super::process::Process;
use crate::clock::{MS, SEC, Time};
use crate::model::postgres::rewind::Verdict;
use crate::model::postgres::settings::Conninfo;
use crate::model::postgres::{DataDir, Peer, Refusal, StopMode};
use crate::record::{End, Rebuild, Seen};

/// For a look at the files, which tokio's timers make a millisecond. Were it free, however many looks are asked for would be taken in one instant.
const LOOK: (Time, Time) = (MS / 50, MS / 10);

/// The place where a host's PostgreSQL lives, as one agent uses it.
pub struct Place {
    hub: Arc<Hub>,
    host: usize,
    process: Process,
    settings: Mutex<Option<Arc<PostgresSettings>>>,
}

fn refused(refusal: &Refusal) -> Error {
    Error::Condition(format!("the server refuses: {refusal:?}"))
}

fn nap(time: Time) -> tokio::time::Sleep {
    tokio::time::sleep(Duration::from_nanos(time))
}

/// A future that is ready.
fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Place {
    /// The place of `host`, for an agent that runs in `process`.
    #[must_use]
    pub fn new(hub: Arc<Hub>, host: usize, process: Process) -> Self {
        Self {
            hub,
            host,
            process,
            settings: Mutex::new(None),
        }
    }

    fn act<T>(&self, what: impl FnOnce(Time, &mut Inside) -> T) -> T {
        self.hub.act(self.host, what)
    }

    fn look_in<T>(&self, what: impl FnOnce(&Inside) -> T) -> T {
        self.hub.look(self.host, what)
    }

    fn own_name(&self) -> &str {
        &self.hub.hosts[self.host].name
    }

    /// The host at an address, if its server can be talked to.
    fn reach(&self, at: &str) -> Result<usize, Error> {
        let host = self
            .hub
            .host_named(at)
            .ok_or_else(|| Error::Condition(format!("there is no host {at}")))?;
        if self.hub.connected(self.host, host) {
            Ok(host)
        } else {
            Err(Error::Condition(format!("{at} cannot be reached")))
        }
    }

    /// How long a tool takes.
    fn span(&self, low: Time, high: Time) -> Time {
        self.act(|_, inside| inside.draw(low, high) + std::mem::take(&mut inside.sluggish))
    }

    /// A tool's connection to another server stands all the while, or the tool fails.
    async fn stay_connected(&self, at: &str, time: Time) -> Result<usize, Error> {
        let step = 100 * MS;
        let mut left = time;
        loop {
            let source = self.reach(at)?;
            if left == 0 {
                return Ok(source);
            }
            let now = left.min(step);
            nap(now).await;
            left -= now;
        }
    }

    /// The data directory is about to be given up.
    fn discard(&self, how: Rebuild, source: Option<usize>) {
        let theirs = source.and_then(|source| self.hub.look(source, Inside::standing));
        let Some(own) = self.look_in(Inside::standing) else {
            return;
        };
        let alone = self.hub.alone(self.host);
        self.hub.see(
            Some(self.host),
            Seen::Discarded {
                how,
                source,
                own,
                theirs,
                alone: alone.map(Lsn),
            },
        );
    }

    fn rebuilt(&self, how: Rebuild, source: usize) {
        if let Some(standing) = self.look_in(Inside::standing) {
            let seen = Seen::Rebuilt {
                how,
                source,
                standing,
            };
            self.hub.see(Some(self.host), seen);
        }
    }

    async fn question(&self, question: Question<'_>) -> Result<String, Error> {
        let dialling =
            Arc::clone(&self.hub.net).dial(self.process.machine(), &question.at.host, question.at.port);
        let stream = dialling.await.map_err(Error::Unreachable)?;
        let mut config = tokio_postgres::Config::new();
        config.user("postgres").dbname("postgres");
        let failed = |error: tokio_postgres::Error| Error::Condition(format!("psql: {error}"));
        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(failed)?;
        let task = self.process.spawn(Box::pin(async move {
            // What went wrong is told by the question.
            let _ = connection.await;
        }));
        let answered = client.simple_query(question.command).await;
        task.abort();
        let mut lines = Vec::new();
        for message in answered.map_err(failed)? {
            if let SimpleQueryMessage::Row(row) = message {
                let columns = (0..row.len()).map(|column| row.get(column).unwrap_or_default());
                lines.push(columns.collect::<Vec<_>>().join("\t"));
            }
        }
        Ok(lines.join("\n"))
    }
}

/// The value of a key in a connection string. Those that the agent writes here have no quotes.
fn value<'a>(conninfo: &'a str, key: &str) -> Option<&'a str> {
    conninfo
        .split_whitespace()
        .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

impl Inside {
    fn files(&self) -> Look {
        if self.server.disk.gone {
            return Look::default();
        }
        let cluster = self.server.cluster();
        Look {
            pid_file: self.pid_file(),
            alive: self.server.alive(),
            control: cluster.map(|cluster| Light {
                system_id: cluster.control.system_id,
                state: cluster.control.state,
                checkpoint: Lsn(cluster.control.checkpoint),
                timeline: Timeline(cluster.control.timeline),
            }),
            standby: cluster.is_some_and(|cluster| cluster.standby_signal),
            backup_label: cluster.is_some_and(|cluster| cluster.backup_label.is_some()),
        }
    }

    fn pid_file(&self) -> Option<PidFile> {
        let Some(pid) = self.pid() else {
            return self.stale.map(|pid| PidFile {
                pid,
                ..PidFile::default()
            });
        };
        let status = if self.server.stopping() {
            "stopping"
        } else if self.server.primary() || self.server.standby() {
            "ready"
        } else {
            "starting"
        };
        Some(PidFile {
            pid,
            port: Some(PORT),
            socket_dir: None,
            listen: Some("localhost".to_owned()),
            status: Some(status.to_owned()),
        })
    }
}

impl Site for Place {
    fn obey(&self, settings: Arc<PostgresSettings>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
    }

    fn look(&self) -> BoxFuture<'_, Look> {
        Box::pin(async move {
            nap(self.act(|_, inside| inside.draw(LOOK.0, LOOK.1))).await;
            self.look_in(Inside::files)
        })
    }

    fn alive(&self, pid: u32) -> BoxFuture<'_, bool> {
        ready(self.look_in(|inside| inside.pid() == Some(pid)))
    }

    fn users(&self) -> BoxFuture<'_, BTreeSet<u32>> {
        ready(self.look_in(|inside| inside.pid().into_iter().collect()))
    }

    fn inspect(&self, _: Option<u32>) -> BoxFuture<'_, Found> {
        ready(self.look_in(|inside| {
            if inside.server.disk.gone {
                return Found::Unusable("the data directory cannot be read".to_owned());
            }
            match (&inside.server.dir, inside.mark) {
                (DataDir::Incomplete(what), _) => {
                    Found::Incomplete(format!("{} did not finish", what.name()))
                }
                (DataDir::Cluster(_) | DataDir::Empty, Some(bootstrap)) => Found::Incomplete(format!(
                    "{} did not finish",
                    if bootstrap { "a bootstrap" } else { "a base backup" }
                )),
                (DataDir::Empty, None) => Found::Empty,
                (DataDir::Cluster(_), None) => Found::Cluster,
            }
        }))
    }

    fn control_file(&self) -> BoxFuture<'_, Result<ControlFile, Error>> {
        ready(self.look_in(|inside| {
            let cluster = inside.server.cluster().filter(|_| !inside.server.disk.gone);
            cluster
                .map(|cluster| ControlFile {
                    data: cluster.control.data(),
                    minimums: Vec::new(),
                    segment: crate::model::postgres::wal::SEGMENT,
                })
                .ok_or_else(|| Error::Condition("there is no control file".to_owned()))
        }))
    }

    fn unfinished(&self) -> BoxFuture<'_, Option<Unfinished>> {
        ready(self.look_in(|inside| {
            inside.mark.map(|bootstrap| Unfinished {
                bootstrap,
                text: "an operation was begun and is not finished".to_owned(),
            })
        }))
    }

    fn history(&self, timeline: Timeline) -> BoxFuture<'_, Option<String>> {
        ready(self.look_in(|inside| {
            let histories = &inside.server.cluster()?.histories;
            histories
                .has(timeline.0)
                .then(|| history(&histories.lines(timeline.0)))
        }))
    }

    fn is_here(&self, data_directory: String) -> BoxFuture<'_, bool> {
        ready(data_directory == data_dir(self.own_name()))
    }

    fn major(&self) -> BoxFuture<'_, Result<u32, Error>> {
        ready(Ok(15))
    }

    fn fitting<'a>(
        &'a self,
        wanted: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, Error>> {
        ready(Ok(wanted.clone()))
    }

    fn launch(&self, _: &BTreeMap<String, String>) -> Launch {
        Launch {
            program: PathBuf::from("/usr/bin/postgres"),
            args: Vec::new(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
        }
    }

    fn signal(&self, pid: u32, signal: Signal) -> BoxFuture<'_, Result<(), Error>> {
        self.act(|now, inside| {
            if inside.pid() == Some(pid) {
                send(now, inside, signal);
            }
        });
        ready(Ok(()))
    }

    fn promote(&self) -> BoxFuture<'_, Result<(), Error>> {
        let asked = self.act(|now, inside| inside.server.promote(now));
        ready(asked.map_err(|refusal| refused(&refusal)))
    }

    fn wake(&self, _: u32) -> BoxFuture<'_, ()> {
        self.act(|now, inside| inside.server.wake_startup(now));
        ready(())
    }

    fn clear_strays(&self) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(()))
    }

    fn synchronous(&self) -> BoxFuture<'_, Option<Names>> {
        ready(self.look_in(|inside| inside.configuration.as_ref()?.synchronous.clone()))
    }

    fn gate(&self) -> BoxFuture<'_, Option<Gate>> {
        ready(self.look_in(|inside| inside.configuration.as_ref()?.gate))
    }

    fn configure<'a>(&'a self, wanted: &'a Configuration) -> BoxFuture<'a, Result<bool, Error>> {
        let upstream = match &wanted.role {
            Role::Replica(recovery) => value(&recovery.conninfo, "host")
                .and_then(|host| self.hub.host_named(host))
                .map(|host| Conninfo {
                    to: Peer(u32::try_from(host).unwrap_or(u32::MAX)),
                    application_name: value(&recovery.conninfo, "application_name")
                        .unwrap_or("walreceiver")
                        .to_owned(),
                }),
            Role::Primary => None,
        };
        let slot = match &wanted.role {
            Role::Replica(recovery) => recovery.slot.clone(),
            Role::Primary => None,
        };
        let (changed, moved, turned) = self.act(|_, inside| {
            let moved = inside
                .server
                .settings
                .primary_conninfo
                .as_ref()
                .map(|known| known.to)
                != upstream.as_ref().map(|wanted| wanted.to);
            let changed = inside.configuration.as_ref() != Some(wanted);
            inside.configuration = Some(wanted.clone());
            inside.server.settings.primary_conninfo = upstream.clone();
            inside.server.settings.primary_slot_name = slot;
            let users = wanted.file.get("synchronous_standby_names").cloned();
            let names = wanted.synchronous.as_ref().map(ToString::to_string).or(users);
            inside.server.settings.synchronous_standby_names = names.unwrap_or_default();
            let ends = wanted
                .file
                .get("restart_after_crash")
                .is_some_and(|value| value == "off");
            inside.server.settings.restart_after_crash = !ends;
            (changed, moved, inside.turn_gate())
        });
        self.hub.tell_gate(self.host, turned);
        if moved {
            let upstream = upstream.and_then(|upstream| usize::try_from(upstream.to.0).ok());
            self.hub.see(Some(self.host), Seen::Following { upstream });
        }
        ready(Ok(changed))
    }

    fn prepare(&self, primary: bool) -> BoxFuture<'_, Result<bool, Error>> {
        ready(self.act(|_, inside| {
            if inside.server.alive() {
                return Err(Error::Condition("server processes are at work here".to_owned()));
            }
            inside.stale = None;
            let Some(cluster) = inside.server.cluster_mut() else {
                return Err(Error::Condition("there is no cluster".to_owned()));
            };
            let taken = primary && cluster.standby_signal;
            cluster.standby_signal = !primary;
            if !primary {
                cluster.sweep_histories();
            }
            Ok(taken)
        }))
    }

    fn set_standby(&self, standby: bool) -> BoxFuture<'_, Result<(), Error>> {
        self.act(|_, inside| {
            if let Some(cluster) = inside.server.cluster_mut() {
                cluster.standby_signal = standby;
            }
        });
        ready(Ok(()))
    }

    fn remove_stale_pid_file(&self) -> BoxFuture<'_, Result<(), Error>> {
        ready(self.act(|_, inside| {
            if inside.server.alive() {
                return Err(Error::Condition("server processes are at work here".to_owned()));
            }
            inside.stale = None;
            Ok(())
        }))
    }

    fn reserve(&self, above: Timeline) -> BoxFuture<'_, Result<(), Error>> {
        self.act(|_, inside| {
            if let Some(cluster) = inside.server.cluster_mut() {
                let own = cluster.log.timeline();
                cluster.histories.reserve(own, above.0);
            }
        });
        ready(Ok(()))
    }

    fn keep_passwords<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, Result<(), Error>> {
        ready(Ok(()))
    }

    fn kept_dynamic(&self) -> BoxFuture<'_, Option<Value>> {
        ready(self.look_in(|inside| {
            inside
                .dynamic
                .clone()
                .filter(|_| inside.server.cluster().is_some())
        }))
    }

    fn keep_dynamic<'a>(&'a self, dynamic: &'a Value) -> BoxFuture<'a, ()> {
        self.act(|_, inside| {
            if inside.server.cluster().is_some() {
                inside.dynamic = Some(dynamic.clone());
            }
        });
        ready(())
    }

    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(async move {
            match tokio::time::timeout(question.limit, self.question(question)).await {
                Ok(answer) => answer,
                Err(_) => Err(Error::Timeout {
                    what: "psql".to_owned(),
                    limit: question.limit,
                }),
            }
        })
    }

    fn begin(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>> {
        let bootstrap = operation == Operation::Bootstrap;
        if !bootstrap {
            self.discard(Rebuild::Clone, None);
        }
        ready(self.act(|_, inside| {
            if !bootstrap {
                inside.server.clone_begin().map_err(|refusal| refused(&refusal))?;
                inside.configuration = None;
            }
            inside.mark = Some(bootstrap);
            Ok(())
        }))
    }

    fn finish(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>> {
        self.act(|_, inside| {
            inside.mark = None;
            if operation != Operation::Bootstrap
                && let Some(cluster) = inside.server.cluster_mut()
            {
                cluster.standby_signal = true;
            }
        });
        ready(Ok(()))
    }

    fn abandon(&self, _: Operation) -> BoxFuture<'_, Result<(), Error>> {
        ready(self.act(|_, inside| {
            if inside.server.alive() {
                return Err(Error::Condition("server processes are at work here".to_owned()));
            }
            inside.mark = None;
            inside.stale = None;
            inside.server.dir = DataDir::Empty;
            Ok(())
        }))
    }

    fn create<'a>(&'a self, _: &'a Bootstrap) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            nap(self.span(300 * MS, 1500 * MS)).await;
            let system_id = SystemId(self.hub.chance(1 << 40, 1 << 60));
            self.act(|_, inside| inside.server.initdb(system_id))
                .map_err(|refusal| refused(&refusal))?;
            self.hub.see(Some(self.host), Seen::Bootstrapped { system_id });
            Ok(())
        })
    }

    fn post_bootstrap<'a>(&'a self, _: PidFile, _: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        ready(Ok(()))
    }

    fn copy_from<'a>(
        &'a self,
        from: &'a Upstream,
        _: Option<&'a CustomMethod>,
        _: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let at = from
                .conn_url
                .split_once("://")
                .map_or(from.conn_url.as_str(), |(_, rest)| rest);
            let at = at.split([':', '/']).next().unwrap_or_default().to_owned();
            let source = self.reach(&at)?;
            let asked = self.hub.act(source, |_, inside| inside.server.snapshot());
            asked.map_err(|refusal| refused(&refusal))?;
            let time = self.span(200 * MS, 2 * SEC);
            let source = self.stay_connected(&at, time).await?;
            let copy = self
                .hub
                .act(source, |_, inside| inside.server.snapshot())
                .map_err(|refusal| refused(&refusal))?;
            self.act(|_, inside| inside.server.clone_finish(&copy));
            self.rebuilt(Rebuild::Clone, source);
            Ok(())
        })
    }

    fn keep_diverged(&self, _: Divergence) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(()))
    }

    fn rewind<'a>(
        &'a self,
        at: &'a Address,
        _: &'a str,
        _: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let failed = |text: String| Error::Condition(format!("pg_rewind: {text}"));
            let source = self.reach(&at.host)?;
            let snapshot = self
                .hub
                .act(source, |_, inside| inside.server.snapshot())
                .map_err(|refusal| refused(&refusal))?;
            let verdict = self
                .act(|now, inside| inside.server.rewind_plan(now, &snapshot))
                .map_err(|error| failed(format!("{error:?}")))?;
            let Verdict::Required { redo, .. } = verdict else {
                return Ok(());
            };
            self.discard(Rebuild::Rewind, Some(source));
            self.act(|_, inside| inside.server.rewind_begin());
            let time = self.span(200 * MS, SEC);
            let source = self.stay_connected(&at.host, time).await?;
            let later = self
                .hub
                .act(source, |_, inside| inside.server.snapshot())
                .map_err(|refusal| refused(&refusal))?;
            self.act(|_, inside| inside.server.rewind_finish(&later, redo));
            self.rebuilt(Rebuild::Rewind, source);
            Ok(())
        })
    }

    fn hook<'a>(&'a self, _: &'static str, _: &'a str, _: Duration) -> BoxFuture<'a, Result<(), Error>> {
        ready(Ok(()))
    }

    fn callback(&self, _: &'static str, _: &'static str) {}
}

/// A signal to the postmaster.
pub(super) fn send(now: Time, inside: &mut Inside, signal: Signal) {
    // A signal to a process that is gone is lost.
    let _ = match signal {
        Signal::Smart | Signal::Fast => inside.server.stop(now, StopMode::Fast),
        Signal::Immediate => inside.server.stop(now, StopMode::Immediate),
        Signal::Reload => {
            inside.loads += 1;
            inside.server.reload(now)
        }
        Signal::Kill => {
            inside.kill(now, End::Killed);
            Ok(())
        }
    };
}
