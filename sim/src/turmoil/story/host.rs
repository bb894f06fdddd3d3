//! Faults of processes, hosts and clocks; and the end of all faults.

use surus_scenarios::{HostFault, Nanos, Taken};

use super::super::world::{RESTART, World};
use super::{nobody, void};
use crate::clock::{MS, SEC};
use crate::model::postgres::Server;
use crate::record::{End, Seen};

impl World {
    pub(super) fn host_fault(&mut self, fault: &HostFault) -> Taken {
        let (HostFault::KillAgent { node, .. }
        | HostFault::StopAgent { node, .. }
        | HostFault::FreezeAgent { node, .. }
        | HostFault::SlowAgent { node, .. }
        | HostFault::KillGuard { node }
        | HostFault::FreezeGuard { node, .. }
        | HostFault::PauseHost { node, .. }
        | HostFault::PowerLoss { node, .. }
        | HostFault::PowerOn { node }
        | HostFault::ClockDrift { node, .. }
        | HostFault::ClockJump { node, .. }) = fault;
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        match fault {
            HostFault::KillAgent { back, .. } => {
                if !self.kill_agent(host) {
                    return void("no agent runs");
                }
                self.lasts(*back, move |world| world.boot(host));
            }
            HostFault::StopAgent { back, .. } => {
                if !self.stop_agent(host, back.0) {
                    return void("no agent runs");
                }
            }
            HostFault::FreezeAgent { span, .. } => return self.freeze_agent(host, *span),
            HostFault::SlowAgent { by, span, .. } => return self.slow_agent(host, *by, *span),
            HostFault::KillGuard { .. } => {
                if !self.hub.act(host, |now, inside| inside.kill_guard(now)) {
                    return void("no guard runs");
                }
                self.see(host, Seen::GuardDied);
            }
            HostFault::FreezeGuard { span, .. } => {
                if !self.freeze_guard(host, true) {
                    return void("no guard runs");
                }
                self.lasts(*span, move |world| {
                    world.freeze_guard(host, false);
                });
            }
            HostFault::PauseHost { span, .. } => {
                if !self.powered[host] {
                    return void("the host has no power");
                }
                self.pause(host, true);
                self.lasts(*span, move |world| world.pause(host, false));
            }
            HostFault::PowerLoss { back, .. } => {
                if !self.powered[host] {
                    return void("the host has no power");
                }
                self.power(host, false);
                self.lasts(*back, move |world| world.power(host, true));
            }
            HostFault::PowerOn { .. } => {
                if self.powered[host] {
                    return void("the host has power");
                }
                self.power(host, true);
            }
            HostFault::ClockDrift { ppm, .. } => {
                let ppm = *ppm;
                self.hub.act(host, |now, inside| {
                    inside.clock.steer(now, ppm);
                    inside.retime();
                });
            }
            HostFault::ClockJump { ms, .. } => {
                let jump = ms * i64::try_from(MS).unwrap_or(0);
                self.hub.act(host, |_, inside| inside.wall += jump);
            }
        }
        Taken::Done
    }

    fn freeze_agent(&mut self, host: usize, span: Nanos) -> Taken {
        let Some(agent) = &self.agents[host] else {
            return void("no agent runs");
        };
        let process = agent.process.clone();
        process.freeze();
        self.see(host, Seen::AgentFrozen { frozen: true });
        self.lasts(span, move |world| {
            if process.alive() {
                process.thaw();
                world.see(host, Seen::AgentFrozen { frozen: false });
            }
        });
        Taken::Done
    }

    /// It gets the processor now and then only.
    fn slow_agent(&mut self, host: usize, by: Nanos, span: Nanos) -> Taken {
        if self.agents[host].is_none() {
            return void("no agent runs");
        }
        let until = self.time().saturating_add(span.0);
        self.starve(host, by, until);
        self.lasts(span, |_| {});
        Taken::Done
    }

