//! Agents: how they begin and end, and how a core is told something and obeyed.

use std::collections::BTreeMap;
use std::time::Duration;

use surus_core::Step;
use surus_core::config::Config;
use surus_core::input::{Input, Outcome};
use surus_core::node::{Boot, Node};
use surus_core::sync::{Gate, Mode};
use surus_core::types::{ActionId, MonoTime, NodeName};
use surus_scenarios::SyncMode;

use crate::clock::{MS, SEC, Time};
use crate::fast::dcs::Adapter;
use crate::fast::event::{Event, Part};
use crate::fast::host::Agent;
use crate::fast::look::Memory;
use crate::fast::world::World;
use crate::record::{self, Seen, Settings};
use crate::zoo::Bug;

impl World {
    pub(crate) fn config(&self, node: usize) -> Config {
        let (settings, tags) = (&self.hosts[node].settings, &self.hosts[node].tags);
        Config {
            ttl: Duration::from_secs(settings.ttl),
            loop_wait: Duration::from_secs(settings.loop_wait),
            retry_timeout: Duration::from_secs(settings.retry_timeout),
            maximum_lag_on_failover: settings.maximum_lag_on_failover,
            primary_start_timeout: Duration::from_secs(settings.primary_start_timeout),
            member_slots_ttl: Duration::from_secs(settings.member_slots_ttl),
            failsafe_mode: settings.failsafe_mode,
            pause: settings.pause,
            nofailover: tags.nofailover,
            failover_priority: tags.failover_priority,
            may_bootstrap: tags.bootstrap,
            use_slots: settings.use_slots,
            use_pg_rewind: settings.use_pg_rewind,
            reclone_on_rewind_failure: settings.remove_data_directory_on_rewind_failure,
            reclone_on_divergence: settings.remove_data_directory_on_diverged_timelines,
            replicate_from: tags.replicatefrom.as_ref().map(|name| NodeName(name.0.clone())),
            synchronous: surus_core::sync::Settings {
                mode: match settings.synchronous_mode {
                    SyncMode::Off => Mode::Off,
                    SyncMode::On => Mode::On,
                    SyncMode::Quorum => Mode::Quorum,
                },
                strict: settings.synchronous_mode_strict,
                count: usize::try_from(settings.synchronous_node_count).unwrap_or(1),
                maximum_lag: u64::try_from(settings.maximum_lag_on_syncnode).ok(),
                gate: (0 < settings.synchronous_gate_timeout).then(|| Gate {
                    bound: Duration::from_secs(settings.synchronous_gate_timeout),
                    hold: settings.synchronous_gate_hold,
                }),
            },
            max_timelines_history: usize::try_from(settings.max_timelines_history).unwrap_or(usize::MAX),
            ..Config::new(self.names[node].clone())
        }
    }

    pub(crate) fn settings(&self, node: usize) -> Settings {
        let config = self.config(node);
        let time = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let gate = config.synchronous.shut_by();
        Settings {
            ttl: time(config.ttl),
            loop_wait: time(config.loop_wait),
            retry_timeout: time(config.retry_timeout),
            maximum_lag: config.maximum_lag_on_failover,
            failsafe: config.failsafe_mode,
            pause: config.pause,
            gate: gate.map(|gate| record::Gate {
                bound: time(gate.bound),
                hold: gate.hold,
            }),
        }
    }

    /// Starts the agent, unless one runs or the host has no power.
    pub fn boot(&mut self, node: usize) {
        let host = &self.hosts[node];
        if host.agent.is_some() || !host.powered {
            return;
        }
        let guard = host.guard.as_ref();
        let boot = Boot {
            guard_deadline: guard
                .filter(|_| host.pg.alive() && self.bug != Some(Bug::BootWithoutGuard))
                .and_then(|guard| guard.deadline),
            generation: guard.map(|guard| guard.generation).unwrap_or_default(),
        };
        let config = self.config(node);
        let local = self.local(node);
        self.rivalry_anew(node);
        self.see(node, Seen::AgentBegan);
        self.see(node, Seen::Configured(self.settings(node)));
        let (core, step) = Node::new(config, boot, local);
        let members = self.etcd.members();
        let host = &mut self.hosts[node];
        host.epoch += 1;
        host.frozen = 0;
        host.memory = Memory::default();
        host.agent = Some(Agent {
            core,
            epoch: host.epoch,
            dcs: Adapter::new(members, node),
            newest: boot.generation,
            postgres: None,
            restart_until: MonoTime::NEVER,
            asks: BTreeMap::new(),
            round: None,
            under_way: BTreeMap::new(),
            wake: Time::MAX,
            alarm: Time::MAX,
            said: None,
        });
        self.follow_step(node, step);
        self.follow(node);
    }

