//! Faults of processes, hosts and clocks.

use surus_core::input::Input;
use surus_scenarios::{HostFault, Nanos, Taken};

use super::void;
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::record::{End, Seen};
use crate::zoo::Bug;

impl World {
    pub(super) fn host_fault(&mut self, fault: &HostFault) -> Taken {
        let target = match fault {
            HostFault::KillAgent { node, .. }
            | HostFault::StopAgent { node, .. }
            | HostFault::FreezeAgent { node, .. }
            | HostFault::SlowAgent { node, .. }
            | HostFault::KillGuard { node }
            | HostFault::FreezeGuard { node, .. }
            | HostFault::PauseHost { node, .. }
            | HostFault::PowerLoss { node, .. }
            | HostFault::PowerOn { node }
            | HostFault::ClockDrift { node, .. }
            | HostFault::ClockJump { node, .. } => node,
        };
        let Some(node) = self.member_at(target) else {
            return void("nobody is meant by that now");
        };
        match fault {
            HostFault::KillAgent { back, .. } => {
                self.kill_agent(node);
                self.comes_back(*back, Event::Boot(node));
            }
            HostFault::StopAgent { back, .. } => {
                if self.hosts[node].agent.is_none() {
                    return void("no agent runs");
                }
                self.hosts[node].again = Some(back.0);
                self.hear(node, Input::Shutdown);
            }
            HostFault::FreezeAgent { span, .. } => self.freeze(node, *span),
            HostFault::SlowAgent { by, span, .. } => {
                let until = self.until(*span);
                self.hosts[node].starved = (until, by.0);
                self.lasts(*span);
            }
            HostFault::KillGuard { .. } => {
                if self.hosts[node].guard.take().is_none() {
                    return void("no guard runs");
                }
                // PR_SET_PDEATHSIG.
                self.see(node, Seen::GuardDied);
                if self.bug != Some(Bug::PostgresOutlivesGuard) {
                    self.kill_postgres(node, End::GuardDied);
                }
                self.hear(node, Input::GuardLost);
            }
            HostFault::FreezeGuard { span, .. } => {
                let until = self.until(*span);
                let host = &mut self.hosts[node];
                if host.guard.is_none() {
                    return void("no guard runs");
                }
                host.guard_frozen = host.guard_frozen.max(until);
                self.lasts(*span);
            }
            HostFault::PauseHost { span, .. } => {
                if !self.hosts[node].powered {
                    return void("the host has no power");
                }
                self.host_freeze(node, span.0);
                self.lasts(*span);
            }
            HostFault::PowerLoss { back, .. } => {
                if !self.hosts[node].powered {
                    return void("the host has no power");
                }
                self.power_off(node);
                self.comes_back(*back, Event::PowerOn(node));
            }
            HostFault::PowerOn { .. } => {
                if self.hosts[node].powered {
                    return void("the host has power");
                }
                self.after(1, Event::PowerOn(node));
            }
            HostFault::ClockDrift { ppm, .. } => {
                let now = self.now;
                self.hosts[node].clock.steer(now, *ppm);
                // A deadline that has passed is being acted upon.
                if self.hosts[node].armed.is_some_and(|due| now < due) {
                    self.arm_timer(node);
                }
            }
            // Wall time is for people: no deadline of an agent depends on it.
            HostFault::ClockJump { .. } => {}
        }
        Taken::Done
    }

    fn comes_back(&mut self, back: Nanos, event: Event) {
        if back != Nanos::FOREVER {
            self.after(back.0, event);
            self.lasts(back);
        }
    }

    /// SIGSTOP to the agent.
    fn freeze(&mut self, node: usize, span: Nanos) {
        let until = self.until(span);
        let host = &mut self.hosts[node];
        if host.agent.is_none() {
            return;
        }
        host.frozen = host.frozen.max(until);
        let until = host.frozen;
        self.see(node, Seen::AgentFrozen { frozen: true });
        self.after(until - self.now, Event::Thaw(node));
        self.lasts(span);
    }

    /// The host's power goes: agent, guard and PostgreSQL, and a member of etcd that lives there.
    fn power_off(&mut self, node: usize) {
        self.see(node, Seen::Power { on: false });
        self.kill_agent(node);
        let host = &mut self.hosts[node];
        host.powered = false;
        host.guard = None;
        host.armed = None;
        host.still = 0;
        host.deferred.clear();
        self.power_off_postgres(node);
        self.etcd_power(node, false);
    }
}
