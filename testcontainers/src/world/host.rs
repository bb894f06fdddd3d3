//! Faults of processes and hosts; and the end of all faults.

use std::sync::atomic::{AtomicU64, Ordering};

use surus_scenarios::{HostFault, Nanos, Taken};

use super::hosts::Who;
use super::{World, disk, nobody, unable, void};

/// How often an agent that was told to end is looked for.
const LOOK: Nanos = Nanos::ms(100);
/// Numbers the files that keep a process starved while they are there.
static STARVED: AtomicU64 = AtomicU64::new(0);

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
        self.tell(format!("  at {}", self.hosts[host].name));
        match fault {
            HostFault::KillAgent { back, .. } => {
                if !self.signal(host, Who::Agent, "KILL") {
                    return void("no agent runs");
                }
                self.lasts(*back, move |world| world.agent_back(host));
            }
            HostFault::StopAgent { back, .. } => {
                if !self.signal(host, Who::Agent, "TERM") {
                    return void("no agent runs");
                }
                self.await_end(host, *back);
            }
            HostFault::FreezeAgent { span, .. } => {
                if !self.signal(host, Who::Agent, "STOP") {
                    return void("no agent runs");
                }
                self.lasts(*span, move |world| {
                    world.signal(host, Who::Agent, "CONT");
                });
            }
            HostFault::SlowAgent { by, span, .. } => {
                let script = Who::Agent.script();
                if !self.starve(host, &script, *by, *span) {
                    return void("no agent runs");
                }
            }
            HostFault::KillGuard { .. } => {
                if !self.signal(host, Who::Guard, "KILL") {
                    return void("no guard runs");
                }
            }
            HostFault::FreezeGuard { span, .. } => {
                if !self.signal(host, Who::Guard, "STOP") {
                    return void("no guard runs");
                }
                self.lasts(*span, move |world| {
                    world.thawed(host);
                    world.signal(host, Who::Guard, "CONT");
                });
            }
            HostFault::PauseHost { span, .. } => {
                if !self.awake(host) {
                    return void("the host has no power, or stands still already");
                }
                let done = self.pause(host, true);
                self.lasts(*span, move |world| {
                    let done = world.pause(host, false);
                    world.outcome("let a host go on", done);
                });
                return self.outcome("pause a host", done);
            }
            HostFault::PowerLoss { back, .. } => {
                if !self.hosts[host].powered {
                    return void("the host has no power");
                }
                if self.small_disks {
                    return unable("the small disk of a story that fills one is memory");
                }
                let done = self.power(host, false);
                self.lasts(*back, move |world| world.power_back(host));
                return self.outcome("take a host's power", done);
            }
            HostFault::PowerOn { .. } => {
                if self.hosts[host].powered {
                    return void("the host has power");
                }
                self.power_back(host);
            }
            HostFault::ClockDrift { .. } | HostFault::ClockJump { .. } => {
                return unable("all containers have the clock of this machine");
            }
        }
        Taken::Done
    }

    fn agent_back(&mut self, host: usize) {
        let done = self.start_agent(host);
        self.outcome("start an agent", done);
    }

    fn power_back(&mut self, host: usize) {
        let done = self.power(host, true);
        self.outcome("give a host its power back", done);
    }

    /// Starts an agent `back` after it has ended.
    fn await_end(&mut self, host: usize, back: Nanos) {
        self.lasts(LOOK, move |world| {
            if world.runs(host, Who::Agent) {
                world.await_end(host, back);
            } else {
                world.lasts(back, move |world| world.agent_back(host));
            }
        });
    }

    /// Processes of a host get the processor now and then only: stopped for up to `by`, they go on for 20 ms. False if there are none.
    pub(super) fn starve(&mut self, host: usize, find: &str, by: Nanos, span: Nanos) -> bool {
        if !self.awake(host) || !matches!(self.ask(host, find), Ok((0, text)) if !text.is_empty()) {
            return false;
        }
        let file = format!("/surus/starved-{}", STARVED.fetch_add(1, Ordering::Relaxed));
        let most = by.0 / 1_000_000;
        // It goes on while its own file is there, and the last thing it does is to let them go on.
        let script = format!(
            "cat >{file} <<'S'
while [ -e {file} ]; do
    pids=$({find})
    kill -STOP $pids
    ms=$(shuf -i 0-{most} -n 1)
    sleep $((ms / 1000)).$(printf %03d $((ms % 1000)))
    kill -CONT $pids
    sleep 0.02
done
S
(setsid sh {file} >/dev/null 2>&1 </dev/null &)"
        );
        let done = self.sh(host, &script).map(drop);
        self.outcome("starve a process", done);
        self.lasts(span, move |world| {
            if world.awake(host) {
                let done = world.sh(host, &format!("rm -f {file}")).map(drop);
                world.outcome("let a process have its time", done);
            }
        });
        true
    }

    /// All faults end, traps are taken away, whoever is down comes up.
    pub(super) fn heal_all(&mut self) {
        self.traps.clear();
        self.sprung.clear();
        let mut due = std::mem::take(&mut self.due);
        due.sort_by_key(|(at, _)| *at);
        for (_, then) in due {
            then(self);
        }
        self.bars.clear();
        for host in 0..self.hosts.len() {
            let done = self.mend(host);
            self.outcome("mend a host", done);
        }
    }

    fn mend(&mut self, host: usize) -> surus_ci::error::Result<()> {
        self.pause(host, false)?;
        self.power(host, true)?;
        // To all but the first process: whoever was stopped goes on.
        let script = format!(
            "rm -f /surus/starved-* /surus/fault-*; {}; kill -CONT -1",
            disk::mended()
        );
        self.ask(host, &script)?;
        self.bar_host(host)?;
        self.start_all(host)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_span_is_written_as_sleep_reads_it() {
        let out = std::process::Command::new("sh")
            .args(["-c", "ms=1042; echo $((ms / 1000)).$(printf %03d $((ms % 1000)))"])
            .output()
            .expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "1.042");
    }
}
