//! The guard as the PostgreSQL adapter sees it: whoever holds the postmaster.
//!
//! A guard that is found alive is taken over as it is; one is started only when there is something to guard. When the guard is
//! gone, whatever it left of PostgreSQL is killed before anything else is done: an orphan could still acknowledge.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use surus_core::types::{Generation, MonoTime};
use tokio::sync::{mpsc, watch};

use super::env::{Custody, Found, GuardNews};
use crate::chain::chain;
use crate::guard::{Guard, GuardView, Link, Order, Phase, Start, Status, kill_all_of};
use crate::postgres::{BoxFuture, ControlError, ControlStatus, ProcessControl, Signal, StartRequest};

/// Between two looks for processes that a dead guard left behind: at first, for what was killed is gone in no time, and at most, for a
/// look reads all of `/proc`.
const SWEEP_AGAIN: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// The hold on PostgreSQL's processes through the guard.
#[derive(Debug, Clone)]
pub struct Guarded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: PathBuf,
    program: PathBuf,
    data_dir: PathBuf,
    log: Option<PathBuf>,
    news: OnceLock<mpsc::UnboundedSender<GuardNews>>,
    guard: Mutex<Option<Arc<Guard>>>,
    connecting: tokio::sync::Mutex<()>,
    last_program: Mutex<Option<PathBuf>>,
    /// The guard was told to end.
    leaving: AtomicBool,
}

impl Guarded {
    /// Custody of the PostgreSQL in `data_dir`. `program` is our own binary, which guards are started with; PostgreSQL's output goes
    /// to `log`.
    #[must_use]
    pub fn new(program: PathBuf, data_dir: PathBuf, log: Option<PathBuf>) -> Self {
        Self(Arc::new(Inner {
            socket: socket_of(&data_dir),
            program,
            data_dir,
            log,
            news: OnceLock::new(),
            guard: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            last_program: Mutex::default(),
            leaving: AtomicBool::new(false),
        }))
    }
}

impl Custody for Guarded {
    fn find(&self, news: mpsc::UnboundedSender<GuardNews>) -> BoxFuture<'_, Option<Found>> {
        Box::pin(async move {
            // Asked once, when the agent begins; a second asker would not be heard.
            let _ = self.0.news.set(news);
            let status = self.0.find().await?;
            Some(Found {
                deadline: (status.phase != Phase::Idle && status.deadline_ns != 0)
                    .then_some(MonoTime(status.deadline_ns)),
                generation: Generation(status.generation),
            })
        })
    }

    fn quit(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.quit())
    }
}

impl Inner {
    fn tell(&self, news: GuardNews) {
        if let Some(listener) = self.news.get() {
            // Who does not listen any more is ending.
            let _ = listener.send(news);
        }
    }

    /// Takes over a guard that is alive, if there is one.
    async fn find(self: &Arc<Self>) -> Option<Status> {
        match Guard::connect(&self.socket).await {
            Ok((guard, status)) => {
                tracing::info!(
                    pid = status.guard_pid,
                    postmaster = status.pid,
                    "took over a living guard"
                );
                self.remember_program_of(status.pid);
                self.install(guard);
                Some(status)
            }
            Err(error) => {
                tracing::debug!(%error, "no guard to take over");
                None
            }
        }
    }

    /// Remembers which program a postmaster that was not started here runs: should its guard die, its orphans are found by it.
    fn remember_program_of(&self, pid: i32) {
        if let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) {
            *self.last_program.lock().unwrap_or_else(PoisonError::into_inner) = Some(program);
        }
    }

    /// Ends the guard, if it has nothing to guard.
    async fn quit(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        let guard = self.lock().clone();
        if let Some(guard) = guard
            && let Err(error) = guard.quit().await
        {
            tracing::warn!(%error, "the guard does not end");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Guard>>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard, started if need be.
    async fn guard(self: &Arc<Self>) -> Result<Arc<Guard>, ControlError> {
        let _one_at_a_time = self.connecting.lock().await;
        let known = self.lock().clone();
        match known {
            Some(guard) if guard.watch().borrow().link == Link::Up => return Ok(guard),
            Some(_) => self.bury().await,
            None => {}
        }
        let (guard, status) = Guard::connect_or_spawn(&self.socket, &self.program)
            .await
            .map_err(|error| ControlError(chain(&error)))?;
        tracing::info!(pid = status.guard_pid, "the guard is ready");
        Ok(self.install(guard))
    }

    fn install(self: &Arc<Self>, guard: Guard) -> Arc<Guard> {
        let guard = Arc::new(guard);
        *self.lock() = Some(Arc::clone(&guard));
        tokio::spawn(follow(Arc::clone(self), guard.watch()));
        guard
    }

    fn known(&self) -> Option<GuardView> {
        self.lock().as_ref().map(|guard| *guard.watch().borrow())
    }

    /// Forgets a guard that is gone, once nothing of its PostgreSQL is left. Called under `connecting`.
    async fn bury(&self) {
        self.sweep().await;
        *self.lock() = None;
        self.tell(GuardNews::Exited);
    }

    /// Kills what a dead guard left of PostgreSQL, until nothing is left.
    async fn sweep(&self) {
        let program = self
            .last_program
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(program) = program else { return };
        let [mut again, at_most] = SWEEP_AGAIN;
        loop {
            let data_dir = self.data_dir.clone();
            let program = program.clone();
            let killed = tokio::task::spawn_blocking(move || kill_all_of(&program, &data_dir)).await;
            match killed {
                Ok(Ok(0)) => return,
                Ok(Ok(count)) => tracing::warn!(count, "killed processes that the dead guard left behind"),
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot look for processes that the dead guard left behind");
                    return;
                }
                Err(_) => return,
            }
            tokio::time::sleep(again).await;
            again = at_most.min(2 * again);
        }
    }
}