    fn starve(&mut self, host: usize, by: Nanos, until: u64) {
        let (off, on) = (self.rng.below(by.0.max(1)), self.rng.range(MS, 20 * MS));
        let Some(process) = self.agents[host].as_ref().map(|agent| agent.process.clone()) else {
            return;
        };
        if until <= self.time() {
            process.thaw();
            return;
        }
        process.freeze();
        self.after(off, move |world| {
            process.thaw();
            world.after(on, move |world| world.starve(host, by, until));
        });
    }

    fn freeze_guard(&mut self, host: usize, frozen: bool) -> bool {
        self.hub.act(host, |_, inside| {
            let warden = inside.warden.as_mut();
            warden.map(|warden| warden.frozen = frozen).is_some()
        })
    }

    /// The whole host stands still, or goes on.
    fn pause(&mut self, host: usize, paused: bool) {
        if paused {
            self.see(host, Seen::HostFrozen { frozen: true });
        }
        if let Some(agent) = &self.agents[host] {
            if paused {
                agent.process.freeze();
            } else {
                agent.process.thaw();
            }
        }
        self.freeze_guard(host, paused);
        self.hang(host, paused);
        for member in self.etcd_on(host) {
            self.etcd.freeze(member, paused);
        }
        if !paused {
            self.see(host, Seen::HostFrozen { frozen: false });
        }
    }

    /// PostgreSQL's processes are stopped, or go on.
    pub(super) fn hang(&mut self, host: usize, hung: bool) -> bool {
        let alive = self.hub.look(host, |inside| inside.server.alive());
        if !alive || self.hub.look(host, |inside| inside.server.hung()) == hung {
            return alive;
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
        true
    }

    fn etcd_on(&self, host: usize) -> Vec<usize> {
        let machine = self.machines.hosts[host];
        let on = |member: &usize| self.machines.etcd[*member] == machine;
        (0..self.machines.etcd.len()).filter(on).collect()
    }

    /// Power goes, with all that was not flushed, or comes.
    fn power(&mut self, host: usize, on: bool) {
        if self.powered[host] == on {
            return;
        }
        let machine = self.machines.hosts[host];
        if on {
            self.powered[host] = true;
            self.net.power(machine, true);
            self.see(host, Seen::Power { on });
            for member in self.etcd_on(host) {
                self.etcd.revive(member);
            }
            self.boot(host);
        } else {
            self.see(host, Seen::Power { on });
            self.net.power(machine, false);
            self.powered[host] = false;
            self.kill_agent(host);
            self.hub.act(host, |_, inside| {
                inside.lose_power();
                Server::power_off(&mut inside.server);
            });
            for member in self.etcd_on(host) {
                self.etcd.kill(member);
            }
        }
        self.hub.relink();
    }

    /// All faults end, and whoever is down comes up.
    pub(super) fn heal_all(&mut self) {
        self.forget_later();
        self.clear_traps();
        self.heal_network();
        if !self.shape.settings.pause {
            self.insist("pause", false);
        }
        for host in 0..self.agents.len() {
            self.power(host, true);
            self.hang(host, false);
            self.freeze_guard(host, false);
            self.hub.act(host, |_, inside| inside.mend());
            if let Some(agent) = &self.agents[host] {
                agent.process.thaw();
                // One that is on its way out.
                self.again[host].get_or_insert(RESTART);
            }
            self.boot(host);
        }
        for member in 0..self.machines.etcd.len() {
            self.etcd.freeze(member, false);
            self.etcd.revive(member);
        }
        self.mend_etcd();
        self.see(None, Seen::Healed);
    }

    fn mend_etcd(&mut self) {
        self.etcd.mend();
        // What is asked of an etcd without a leader comes to nothing.
        if self.etcd.model(|_, model| model.leader()).is_none() {
            self.after(SEC, Self::mend_etcd);
        }
    }

    /// PostgreSQL is killed.
    pub(super) fn kill_postgres(&mut self, host: usize) -> bool {
        self.hub.act(host, |now, inside| {
            let alive = inside.server.alive();
            if alive {
                inside.kill(now, End::Killed);
            }
            alive
        })
    }
}
