//! Starting, stopping and restarting the server, and taking one over that runs without a guard.

use std::time::Duration;

use surus_core::action::{StopMode, Upstream};
use surus_core::input::Outcome;
use surus_core::sync::Names;
use surus_core::types::{Generation, Lsn, MonoTime};
use surus_core::view::ControlState;

use super::conf::{Acknowledgers, Gating};
use super::error::report;
use super::site::{Found, Recovery, Role};
use super::{Error, Postgres, Signal, StartRequest};

/// How often a start or stop is looked at: two small file reads each time.
const TICK: Duration = Duration::from_millis(20);

/// How often a fast stop is looked at: clients are without a primary from its first moment on.
const STOP_TICK: Duration = Duration::from_millis(5);

/// How long a new postmaster may take to write its pid file. It does so before anything that depends on the size of the cluster.
const PID_FILE_LIMIT: Duration = Duration::from_secs(10);

/// In an immediate stop every process ends where it stands, within milliseconds. PostgreSQL kills those that do not after five seconds; one that is
/// frozen whole does not even do that, and to wait for it gains nothing: what lives after this is killed from outside.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(1);

/// What a killed process may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// The right under which something is started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right {
    pub(super) guard_until: Option<MonoTime>,
    pub(super) valid_until: MonoTime,
    pub(super) generation: Generation,
}

impl Postgres {
    /// Starts in recovery, following `upstream` or nobody. Returns when the postmaster is up.
    ///
    /// If a replica runs already, it is made to follow `upstream` instead.
    pub async fn start_replica(&self, upstream: Option<&Upstream>, generation: Generation) -> Outcome {
        let work = async {
            self.newest(generation)?;
            let recovery = self.recovery(upstream).await?;
            let right = Right {
                guard_until: None,
                valid_until: MonoTime::NEVER,
                generation,
            };
            let role = Role::Replica(recovery);
            self.start(role, right, None, Acknowledgers::ForReplica, false)
                .await
        };
        let was_primary = self.memory().primary == Some(true);
        report("start replica", work.await, |()| {
            let action = if was_primary { "on_role_change" } else { "on_start" };
            self.site.callback(action, "replica");
            Outcome::Ok
        })
    }

    /// Starts as primary, the guard armed with `guard_until` before the postmaster exists, with commits acknowledged by `synchronous`.
    /// Returns when the postmaster is up. With `gated` it lets in members alone. A primary that runs already keeps the names that it has.
    pub async fn start_primary(
        &self,
        guard_until: MonoTime,
        valid_until: MonoTime,
        synchronous: Option<&Names>,
        gated: bool,
        generation: Generation,
    ) -> Outcome {
        let work = async {
            self.still_valid(valid_until, generation)?;
            let right = Right {
                guard_until: Some(guard_until),
                valid_until,
                generation,
            };
            let names = Acknowledgers::Set(synchronous.cloned());
            self.start(Role::Primary, right, None, names, gated).await
        };
        let was_primary = self.memory().primary == Some(true);
        report("start primary", work.await, |()| {
            let action = if was_primary { "on_start" } else { "on_role_change" };
            self.site.callback(action, "primary");
            Outcome::Ok
        })
    }

    /// Starts the server in a role. A server that is still stopping is waited for; one that runs in the wanted role is left alone.
    /// With `hba` this is the first start of a new cluster, whose bootstrap is not finished yet.
    pub(super) async fn start(
        &self,
        role: Role,
        right: Right,
        hba: Option<&[String]>,
        acknowledgers: Acknowledgers,
        gated: bool,
    ) -> Result<(), Error> {
        if self.settle(&role, right).await? {
            return Ok(());
        }
        let major = self.site.major().await?;
        match self.site.inspect(Some(major)).await {
            Found::Cluster => {}
            Found::Empty => {
                return Err(Error::Condition(format!(
                    "{} is empty: there is nothing to start",
                    self.settings().data_dir.display()
                )));
            }
            Found::Incomplete(_) if hba.is_some() => {}
            Found::Incomplete(text) | Found::Unusable(text) => return Err(Error::Condition(text)),
        }
        let minimums = self.site.control_file().await?.minimums;
        let gating = Gating::Begins { shut: gated };
        let configured = self
            .configure(&role, &minimums, hba, acknowledgers, gating)
            .await?;
        let primary = role == Role::Primary;
        let was_standby = self.site.prepare(primary).await?;
        {
            let mut memory = self.memory();
            memory.primary = Some(primary);
            memory.pending_restart.clone_from(&configured.raised);
            memory.history = None;
            memory.waits = None;
            memory.told = true;
            if let Role::Replica(recovery) = &role {
                memory.recovery = Some(recovery.clone());
            } else {
                memory.received = None;
            }
        }
        self.heartbeat.set(None);
        let launch = self.site.launch(&configured.command_line);
        let request = StartRequest {
            program: launch.program,
            args: launch.args,
            env: launch.env,
            cwd: launch.cwd,
            deadline: right.guard_until,
            generation: right.generation,
        };
        if let Err(refused) = self.still_valid(right.valid_until, right.generation) {
            if was_standby {
                // Whoever starts this directory by hand must find a standby, as before.
                self.site.set_standby(true).await?;
            }
            return Err(refused);
        }
        let pid = self.control.start(request).await?;
        tracing::info!(pid, primary, "started PostgreSQL");
        self.wait_for_pid_file(pid).await
    }

