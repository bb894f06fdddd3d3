//! Faults of processes, hosts and clocks; and the end of all faults.

use surus_scenarios::{HostFault, Taken};

use super::super::world::{RESTART, World};
use super::{nobody, void};
use crate::clock::MS;
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
            HostFault::FreezeGuard { span, .. } => return self.freeze_guard(host, *span),
            HostFault::PauseHost { span, .. } => return self.pause_host(host, *span),
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
                    inside.retime(now);
                });
            }
            HostFault::ClockJump { ms, .. } => {
                let jump = ms * i64::try_from(MS).unwrap_or(0);
                self.hub.act(host, |_, inside| inside.wall += jump);
            }
        }
        Taken::Done
    }

    pub(super) fn etcd_on(&self, host: usize) -> Vec<usize> {
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
            self.still[host].forget();
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
            self.boots[host] = false;
            self.let_go(host);
            self.hub.act(host, |now, inside| inside.mend(now));
            if self.agents[host].is_some() {
                // One that is on its way out.
                self.again[host].get_or_insert(RESTART);
            }
            self.boot(host);
        }
        for member in 0..self.machines.etcd.len() {
            self.etcd.freeze(member, false);
            self.etcd.revive(member);
        }
        self.etcd.behave();
        self.etcd_space();
        self.see(None, Seen::Healed);
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
