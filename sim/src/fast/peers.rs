//! What members ask each other: how things stand, and in a failsafe round whether the primary may stay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use surus_core::Order;
use surus_core::input::{Input, Outcome, RequestId};
use surus_core::types::{ActionId, MonoTime, NodeName};
use surus_core::view::{ClusterView, PeerStatus, Process, Server};

use crate::clock::{MS, SEC};
use crate::fast::event::Event;
use crate::fast::host::Round;
use crate::fast::world::World;
use crate::net::Place;
use crate::record::{RightBy, Seen};
use crate::zoo::Bug;

impl World {
    pub(crate) fn index(&self, name: &NodeName) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Asks the peers: each answer comes by itself, and silence after a while.
    pub(crate) fn ask(
        &mut self,
        node: usize,
        whom: &BTreeMap<NodeName, String>,
        round: Option<(ActionId, Duration)>,
    ) {
        self.counter += 1;
        let question = self.counter;
        let local = self.local(node);
        let targets: Vec<usize> = whom.keys().filter_map(|name| self.index(name)).collect();
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let epoch = agent.epoch;
        if let Some((id, ttl)) = round {
            agent.round = Some(Round {
                id,
                question,
                ttl,
                sent: local,
                asked: targets.iter().copied().collect(),
                granted: BTreeSet::new(),
                refused: BTreeSet::new(),
                heard: BTreeSet::new(),
                truly: BTreeSet::new(),
                promised: None,
            });
        } else {
            agent
                .asks
                .extend(targets.iter().map(|to| ((question, *to), local)));
        }
        for to in targets {
            let (from, there) = (Place::Node(node), Place::Node(to));
            let what = if round.is_some() {
                "may I stay?"
            } else {
                "how do you stand?"
            };
            if let Some(delay) = self.post(from, there, what) {
                self.after(
                    delay,
                    Event::Ask(node, epoch, to, question, round.map(|(_, ttl)| ttl)),
                );
            }
        }
        let settings = &self.hosts[node].settings;
        // `Limits::peer` and `Limits::failsafe` of the agent's executor.
        let patience = if round.is_some() {
            (settings.ttl * SEC / 3).max(500 * MS)
        } else {
            (settings.retry_timeout * SEC / 2).clamp(300 * MS, 2 * SEC)
        };
        let delay = if whom.is_empty() { 1 } else { patience };
        self.after(delay, Event::AskOver(node, epoch, question));
    }

    /// A question reaches a member.
    pub(crate) fn asked(
        &mut self,
        from: usize,
        epoch: u64,
        to: usize,
        question: u64,
        failsafe: Option<Duration>,
    ) {
        let now = self.now;
        let host = &self.hosts[to];
        let stuck = if host.agent.is_some() {
            host.frozen.max(host.still)
        } else {
            host.still
        };
        if now < stuck {
            // It waits in the socket's buffer.
            self.after(stuck - now + 1, Event::Ask(from, epoch, to, question, failsafe));
            return;
        }
        if !host.powered {
            return;
        }
        let (here, back) = (Place::Node(to), Place::Node(from));
        let answer = if host.agent.is_none() {
            // Nobody listens: the host's kernel refuses the connection at once.
            if failsafe.is_some() {
                Event::Grant(from, epoch, to, question, None)
            } else {
                Event::Answer(from, epoch, to, question, Box::new(None))
            }
        } else if let Some(ttl) = failsafe {
            let local = self.local(to);
            let request = RequestId(question);
            let leader = self.names[from].clone();
            let Some(agent) = &mut self.hosts[to].agent else {
                return;
            };
            if self.bug == Some(Bug::GrantWithoutPromise) {
                self.see(to, Seen::Granted { to: from });
                self.after(MS, Event::Grant(from, epoch, to, question, Some(true)));
                return;
            }
            let input = Input::FailsafeAsked {
                request,
                leader,
                ttl: Some(ttl),
            };
            let step = agent.core.step(local, input);
            let granted = step.actions.iter().any(
                |action| matches!(&action.order, Order::Reply { request: answered, ok: true, .. } if *answered == request),
            );
            if granted {
                self.promised(to, ttl);
                self.see(to, Seen::Granted { to: from });
            }
            self.follow_step(to, step);
            Event::Grant(from, epoch, to, question, Some(granted))
        } else {
            Event::Answer(from, epoch, to, question, Box::new(self.peer_status(to)))
        };
        let what = match &answer {
            Event::Grant(.., Some(true)) => "granted",
            Event::Grant(.., Some(false)) => "not granted",
            Event::Answer(.., status) if status.is_some() => "status",
            _ => "nobody here",
        };
        if let Some(delay) = self.post(here, back, what) {
            self.after(delay, answer);
        }
    }