    /// Deals with a server that is there already: `true` if it is what is wanted.
    async fn settle(&self, role: &Role, right: Right) -> Result<bool, Error> {
        let limit = Duration::from_secs(self.settings().pg_ctl_timeout.max(1));
        let finished = tokio::time::timeout(limit, async {
            loop {
                let look = self.site.look().await;
                let (light, standby) = (look.control, look.standby);
                let Some(file) = look.postmaster() else {
                    break None;
                };
                let ending = file.stopping()
                    || light.is_some_and(|light| {
                        matches!(light.state, ControlState::ShutDown | ControlState::ShuttingDown)
                    });
                if !ending {
                    break Some((file.pid, standby));
                }
                tokio::time::sleep(TICK).await;
            }
        });
        let running = finished.await.map_err(|_| Error::Timeout {
            what: "waiting for the end of the former server".to_owned(),
            limit,
        })?;
        let Some((pid, standby)) = running else {
            // The guard still clears away what is left of a server whose postmaster is gone.
            let cleared = tokio::time::timeout(KILL_LIMIT, self.control.wait_exit()).await;
            return match cleared {
                Ok(result) => result.map(|()| false).map_err(Error::from),
                Err(_) => Err(Error::Timeout {
                    what: "waiting for the last processes of the former server".to_owned(),
                    limit: KILL_LIMIT,
                }),
            };
        };
        match role {
            Role::Replica(recovery) if standby => {
                self.point_at(recovery).await?;
                Ok(true)
            }
            Role::Primary if !standby => {
                self.still_valid(right.valid_until, right.generation)?;
                self.control
                    .set_deadline(right.guard_until, right.generation)
                    .await?;
                Ok(true)
            }
            _ => Err(Error::Condition(format!(
                "a server (process {pid}) runs in the other role; it must be stopped first"
            ))),
        }
    }

