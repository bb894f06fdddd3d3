//! What stands still on a host, and for how many faults: what one of them lets go may be held by another.

use surus_scenarios::{Nanos, Taken};

use super::super::world::World;
use super::void;
use crate::clock::{MS, Time};
use crate::record::Seen;

/// How many faults hold the parts of a host.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::turmoil) struct Still {
    /// The whole host.
    host: u32,
    /// The agent that runs there.
    agent: u32,
    /// The agent does not get the processor.
    starved: bool,
    /// The guard.
    guard: u32,
    /// PostgreSQL, the one of this epoch.
    postgres: (u64, u32),
    /// Counts how often all was let go at once: the ends of faults of before mean nothing.
    era: u64,
}

impl Still {
    /// The whole host stands still.
    pub(in crate::turmoil) fn host(&self) -> bool {
        self.host != 0
    }

    /// Another agent runs there now.
    pub(in crate::turmoil) fn forget_agent(&mut self) {
        (self.agent, self.starved) = (0, false);
    }

    /// Nothing is held any more: its power is gone, or all faults are over.
    pub(in crate::turmoil) fn forget(&mut self) {
        *self = Self {
            era: self.era + 1,
            ..Self::default()
        };
    }
}

impl World {
    /// Makes the host as it is said to be.
    pub(super) fn obey_still(&mut self, host: usize) {
        let still = self.still[host];
        let all = still.host();
        if let Some(agent) = &self.agents[host] {
            if all || still.agent != 0 || still.starved {
                agent.process.freeze();
            } else {
                agent.process.thaw();
            }
        }
        self.hub.act(host, |_, inside| {
            if let Some(warden) = &mut inside.warden {
                warden.frozen = all || still.guard != 0;
            }
        });
        let epoch = self.hub.look(host, |inside| inside.server.epoch());
        self.hang(host, all || still.postgres.0 == epoch && still.postgres.1 != 0);
    }

    /// Nothing of a host is held any more. It is told first: what goes on acts in the same instant.
    pub(super) fn let_go(&mut self, host: usize) {
        let was = self.still[host];
        self.still[host].forget();
        if was.host() {
            self.see(host, Seen::HostFrozen { frozen: false });
        }
        if was.agent != 0 && self.agents[host].is_some() {
            self.see(host, Seen::AgentFrozen { frozen: false });
        }
        self.obey_still(host);
    }

    /// Holds what `hold` counts, and lets it go after `span`, unless all was let go before.
    fn holds(
        &mut self,
        host: usize,
        span: Nanos,
        hold: fn(&mut Still) -> &mut u32,
        over: impl FnOnce(&mut Self) + 'static,
    ) {
        *hold(&mut self.still[host]) += 1;
        self.obey_still(host);
        let era = self.still[host].era;
        self.lasts(span, move |world| {
            if world.still[host].era == era {
                let count = hold(&mut world.still[host]);
                *count = count.saturating_sub(1);
                // It is told first: what goes on acts in the same instant.
                over(world);
                world.obey_still(host);
            }
        });
    }

    pub(super) fn freeze_agent(&mut self, host: usize, span: Nanos) -> Taken {
        let Some(agent) = &self.agents[host] else {
            return void("no agent runs");
        };
        let process = agent.process.clone();
        self.see(host, Seen::AgentFrozen { frozen: true });
        let over = move |world: &mut Self| {
            if process.alive() {
                world.see(host, Seen::AgentFrozen { frozen: false });
            }
        };
        self.holds(host, span, |still| &mut still.agent, over);
        Taken::Done
    }

    pub(super) fn freeze_guard(&mut self, host: usize, span: Nanos) -> Taken {
        if self.hub.look(host, |inside| inside.warden.is_none()) {
            return void("no guard runs");
        }
        self.holds(host, span, |still| &mut still.guard, |_| ());
        Taken::Done
    }

    pub(super) fn freeze_postgres(&mut self, host: usize, span: Nanos) -> Taken {
        let (alive, epoch) = self
            .hub
            .look(host, |inside| (inside.server.alive(), inside.server.epoch()));
        if !alive {
            return void("PostgreSQL does not run");
        }
        if self.still[host].postgres.0 != epoch {
            self.still[host].postgres = (epoch, 0);
        }
        self.holds(host, span, |still| &mut still.postgres.1, |_| ());
        Taken::Done
    }

    /// The whole host stands still: its agent, guard and PostgreSQL, and the members of etcd that live there.
    pub(super) fn pause_host(&mut self, host: usize, span: Nanos) -> Taken {
        if !self.powered[host] {
            return void("the host has no power");
        }
        self.see(host, Seen::HostFrozen { frozen: true });
        for member in self.etcd_on(host) {
            self.etcd.freeze(member, true);
        }
        let over = move |world: &mut Self| {
            if !world.still[host].host() {
                for member in world.etcd_on(host) {
                    world.etcd.freeze(member, false);
                }
                world.see(host, Seen::HostFrozen { frozen: false });
                if std::mem::take(&mut world.boots[host]) {
                    world.boot(host);
                }
            }
        };
        self.holds(host, span, |still| &mut still.host, over);
        Taken::Done
    }

    /// The agent gets the processor now and then only.
    pub(super) fn slow_agent(&mut self, host: usize, by: Nanos, span: Nanos) -> Taken {
        if self.agents[host].is_none() {
            return void("no agent runs");
        }
        let until = self.time().saturating_add(span.0);
        self.starve(host, by, until);
        self.lasts(span, |_| {});
        Taken::Done
    }

    fn starve(&mut self, host: usize, by: Nanos, until: Time) {
        let (off, on) = (self.rng.below(by.0.max(1)), self.rng.range(MS, 20 * MS));
        let over = until <= self.time() || self.agents[host].is_none();
        self.still[host].starved = !over;
        self.obey_still(host);
        if over {
            return;
        }
        let era = self.still[host].era;
        self.after(off, move |world| {
            if world.still[host].era != era {
                return;
            }
            world.still[host].starved = false;
            world.obey_still(host);
            world.after(on, move |world| {
                if world.still[host].era == era {
                    world.starve(host, by, until);
                }
            });
        });
    }

    /// PostgreSQL's processes are stopped, or go on.
    fn hang(&mut self, host: usize, hung: bool) {
        let alive = self.hub.look(host, |inside| inside.server.alive());
        if !alive || self.hub.look(host, |inside| inside.server.hung()) == hung {
            return;
        }
        self.hub.act(host, |now, inside| {
            if let Some(sessions) = &inside.sessions {
                if hung {
                    sessions.freeze();
                } else {
                    sessions.thaw();
                }
            }
            if hung {
                inside.server.hang();
            } else {
                inside.server.thaw(now);
            }
        });
        self.see(host, Seen::Hung { hung });
    }
}