/// Turns what the guard reports into inputs, until the connection ends.
async fn follow(custody: Arc<Inner>, mut views: watch::Receiver<GuardView>) {
    let mut exits = views.borrow().status.exits;
    loop {
        let view = *views.borrow_and_update();
        if view.status.exits != exits {
            exits = view.status.exits;
            if let Some(exit) = view.status.last_exit {
                tracing::info!(status = %exit.status, killed = ?exit.killed, survivors = exit.survivors_killed, "PostgreSQL ended");
            }
            custody.tell(GuardNews::Exited);
        }
        match view.link {
            Link::Up => {}
            Link::Replaced => {
                tracing::error!(
                    "another agent has taken the guard over: a second agent runs on this data directory, and this one ends"
                );
                custody.tell(GuardNews::Replaced);
                return;
            }
            Link::Gone => break,
        }
        if views.changed().await.is_err() {
            break;
        }
    }
    if custody.leaving.load(Ordering::Relaxed) {
        return;
    }
    tracing::error!("the guard is gone; what it left of PostgreSQL is being killed");
    custody.tell(GuardNews::Lost);
    let _one_at_a_time = custody.connecting.lock().await;
    let dead = custody.known().is_some_and(|view| view.link == Link::Gone);
    if dead {
        custody.bury().await;
    }
}

impl ProcessControl for Guarded {
    fn start(&self, request: StartRequest) -> BoxFuture<'_, Result<u32, ControlError>> {
        Box::pin(async move {
            let guard = self.0.guard().await?;
            *self.0.last_program.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(request.program.clone());
            let start = Start {
                program: request.program,
                args: request.args,
                env: request.env,
                cwd: request.cwd,
                log: self.0.log.clone(),
                deadline_ns: request.deadline.map(nanoseconds),
                generation: request.generation.0,
            };
            let status = guard
                .start(&start)
                .await
                .map_err(|error| ControlError(chain(&error)))?;
            u32::try_from(status.pid).map_err(|_| ControlError("the guard gave no process id".to_owned()))
        })
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let order = match signal {
                Signal::Smart => Order::Smart,
                Signal::Fast => Order::Fast,
                Signal::Immediate => Order::Immediate,
                Signal::Reload => Order::Reload,
                Signal::Kill => Order::Kill,
            };
            let guard = self.0.guard().await?;
            guard
                .signal(order)
                .await
                .map(drop)
                .map_err(|error| ControlError(chain(&error)))
        })
    }

    fn set_deadline(
        &self,
        deadline: Option<MonoTime>,
        generation: Generation,
    ) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let Some(deadline) = deadline else {
                let known = self.0.lock().clone();
                // Without a guard there is nothing to disarm.
                let Some(guard) = known else { return Ok(()) };
                return guard
                    .disarm(generation.0)
                    .await
                    .map(drop)
                    .map_err(|error| ControlError(chain(&error)));
            };
            let guard = self.0.guard().await?;
            guard
                .extend(generation.0, nanoseconds(deadline))
                .await
                .map(drop)
                .map_err(|error| ControlError(chain(&error)))
        })
    }

    fn adopt(&self, pid: u32) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let pid = i32::try_from(pid).map_err(|_| ControlError(format!("{pid} is no process id")))?;
            let guard = self.0.guard().await?;
            self.0.remember_program_of(pid);
            guard
                .adopt(pid, 0)
                .await
                .map(drop)
                .map_err(|error| ControlError(chain(&error)))
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<ControlStatus, ControlError>> {
        Box::pin(async move {
            let Some(view) = self.0.known().filter(|view| view.link == Link::Up) else {
                return Ok(ControlStatus::default());
            };
            let alive = view.status.phase != Phase::Idle;
            Ok(ControlStatus {
                pid: u32::try_from(view.status.pid)
                    .ok()
                    .filter(|pid| alive && *pid != 0),
                deadline: (view.status.deadline_ns != 0).then_some(MonoTime(view.status.deadline_ns)),
            })
        })
    }

    fn wait_exit(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let known = self.0.lock().clone();
            let Some(guard) = known else { return Ok(()) };
            let mut views = guard.watch();
            loop {
                let view = *views.borrow_and_update();
                if view.link != Link::Up || view.status.phase == Phase::Idle {
                    return Ok(());
                }
                if views.changed().await.is_err() {
                    return Ok(());
                }
            }
        })
    }
}

/// The guard reads 0 as "none", which is a time before the machine booted.
fn nanoseconds(time: MonoTime) -> u64 {
    time.0.max(1)
}

/// Where the guard of a data directory listens: beside it, so that whoever finds the directory finds its guard.
#[must_use]
pub fn socket_of(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push(".guard");
    data_dir.with_file_name(name)
}