    async fn wait_for_pid_file(&self, pid: u32) -> Result<(), Error> {
        let written = async {
            loop {
                let file = self.site.look().await.pid_file;
                if file.is_some_and(|file| file.pid == pid) {
                    return Ok(());
                }
                if self.control.status().await?.pid != Some(pid) {
                    return Err(Error::Condition(format!(
                        "PostgreSQL ended right after its start; its log says why (data directory {})",
                        self.settings().data_dir.display()
                    )));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PID_FILE_LIMIT, written).await.map_err(|_| {
            Error::Unknown("PostgreSQL was started and has not written its postmaster.pid".to_owned())
        })?
    }

    /// Stops the server; one that is primary and has leave to make a checkpoint first parts from its clients, see [`super::part`]. Returns as
    /// soon as it can take no more writes: the shutdown checkpoint is written, or the process is gone.
    pub async fn stop(&self, mode: StopMode, checkpoint_first: bool) -> Outcome {
        let was_primary = self.memory().primary;
        let result = self.stop_server(mode, checkpoint_first, checkpoint_first).await;
        report("stop", result, |checkpoint| {
            let role = if was_primary == Some(true) {
                "primary"
            } else {
                "replica"
            };
            self.site.callback("on_stop", role);
            Outcome::Stopped { checkpoint }
        })
    }

    /// Stops it. With `parting` clients are told, and a fast stop waits a moment for what they are at.
    pub(super) async fn stop_server(
        &self,
        mode: StopMode,
        checkpoint_first: bool,
        parting: bool,
    ) -> Result<Option<Lsn>, Error> {
        let Some(file) = self.site.look().await.postmaster() else {
            // A postmaster that was started a moment ago is known to the guard only.
            if self
                .control
                .status()
                .await
                .is_ok_and(|status| status.pid.is_some())
            {
                self.control.signal(Signal::Kill).await?;
                self.wait_cleared().await?;
            }
            self.kill_orphans().await?;
            self.heartbeat.set(None);
            return Ok(self.site.look().await.clean_checkpoint());
        };
        if let StopMode::Fast { until } = mode {
            let left = until.since(self.clock.now());
            if let Some(hook) = &self.settings().before_stop {
                self.site
                    .hook("before_stop", hook, left)
                    .await
                    .unwrap_or_else(|error| {
                        tracing::warn!(error = %error.chain(), "before_stop failed; stopping all the same");
                    });
            }
            if checkpoint_first {
                // The other half is left for the stop itself.
                let left = until.since(self.clock.now()) / 2;
                if let Err(error) = tokio::time::timeout(left, self.run_checkpoint())
                    .await
                    .unwrap_or_else(|_| {
                        Err(Error::Timeout {
                            what: "the checkpoint before the stop".to_owned(),
                            limit: left,
                        })
                    })
                {
                    tracing::warn!(error = %error.chain(), "no checkpoint before the stop; the stop writes it");
                }
            }
            if parting {
                self.part(until).await;
            }
            self.signal(file.pid, Signal::Fast).await?;
            loop {
                if let Some(ended) = self.ended(file.pid).await {
                    self.heartbeat.set(None);
                    return Ok(ended);
                }
                let now = self.clock.now();
                if until <= now {
                    tracing::warn!("the fast stop did not end in time; it turns immediate");
                    break;
                }
                tokio::time::sleep(STOP_TICK.min(until.since(now))).await;
            }
        }
        self.heartbeat.set(None);
        self.signal(file.pid, Signal::Immediate).await?;
        let limit = self.clock.now().plus(IMMEDIATE_LIMIT);
        while self.clock.now() < limit {
            if let Some(ended) = self.ended(file.pid).await {
                return Ok(ended);
            }
            tokio::time::sleep(TICK).await;
        }
        tracing::warn!(pid = file.pid, "the immediate stop did not end either; killing");
        self.signal(file.pid, Signal::Kill).await?;
        let limit = self.clock.now().plus(KILL_LIMIT);
        while self.clock.now() < limit {
            if let Some(ended) = self.ended(file.pid).await {
                return Ok(ended);
            }
            tokio::time::sleep(TICK).await;
        }
        Err(Error::Unknown(format!(
            "PostgreSQL (process {}) is still there after SIGKILL: it hangs in the kernel, most likely on its disk",
            file.pid
        )))
    }

    /// Ends backends whose postmaster is gone. The guard does the same, and this is for servers that have none.
    async fn kill_orphans(&self) -> Result<(), Error> {
        let limit = self.clock.now().plus(KILL_LIMIT);
        loop {
            let orphans = self.site.users().await;
            let Some(first) = orphans.first() else {
                return Ok(());
            };
            if limit <= self.clock.now() {
                return Err(Error::Unknown(format!(
                    "backends of a dead postmaster are still there after SIGKILL: {orphans:?}"
                )));
            }
            tracing::warn!(?orphans, "ending backends that outlived their postmaster");
            self.signal(*first, Signal::Kill).await?;
            tokio::time::sleep(TICK).await;
        }
    }

    /// `Some` when the server can take no more writes, with the shutdown checkpoint if it was clean.
    async fn ended(&self, pid: u32) -> Option<Option<Lsn>> {
        // In this order: whoever is gone has written the last that there is to read.
        let alive = self.site.alive(pid).await;
        let clean = self.site.look().await.clean_checkpoint();
        if clean.is_some() {
            return Some(clean);
        }
        if alive {
            return None;
        }
        // The guard reports the end when every backend is gone, not only the postmaster.
        if let Err(error) = self.wait_cleared().await {
            tracing::warn!(error = %error.chain(), "the postmaster is gone, its children perhaps not");
            return None;
        }
        Some(self.site.look().await.clean_checkpoint())
    }

    async fn wait_cleared(&self) -> Result<(), Error> {
        tokio::time::timeout(KILL_LIMIT, self.control.wait_exit())
            .await
            .map_err(|_| Error::Timeout {
                what: "waiting for the last processes of the server".to_owned(),
                limit: KILL_LIMIT,
            })?
            .map_err(Error::from)
    }

    /// Signals the server through the guard, or directly if it is not in the guard's custody.
    pub(super) async fn signal(&self, pid: u32, signal: Signal) -> Result<(), Error> {
        let guarded = self
            .control
            .status()
            .await
            .is_ok_and(|status| status.pid == Some(pid));
        if guarded {
            return self.control.signal(signal).await.map_err(Error::from);
        }
        self.site.signal(pid, signal).await
    }

    /// Stops fast and starts again in the same role, the guard armed first if that is primary.
    pub async fn restart(
        &self,
        guard_until: Option<MonoTime>,
        gated: bool,
        generation: Generation,
    ) -> Outcome {
        let work = async {
            self.newest(generation)?;
            let settings = self.settings();
            let standby = self.site.look().await.standby;
            let role = if standby {
                Role::Replica(self.present_recovery().await)
            } else {
                Role::Primary
            };
            let patience = Duration::from_secs(settings.pg_ctl_timeout.max(1));
            let until = self.clock.now().plus(patience);
            self.stop_server(StopMode::Fast { until }, true, false).await?;
            let right = Right {
                guard_until: if standby { None } else { guard_until },
                // A primary that took longer to stop than its right lasts must not come back.
                valid_until: guard_until.filter(|_| !standby).unwrap_or(MonoTime::NEVER),
                generation,
            };
            let right = self.as_extended(right).await;
            self.start(role, right, None, Acknowledgers::Kept, gated && !standby)
                .await
                .map(|()| standby)
        };
        report("restart", work.await, |standby| {
            self.site
                .callback("on_restart", if standby { "replica" } else { "primary" });
            Outcome::Ok
        })
    }

    /// The right of an order as it is now: work that came before the start may have taken longer than the right lasted when
    /// the order was given, and the agent has moved the guard's deadline on meanwhile, as its lease was renewed. If that guard has died
    /// since, what it was told counts.
    pub(super) async fn as_extended(&self, right: Right) -> Right {
        let status = self.control.status().await.unwrap_or_default();
        let told = self.memory().deadline;
        let told = told.filter(|(_, generation)| *generation == right.generation);
        let armed = status.deadline.or(told.map(|(deadline, _)| deadline));
        match (right.guard_until, armed) {
            (Some(ordered), Some(armed)) if ordered < armed => Right {
                guard_until: Some(armed),
                valid_until: right.valid_until.max(armed),
                ..right
            },
            _ => right,
        }
    }

    /// Whom the replica follows now: as last told, or as it says itself.
    pub(super) async fn present_recovery(&self) -> Recovery {
        if let Some(recovery) = self.memory().recovery.clone() {
            return recovery;
        }
        // A probe of a replica fills the memory in.
        let _ = self.probe().await;
        self.memory().recovery.clone().unwrap_or_default()
    }

    /// Moves the guard's deadline, or lifts it. Refused if a newer reign has spoken.
    pub async fn set_deadline(&self, deadline: Option<MonoTime>, generation: Generation) -> Outcome {
        let work = async {
            self.newest(generation)?;
            self.control.set_deadline(deadline, generation).await?;
            self.memory().deadline = deadline.map(|deadline| (deadline, generation));
            Ok(())
        };
        report("set deadline", work.await, |()| Outcome::Ok)
    }

    /// Puts a server that runs without a guard under one, without restarting it. One that has ended meanwhile is no failure.
    pub async fn adopt_postmaster(&self, guard_until: Option<MonoTime>, generation: Generation) -> Outcome {
        let adopt = async {
            let file = self.site.look().await.postmaster().ok_or_else(|| {
                Error::Condition(format!(
                    "no server runs in {} that could be adopted",
                    self.settings().data_dir.display()
                ))
            })?;
            self.control.adopt(file.pid).await?;
            Ok::<_, Error>(file.pid)
        };
        let work = async {
            self.newest(generation)?;
            let pid = match adopt.await {
                Ok(pid) => pid,
                // So does the server of a guard that was killed. After a failure the core would take its time before it starts another.
                Err(error) if self.site.users().await.is_empty() => {
                    tracing::info!(reason = %error, "no server is left to put under the guard");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            self.control.set_deadline(guard_until, generation).await?;
            tracing::info!(pid, "put the running server under the guard");
            Ok(())
        };
        report("adopt", work.await, |()| Outcome::Ok)
    }
}