    /// The agent is gone, and nothing was said.
    pub fn kill_agent(&mut self, node: usize) {
        if self.hosts[node].agent.take().is_some() {
            self.see(node, Seen::AgentDied);
        }
        self.forget_agent(node);
    }

    /// What waited for an agent that is gone is dropped.
    pub(crate) fn forget_agent(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.frozen = 0;
        host.deferred
            .retain(|event| !matches!(event.part(), Some((_, Part::Agent(_)))));
    }

    /// The agent will hear this in an instant.
    pub fn hear(&mut self, node: usize, input: Input) {
        if let Some(agent) = &self.hosts[node].agent {
            let epoch = agent.epoch;
            let delay = self.rng.range(MS / 10, MS) + self.starvation(node);
            self.after(delay, Event::Input(node, epoch, Box::new(input)));
        }
    }

    /// How late what happens in an agent comes, if it is starved.
    pub(crate) fn starvation(&mut self, node: usize) -> Time {
        let (until, by) = self.hosts[node].starved;
        if self.now < until { self.rng.below(by) } else { 0 }
    }

    /// An order ended.
    pub fn complete(&mut self, node: usize, id: ActionId, outcome: Outcome) {
        self.hear(node, Input::Done { id, outcome });
    }

    /// A timer of the agent goes off. The core names a new time at each step, mostly a later one, so the timer is moved only now.
    pub(crate) fn woken(&mut self, node: usize) {
        let now = self.now;
        let Some(agent) = self.hosts[node].agent.as_mut().filter(|agent| agent.alarm <= now) else {
            return;
        };
        agent.alarm = Time::MAX;
        if agent.wake <= now {
            return self.step(node, Input::Tick);
        }
        agent.alarm = agent.wake;
        let (wait, epoch) = (agent.wake - now, agent.epoch);
        self.after(wait, Event::Wake(node, epoch));
    }

    /// Tells the core, and does what it says.
    pub fn step(&mut self, node: usize, input: Input) {
        let local = self.local(node);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let ended = match &input {
            Input::Done { id, outcome } => agent
                .under_way
                .remove(id)
                .map(|order| Seen::order_ended(*id, order, outcome)),
            _ => None,
        };
        let step = agent.core.step(local, input);
        if let Some(seen) = ended {
            self.see(node, seen);
        }
        self.follow_step(node, step);
    }

    pub(crate) fn follow_step(&mut self, node: usize, step: Step) {
        let local = self.local(node);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let news = agent
            .said
            .as_ref()
            .is_none_or(|said| !said.same_as(&step.decision));
        let epoch = agent.epoch;
        if news {
            agent.said = Some(step.decision.clone());
            self.see(node, Seen::Decided(Box::new(step.decision)));
        }
        if step.wake.at <= local {
            let text = "asked to be woken in the past".into();
            self.see(node, Seen::Broken { text });
        }
        let delay = self.hosts[node]
            .clock
            .world(step.wake.at)
            .saturating_sub(self.now)
            .max(1)
            .saturating_add(self.starvation(node));
        let delay = if self.bug == Some(Bug::TimerRounded) {
            delay.next_multiple_of(self.hosts[node].settings.loop_wait * SEC)
        } else {
            delay
        };
        let wake = self.now.saturating_add(delay);
        if let Some(agent) = &mut self.hosts[node].agent {
            agent.wake = wake;
            if wake < agent.alarm {
                agent.alarm = wake;
                self.after(delay, Event::Wake(node, epoch));
            }
        }
        for action in step.actions {
            self.execute(node, action);
        }
    }
}