    /// A member has granted: it keeps still for the longest ttl that it knows of, its own, the one that the leader claims, or the one that
    /// was asked for; and no longer than its core has promised to.
    fn promised(&mut self, node: usize, asked: Duration) {
        let local = self.local(node);
        let Some(agent) = &self.hosts[node].agent else {
            return;
        };
        let explanation = agent.core.explain();
        let claimed = explanation.facts.view().and_then(ClusterView::claimed_ttl);
        let promise = explanation.state.promise.as_ref();
        let kept = promise.map_or(Duration::ZERO, |promise| promise.until.since(local));
        let own = Duration::from_secs(self.hosts[node].settings.ttl);
        self.hosts[node].rivalry.granted = Some(self.now);
        self.hosts[node].promises = own.max(asked).max(claimed.unwrap_or_default()).min(kept);
    }

    pub(crate) fn peer_status(&self, node: usize) -> Option<PeerStatus> {
        let host = &self.hosts[node];
        let agent = host.agent.as_ref()?;
        let explanation = agent.core.explain();
        let view = self.look(node, &mut host.memory.clone());
        let server = match view.process {
            Process::Running(server) => Some(server),
            _ => None,
        };
        Some(PeerStatus {
            running: server.is_some(),
            primary: server.as_ref().is_some_and(Server::is_primary),
            position: server.as_ref().map(Server::position),
            timeline: server.map(|server| server.timeline),
            nofailover: host.tags.nofailover,
            failover_priority: host.tags.failover_priority,
            stands: explanation.state.stood.map(|stood| stood.timeline),
            can_take_lock: Some(explanation.could_take_lock.is_ok()),
        })
    }

    pub(crate) fn answered(&mut self, node: usize, from: usize, question: u64, status: Option<PeerStatus>) {
        let name = self.names[from].clone();
        if let Some(agent) = &mut self.hosts[node].agent
            && let Some(asked) = agent.asks.remove(&(question, from))
        {
            self.step(node, Input::Peer { name, asked, status });
        }
    }

    /// An answer to a failsafe question: granted, refused, or nobody there.
    pub(crate) fn granted(&mut self, node: usize, from: usize, question: u64, answer: Option<bool>) {
        let name = self.names[from].clone();
        let promises = self.hosts[from].promises;
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let any = self.bug == Some(Bug::OtherRoundsGrants);
        let Some(round) = agent
            .round
            .as_mut()
            .filter(|round| round.question == question || any)
        else {
            return;
        };
        if answer == Some(true) && round.question == question {
            round.truly.insert(from);
            round.promised = Some(round.promised.map_or(promises, |least| least.min(promises)));
        }
        match answer {
            Some(true) => round.granted.insert(name),
            Some(false) => round.refused.insert(name),
            None => self.bug == Some(Bug::SilenceGrants) && round.granted.insert(name),
        };
        round.heard.insert(from);
        if round.heard.len() == round.asked.len() {
            let question = round.question;
            self.ask_over(node, question);
        }
    }

    pub(crate) fn ask_over(&mut self, node: usize, question: u64) {
        let names = self.names.clone();
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        if let Some(mut round) = agent.round.take_if(|round| round.question == question) {
            let (sent, all) = (round.sent, round.truly.len() == round.asked.len());
            if self.bug == Some(Bug::FailsafeWithoutGrants) {
                round.granted.extend(names.iter().cloned());
            }
            if all {
                // As long as everybody keeps still, whatever was set meanwhile that the agent has not heard of. Who is alone on the list has
                // nobody to keep still.
                let ttl = round.promised.unwrap_or(round.ttl);
                self.earn(node, sent, ttl, RightBy::Grants);
            }
            let outcome = Outcome::Failsafe {
                sent: round.sent,
                granted: round.granted,
                refused: round.refused,
            };
            self.step(
                node,
                Input::Done {
                    id: round.id,
                    outcome,
                },
            );
            return;
        }
        let silent: Vec<(usize, MonoTime)> = agent
            .asks
            .range((question, 0)..(question + 1, 0))
            .map(|((_, peer), asked)| (*peer, *asked))
            .collect();
        agent.asks.retain(|(known, _), _| *known != question);
        for (peer, asked) in silent {
            let input = Input::Peer {
                name: names[peer].clone(),
                asked,
                status: None,
            };
            self.step(node, input);
        }
    }
}
