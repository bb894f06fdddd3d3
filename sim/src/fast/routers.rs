//! HAProxy as Patroni's users run it: every so often (`inter`, usually three seconds, which is also how long an answer may take) it asks each
//! member's REST API whether it is the primary; a member is down after some bad answers (`fall`), up after some good ones (`rise`),
//! and its sessions are cut when it goes down.
//!
//! What a member answers is what its agent would: the right to be primary holds at this very instant by the agent's own account, and a
//! recent look found a server that accepts writes (`agent/src/rest/health.rs`). The record tells each answer, for the check against the models.

use std::time::Duration;

use surus_core::types::MonoTime;
use surus_scenarios::Health;

use crate::fast::event::Event;
use crate::fast::world::World;
use crate::net::Place;
use crate::record::Seen;
use crate::zoo::Bug;

/// A router.
#[derive(Debug, Clone)]
pub struct Router {
    health: Health,
    members: Vec<Backend>,
    /// Counts sessions, for the round robin.
    turn: usize,
}

/// A member, as a router sees it.
#[derive(Debug, Clone, Default)]
struct Backend {
    up: bool,
    /// Answers in a row that speak against what it is taken for.
    against: u64,
    /// The question that awaits an answer.
    asked: u64,
}

impl Router {
    /// A router over so many members, all of them down until asked.
    #[must_use]
    pub fn new(nodes: usize, health: &Health) -> Self {
        Self {
            health: health.clone(),
            members: vec![Backend::default(); nodes],
            turn: 0,
        }
    }
}

impl World {
    /// The member that a router's next session goes to.
    pub(crate) fn routed(&mut self, router: usize) -> Option<usize> {
        let router = &mut self.routers[router];
        let up: Vec<usize> = (0..router.members.len())
            .filter(|node| router.members[*node].up)
            .collect();
        router.turn += 1;
        (!up.is_empty()).then(|| up[router.turn % up.len()])
    }

    /// It is time to ask a member.
    pub(crate) fn poll(&mut self, router: usize, node: usize) {
        self.counter += 1;
        let question = self.counter;
        let unanswered = std::mem::replace(&mut self.routers[router].members[node].asked, question) != 0;
        if unanswered {
            self.polled(router, node, question, false);
            self.routers[router].members[node].asked = question;
        }
        let (from, to) = (Place::Router(router), Place::Node(node));
        if self.net.up(self.now, from, to) {
            let delay = self.net.delay(self.now, from, to, &mut self.rng);
            self.after(delay, Event::PollArrives(router, node, question));
        }
        let poll = self.routers[router].health.poll;
        self.after(poll.0, Event::Poll(router, node));
    }

    /// The question reaches the member's REST API.
    pub(crate) fn poll_arrives(&mut self, router: usize, node: usize, question: u64) {
        let host = &self.hosts[node];
        let stuck = host.frozen.max(host.still);
        if self.now < stuck {
            let wait = stuck - self.now + 1;
            self.after(wait, Event::PollArrives(router, node, question));
            return;
        }
        if !host.powered {
            return;
        }
        let primary = self.says_primary(node);
        if host.agent.is_some() {
            self.see(node, Seen::Health { router, primary });
        }
        let (from, to) = (Place::Node(node), Place::Router(router));
        if self.net.up(self.now, from, to) {
            let delay = self.net.delay(self.now, from, to, &mut self.rng);
            self.after(delay, Event::Polled(router, node, question, primary));
        }
    }

    /// `GET /primary` would be answered with 200.
    #[must_use]
    pub fn says_primary(&self, node: usize) -> bool {
        let local = self.local(node);
        let Some(agent) = &self.hosts[node].agent else {
            return false;
        };
        let explanation = agent.core.explain();
        let right = explanation.right_until();
        let leads = right != MonoTime::ZERO && local < right || self.bug == Some(Bug::HealthByRole);
        // `Timing::probe_limit`.
        let limit = explanation.config.loop_wait * 2 + Duration::from_secs(1);
        let fresh = explanation
            .facts
            .postgres
            .as_ref()
            .is_some_and(|seen| local.since(seen.at) <= limit);
        let writes = fresh
            && explanation
                .facts
                .server()
                .is_some_and(|server| server.is_primary());
        // In a pause that everybody knows it to be exempt in, with etcd out of reach, the server's own role decides.
        let ttl = explanation.config.ttl;
        let cut_off = explanation.facts.read.is_none_or(|read| ttl <= local.since(read));
        writes && (leads || explanation.exempt() && cut_off)
    }

    /// An answer, or none, reaches the router.
    pub(crate) fn polled(&mut self, router: usize, node: usize, question: u64, primary: bool) {
        let Router { health, members, .. } = &mut self.routers[router];
        let (fall, rise, cut) = (health.fall, health.rise, health.cut);
        let backend = &mut members[node];
        if backend.asked != question {
            return;
        }
        backend.asked = 0;
        if backend.up == primary {
            backend.against = 0;
            return;
        }
        backend.against += 1;
        let needed = if backend.up { fall } else { rise };
        if backend.against < needed {
            return;
        }
        backend.against = 0;
        backend.up = primary;
        self.see(node, Seen::Routed { router, up: primary });
        if !primary && cut {
            self.shut_sessions(router, node);
        }
    }
}
