//! The agent's [`Custody`]: the model of the guard, which outlives the agent and holds its PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use surus::agent::{Custody, Found, GuardNews};
use surus::postgres::{ControlError, ControlStatus, ProcessControl, Signal, StartRequest};
use surus::task::BoxFuture;
use surus_core::types::{Generation, MonoTime};
use tokio::sync::mpsc;

use super::host::Inside;
use super::hub::Hub;
use super::site::send;
use crate::clock::Time;
use crate::record::Seen;

/// A question to the guard takes this long at the least, as finely as time passes here.
const ASKED: Duration = Duration::from_millis(1);

/// The hold on a host's PostgreSQL, as one agent has it.
pub struct Holder {
    hub: Arc<Hub>,
    host: usize,
}

impl Holder {
    /// The hold on the PostgreSQL of `host`.
    #[must_use]
    pub fn new(hub: Arc<Hub>, host: usize) -> Self {
        Self { hub, host }
    }

    /// A guard that is stopped answers nobody.
    async fn guard_runs(&self) {
        loop {
            let frozen = self.hub.look(self.host, |inside| {
                inside.warden.as_ref().is_some_and(|warden| warden.frozen)
            });
            if !frozen {
                return;
            }
            self.hub.hosts[self.host].changed.notified().await;
        }
    }

    /// A command to the guard, which takes its moment.
    async fn command<T>(
        &self,
        what: impl FnOnce(Time, &mut Inside) -> Result<(T, Vec<Seen>), String>,
    ) -> Result<T, ControlError> {
        // A process of its own is asked over a socket. Were that done in no time, a look at PostgreSQL from before could not be told from one
        // after it, and the core would repeat its orders until the next.
        tokio::time::sleep(ASKED).await;
        self.guard_runs().await;
        let (value, seen) = self.hub.act(self.host, what).map_err(ControlError)?;
        let armed = seen.iter().any(|seen| matches!(seen, Seen::Armed { .. }));
        for seen in seen {
            self.hub.see(Some(self.host), seen);
        }
        if armed {
            self.hub.alone_on_the_list(self.host);
        }
        Ok(value)
    }
}

impl Custody for Holder {
    fn find(&self, news: mpsc::UnboundedSender<GuardNews>) -> BoxFuture<'_, Option<Found>> {
        Box::pin(async move {
            self.guard_runs().await;
            self.hub.act(self.host, |_, inside| {
                let alive = inside.server.alive() && inside.held;
                // One that is begun later reports to the same agent.
                inside.listener = Some(news);
                inside.warden.as_ref().map(|warden| Found {
                    deadline: warden.guard.deadline.filter(|_| alive),
                    generation: warden.guard.generation,
                })
            })
        })
    }

    fn quit(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.guard_runs().await;
            self.hub.act(self.host, |_, inside| {
                if !inside.server.alive() || !inside.held {
                    inside.warden = None;
                }
            });
        })
    }
}

impl ProcessControl for Holder {
    fn start(&self, request: StartRequest) -> BoxFuture<'_, Result<u32, ControlError>> {
        Box::pin(async move {
            let hub = Arc::clone(&self.hub);
            self.command(|now, inside| {
                let mut seen = inside.arm(now, request.generation, request.deadline)?;
                inside
                    .server
                    .start(now)
                    .map_err(|refusal| format!("the postmaster does not start: {refusal:?}"))?;
                inside.held = true;
                inside.open(&hub.hosts[self.host], &hub);
                let as_primary = inside
                    .server
                    .cluster()
                    .is_some_and(|cluster| !cluster.standby_signal);
                seen.extend(
                    inside
                        .standing()
                        .map(|standing| Seen::Starting { as_primary, standing }),
                );
                let pid = inside.pid().ok_or("the postmaster ended at once")?;
                Ok((pid, seen))
            })
            .await
        })
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.command(|now, inside| {
                let stops = matches!(signal, Signal::Fast | Signal::Smart)
                    && inside.held
                    && inside.server.alive()
                    && !inside.server.stopping();
                if inside.held {
                    send(now, inside, signal);
                }
                Ok(((), if stops { vec![Seen::Closing] } else { Vec::new() }))
            })
            .await
        })
    }

    fn set_deadline(
        &self,
        deadline: Option<MonoTime>,
        generation: Generation,
    ) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.command(|now, inside| {
                // Without a guard there is nothing to disarm.
                if deadline.is_none() && inside.warden.is_none() {
                    return Ok(((), Vec::new()));
                }
                let seen = inside.arm(now, generation, deadline)?;
                Ok(((), seen))
            })
            .await
        })
    }

    fn adopt(&self, pid: u32) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.command(|_, inside| {
                if inside.pid() != Some(pid) {
                    return Err(format!("there is no process {pid}"));
                }
                let (_, began) = inside.warden();
                inside.held = true;
                Ok(((), if began { vec![Seen::GuardBegan] } else { Vec::new() }))
            })
            .await
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<ControlStatus, ControlError>> {
        Box::pin(async move {
            Ok(self.hub.look(self.host, |inside| {
                let Some(warden) = &inside.warden else {
                    return ControlStatus::default();
                };
                ControlStatus {
                    pid: inside.pid().filter(|_| inside.held),
                    deadline: warden.guard.deadline,
                }
            }))
        })
    }

    fn wait_exit(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            while self
                .hub
                .look(self.host, |inside| inside.held && inside.server.alive())
            {
                self.hub.hosts[self.host].changed.notified().await;
            }
            Ok(())
        })
    }
}
