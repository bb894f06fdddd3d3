//! The state machine: one input in, one decision and its orders out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::action::{Action, Lane, Order};
use crate::config::Config;
use crate::decision::{Decision, Rule, Step, Wake};
use crate::duties;
use crate::explain::Explanation;
use crate::facts::Facts;
use crate::input::{Input, OperatorOrder, RequestId};
use crate::lanes::Lanes;
use crate::lease::Lease;
use crate::rules::{self, Context, Intent};
use crate::state::{AfterPromotion, Promise, Reached, State, Writes};
use crate::types::{Generation, MonoTime};
use crate::view::{ClusterView, DataDir, Initialize, Process};
use crate::zoo::{Flaw, lacks};

mod outcome;
mod standing;

/// What was found when the agent began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Boot {
    /// The deadline of a guard that was found alive, with a PostgreSQL under it.
    pub guard_deadline: Option<MonoTime>,
    /// The generation that guard last saw.
    pub generation: Generation,
}

/// One member's high-availability state machine.
///
/// - `step`: something happened, or time passed. Any input at any time is legal; spurious and early calls are harmless.
/// - `explain`: what the node believes, and why it is where it is.
///
/// `now` must not go back; if it does, the last time counts. Actions are to be executed in order within a lane, and an
/// order given while another of its lane is under way replaces that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    config: Config,
    facts: Facts,
    state: State,
    lanes: Lanes,
    now: MonoTime,
    decisions: u64,
    last: Option<Decision>,
}

impl Node {
    /// A node that begins at `now`, and its first step.
    pub fn new(config: Config, boot: Boot, now: MonoTime) -> (Self, Step) {
        let until = boot.guard_deadline.map_or(MonoTime::ZERO, |deadline| {
            if deadline == MonoTime::NEVER {
                MonoTime::ZERO
            } else {
                deadline.plus(config.guard_margin())
            }
        });
        let lease = Lease::inherited(until, boot.generation);
        // A deadline over a server that turns out to be a replica means that the last agent was promoting it.
        let unsure = until != MonoTime::ZERO && !lacks(Flaw::PromotionBeforeBoot);
        let mut node = Self {
            config,
            facts: Facts::default(),
            state: State {
                unsure,
                ..State::new(lease, now)
            },
            lanes: Lanes::default(),
            now,
            decisions: 0,
            last: None,
        };
        let step = node.step(now, Input::Tick);
        (node, step)
    }

    /// Tells the node one thing that happened, or only that time passed.
    pub fn step(&mut self, now: MonoTime, input: Input) -> Step {
        self.now = self.now.max(now);
        self.lanes.refresh(self.now);
        let mut actions = Vec::new();
        self.fold(input, &mut actions);
        self.track();
        let decision = self.decide(&mut actions);
        let (orders, due) = duties::routine(&self.context());
        self.state.due = due;
        for order in orders {
            self.give(order, &mut actions);
        }
        let wake = self.wake();
        self.last = Some(decision.clone());
        Step {
            decision,
            actions,
            wake,
        }
    }

    /// What the node believes, and why it is where it is.
    #[must_use]
    pub fn explain(&self) -> Explanation<'_> {
        Explanation {
            config: &self.config,
            facts: &self.facts,
            state: &self.state,
            decision: self.last.as_ref(),
            could_take_lock: rules::could_take_lock(&self.context()),
            now: self.now,
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            config: &self.config,
            facts: &self.facts,
            state: &self.state,
            lanes: &self.lanes,
            now: self.now,
        }
    }

    fn give(&mut self, order: Order, actions: &mut Vec<Action>) {
        let now = self.now;
        self.state.begun_as_replica &= order.lane() != Lane::Postgres;
        if order.lane() == Lane::Postgres {
            // Whatever begins with it is shut anew.
            self.state.gated = None;
        }
        match &order {
            Order::Stop { .. } => self.state.last_stop = now,
            Order::StartReplica { .. } => self.state.last_start = Some((now, order.clone())),
            Order::StartPrimary { .. } => {
                self.state.last_start = Some((now, order.clone()));
                self.state.unsure = true;
            }
            Order::Promote { .. } => {
                self.state.unsure_before = self.state.unsure;
                self.state.unsure = true;
                self.state.tried = true;
            }
            Order::Bootstrap { .. }
            | Order::Restart {
                guard_until: Some(_), ..
            } => self.state.unsure = true,
            Order::Acquire { ttl, status, .. } | Order::Renew { ttl, status, .. } => {
                self.state.lease.announce(*ttl, now);
                self.state.unfenced &= status.unfenced;
                self.state.proposed = self.state.proposed.max(status.next);
            }
            Order::Release { status, .. } => {
                self.state.releasing = !lacks(Flaw::ReleaseForgotten);
                self.state.unfenced &= status.unfenced;
            }
            Order::SetSynchronous { .. } => self.state.sync.forget(),
            Order::ReadCluster => {
                self.state.floor = self.facts.view().map(|view| view.revision).unwrap_or_default();
            }
            Order::WriteFailsafe { seen, list } => {
                let sent = self.state.failsafe_sent.get_or_insert((*seen, BTreeMap::new()));
                if sent.0 != *seen {
                    *sent = (*seen, BTreeMap::new());
                }
                sent.1.extend(list.clone());
            }
            _ => {}
        }
        actions.push(self.lanes.give(now, self.state.lease.generation, order));
    }

    /// Takes in what happened. No decisions are taken here but answers to questions that await one.
    fn fold(&mut self, input: Input, actions: &mut Vec<Action>) {
        let now = self.now;
        match input {
            Input::Tick => {}
            Input::Look => self.state.due.probe = now,
            Input::Cluster(view) => self.observe_cluster(view),
            Input::PostgresExited => {
                // Which server ended cannot be told: the message may be late, and another run by now. The next look tells.
                self.state.settled = now;
                self.state.due.probe = now;
                self.state.sync.forget();
                self.short_life();
            }
            Input::GuardLost => {
                self.state.deadline = None;
                self.state.due.probe = now;
            }
            Input::Config(config) => {
                if self.config.pause != config.pause {
                    // The guard's deadline is lifted, or set again, only after `status` says so.
                    self.state.due.renew = now;
                }
                self.config = config;
                self.state.due.keys = now;
                self.state.due.publish = now;
            }
            Input::FailsafeAsked { request, leader, ttl } => {
                let granted = self.grant(&leader, ttl);
                let text = if granted {
                    "Accepted"
                } else {
                    "Running as a leader"
                };
                self.give(
                    Order::Reply {
                        request,
                        ok: granted,
                        text: text.to_owned(),
                    },
                    actions,
                );
            }
            Input::Operator { request, order } => {
                if let Err((ok, text)) = self.accept(request, order) {
                    self.give(Order::Reply { request, ok, text }, actions);
                }
            }
            Input::Shutdown => {
                self.state.shutdown.get_or_insert(now);
                self.state.leaving.get_or_insert(now);
                self.state.due.publish = now;
            }
            Input::Peer { name, asked, status } => self.facts.observe_peer(name, asked, status),
            Input::Done { id, outcome } => {
                if let Some(outstanding) = self.lanes.done(id) {
                    self.done(outstanding, outcome, actions);
                }
            }
        }
    }

    /// A PostgreSQL that ends soon after its start, without having been told to, did not really come up.
    fn short_life(&mut self) {
        let stopping = matches!(
            self.lanes.outstanding(Lane::Postgres),
            Some(outstanding) if matches!(
                outstanding.order,
                Order::Stop { .. } | Order::Restart { .. } | Order::StartPrimary { .. } | Order::StartReplica { .. }
            )
        );
        let Some((at, order)) = self.state.last_start.clone() else {
            return;
        };
        if stopping || self.state.last_stop > at || at.plus(SHORT_LIFE) <= self.now {
            return;
        }
        if matches!(order, Order::StartPrimary { .. }) {
            self.state.failed_starts += 1;
        }
        let text = "PostgreSQL ended soon after it was started; its own log says why".to_owned();
        self.state.failed(self.now, order, text, FIRST_WAIT);
    }

    fn observe_cluster(&mut self, view: ClusterView) {
        let had_leader = self.facts.leader().is_some();
        let first = self.facts.cluster.is_none();
        let registered = |facts: &Facts| facts.member(&self.config.name).is_some();
        let had_key = registered(&self.facts);
        let wished = self.facts.wished;
        self.facts.observe_cluster(&self.config, self.now, view);
        let view = self.facts.view();
        self.state
            .promise
            .take_if(|promise| view.is_some_and(|view| promise.void(view)));
        if had_key && !registered(&self.facts) {
            // Who looks for the best candidate asks those that have a key, and waits a moment only for one that has just lost it.
            self.state.due.publish = self.now;
        }
        if self.facts.wished.is_some() && self.facts.wished != wished {
            // Who streams is what a wish is measured by, and the last look may be a whole round old.
            self.state.due.probe = self.now;
        }
        if first && self.context().known_unfenced() && !lacks(Flaw::UnfencedBeforeBoot) {
            // Without a deadline the guard could not tell: the last agent may have been promoting it.
            self.state.unsure = true;
        }
        if had_leader && self.facts.leader().is_none() {
            self.lock_is_free();
        }
    }

    /// Positions are asked for at the instant the lock becomes free, not at the next round.
    fn lock_is_free(&mut self) {
        self.state.due.peers = self.now;
        self.state.due.probe = self.now;
    }

    /// Grants a primary that cannot reach the DCS to stay, unless this node leads, or is taking the lock, or knows of another
    /// leader. The grant binds for as long as the other's right can last by this node's clock: what it asks for, and what is known of it.
    fn grant(&mut self, leader: &crate::types::NodeName, asked: Option<Duration>) -> bool {
        let taking = matches!(
            self.lanes.outstanding(Lane::Lock),
            Some(outstanding) if matches!(outstanding.order, Order::Acquire { .. })
        );
        let taking = taking && !lacks(Flaw::GrantWhileTaking);
        let leads = self.state.lease.held || self.facts.may_write() || self.context().leader_is_me();
        let leads = leads && !lacks(Flaw::GrantAsLeader);
        let other = self.facts.leader().is_some_and(|known| known != leader);
        let given = self
            .state
            .promise
            .as_ref()
            .is_some_and(|promise| promise.to != *leader && self.now < promise.until);
        let given = given && !lacks(Flaw::GrantToTwo);
        if !self.config.failsafe_mode || taking || leads || other || given || self.state.exiting {
            return false;
        }
        let claimed = self.facts.view().and_then(ClusterView::claimed_ttl);
        let asked = asked.filter(|_| !lacks(Flaw::PromiseAsKnown));
        let ttl = self.config.ttl.max(claimed.max(asked).unwrap_or_default());
        if !lacks(Flaw::PromiseForgotten) {
            let known = self.facts.view().map(|view| view.status_revision);
            self.state.promise = Some(Promise {
                to: leader.clone(),
                until: self.now.plus(Config::foreign_right(ttl)),
                status: Some(known.unwrap_or_default()),
            });
        }
        true
    }

    /// Takes an operator's order, or says at once why not (or that it has begun).
    fn accept(&mut self, request: RequestId, order: OperatorOrder) -> Result<(), (bool, String)> {
        let context = self.context();
        let busy = match (
            self.lanes.outstanding(Lane::Postgres),
            &self.state.asked,
            self.state.reclone,
        ) {
            (_, Some((_, OperatorOrder::Restart)), _) => Some("restart".to_owned()),
            (_, _, Some(_)) | (_, Some((_, OperatorOrder::Reinitialize { .. })), _) => {
                Some("reinitialize".to_owned())
            }
            (Some(outstanding), _, _) => Some(rules::describe(&outstanding.order)),
            _ => None,
        };
        match order {
            OperatorOrder::Restart => {
                if let Some(busy) = busy {
                    return Err((false, format!("{busy} already in progress")));
                }
                if context.facts.server().is_none() {
                    return Err((false, "postgres is still starting".to_owned()));
                }
                self.state.asked = Some((request, order));
                self.state.leaving.get_or_insert(self.now);
                self.state.due.publish = self.now;
                Ok(())
            }
            OperatorOrder::Reinitialize { force, from_leader } => {
                if self.state.lease.held || context.leader_is_me() {
                    return Err((false, "I am the leader, can not reinitialize".to_owned()));
                }
                if context.facts.leader().is_none() {
                    return Err((false, "Cluster has no leader, can not reinitialize".to_owned()));
                }
                if let Some(busy) = busy.filter(|_| !force) {
                    return Err((false, format!("{busy} already in progress")));
                }
                self.state.asked = Some((request, OperatorOrder::Reinitialize { force, from_leader }));
                self.state.asked_at = self.now;
                self.state.due.read = self.now;
                self.state.due.probe = self.now;
                self.state.failure = None;
                Err((true, "reinitialize started".to_owned()))
            }
        }
    }

    /// Keeps the clocks that run between facts.
    fn track(&mut self) {
        let now = self.now;
        if self.state.lease.held && self.context().leader_is_other() {
            self.state.lost_lock();
        }
        let vanished = self.facts.view().is_some_and(|view| view.leader.is_none());
        if self.state.lease.held && vanished {
            // Revoked early, or deleted by a person. The right runs on; the lock must be taken again.
            self.state.lost_lock();
        }
        let unresponsive = self.facts.unresponsive();
        // The look that was not answered began a while ago.
        let asked = self.facts.postgres.as_ref().map(|seen| seen.at);
        self.state.unresponsive_since = self.state.unresponsive_since.or(asked).filter(|_| unresponsive);
        self.stand();
        let decided = match self.facts.process() {
            Some(Process::Running(server)) => server.is_primary(),
            Some(Process::Absent) => true,
            _ => false,
        };
        let settled = self.lanes.outstanding(Lane::Postgres).is_none() && self.context().settled();
        self.state.unsure &= !(decided && settled);
        self.state.tried &= unresponsive || !settled;
        let seen = self.facts.server().filter(|_| settled);
        if let Some(server) = seen {
            let shut = server.gated && server.is_primary();
            self.state.gated = shut.then(|| self.state.gated.unwrap_or(now));
        }
        if self.context().replica().is_some_and(|(_, streaming)| streaming) {
            self.state.rewound = None;
        }
        let leading = self.state.lease.held && self.context().primary().is_some();
        let checkpointed = match (self.facts.data(), self.facts.server()) {
            (Some(DataDir::Present(control)), Some(server)) => server.timeline <= control.timeline,
            _ => true,
        };
        if leading && !checkpointed && self.state.checkpoint == AfterPromotion::NotNeeded {
            // Promoted by an agent that is gone.
            self.state.checkpoint = AfterPromotion::Wanted;
        }
        if leading {
            self.state.reached = self.context().primary().map(Reached::by);
            self.state.reigned = true;
            self.state.down_since = None;
            self.state.giving_up = false;
            if self
                .state
                .last_start
                .as_ref()
                .is_none_or(|(at, _)| at.plus(SHORT_LIFE) <= now)
            {
                self.state.failed_starts = 0;
            }
        } else if self.state.reigned && self.facts.postgres.is_some() {
            self.state.down_since.get_or_insert(now);
        }
        self.observe_standbys();
        let started = matches!(
            &self.state.failure,
            Some(failure) if matches!(failure.order, Order::StartPrimary { .. } | Order::StartReplica { .. })
        );
        if started && self.context().settled() && self.facts.server().is_some() {
            self.state.failure = None;
        }
        let Some(view) = self.facts.view() else { return };
        // The key has moved on: what was to replace that revision has arrived or never will.
        let confirmed =
            matches!(&self.state.failsafe_sent, Some((seen, _)) if *seen < view.failsafe_revision);
        let known = matches!((view.initialize, self.state.created), (Some(Initialize::Done(id)), Some(created)) if id == created);
        for name in view.members.keys() {
            match self.state.known.get_mut(name) {
                Some(seen) => *seen = now,
                None => {
                    self.state.known.insert(name.clone(), now);
                }
            }
        }
        if confirmed {
            self.state.failsafe_sent = None;
        }
        if known {
            self.state.created = None;
        }
    }

    /// Follows what the primary says of its standbys; of a server that is none, or has been ordered to become one, nothing is known.
    fn observe_standbys(&mut self) {
        let quiet = self.lanes.outstanding(Lane::Postgres).is_none();
        let settled = self.context().settled();
        let primary = self.facts.server().filter(|server| quiet && server.is_primary());
        match (&self.facts.postgres, primary) {
            (Some(seen), Some(server)) if settled => self.state.sync.observe(server, seen.at),
            (_, Some(_)) => {}
            (_, None) => self.state.sync.forget(),
        }
    }

    fn decide(&mut self, actions: &mut Vec<Action>) -> Decision {
        let (plan, trail) = rules::decide(&self.context());
        self.decisions += 1;
        let decision = Decision {
            seq: self.decisions,
            at: self.now,
            rule: plan.rule,
            because: plan.because,
            blocked: trail.0,
            generation: self.state.lease.generation,
        };
        match plan.intent {
            Some(Intent::BeginHandover(handover)) => self.state.handover = Some(handover),
            Some(Intent::AbandonHandover) => {
                self.state.end_handover();
                // What comes next (a start in place) must not wait for a timer.
                self.state.due.keys = self.now;
            }
            Some(Intent::GiveUp) => self.state.giving_up = true,
            Some(Intent::Reclone(from_leader)) => {
                self.state.asked = None;
                self.state.reclone = Some(from_leader);
            }
            Some(Intent::ForgetAncestry) => self.state.ancestry = None,
            Some(Intent::Nudge(reign, stood)) => self.state.nudged = Some((reign, stood)),
            Some(Intent::Rebuild(reign)) => self.state.rebuilt = Some(reign),
            Some(Intent::Exit) => self.state.exiting = true,
            None => {}
        }
        for order in plan.orders {
            self.give(order, actions);
        }
        decision
    }

    /// When to be called again at the latest.
    fn wake(&self) -> Wake {
        let state = &self.state;
        let mut wake = Wake {
            at: self.now.plus(self.config.round()),
            why: "routine",
        };
        let mut consider = |at: MonoTime, why| {
            if self.now < at && at < wake.at {
                wake = Wake { at, why };
            }
        };
        consider(state.due.probe, "look at PostgreSQL");
        consider(state.due.read, "read etcd");
        consider(state.due.renew, "renew the lock");
        consider(state.due.publish, "publish the member key");
        consider(state.due.peers, "ask the peers");
        consider(state.due.failsafe, "failsafe round");
        consider(state.due.config, "the config key");
        consider(state.due.keys, "other keys");
        let margin = self.config.stop_margin();
        consider(state.lease.until.minus(margin), "the right ends soon");
        consider(state.lease.until.minus(margin * 2 / 3), "the right ends soon");
        consider(state.lease.renewed.plus(self.config.suspicion()), "no renewal");
        consider(self.facts.foreign.until, "the old right ends");
        consider(
            self.facts.foreign.heard.plus(self.config.suspicion()),
            "no renewal seen",
        );
        if let Writes::Taken { since } = state.writes {
            consider(since.plus(self.config.ttl / 2), "etcd has been back for a while");
        }
        consider(state.cooldown, "cooldown");
        let free = self.facts.leaderless.unwrap_or(MonoTime::ZERO);
        consider(free.plus(rules::SUCCESSION), "nobody has taken the lock");
        consider(
            state
                .promise
                .as_ref()
                .map_or(MonoTime::ZERO, |promise| promise.until),
            "promise ends",
        );
        consider(
            state
                .failure
                .as_ref()
                .map_or(MonoTime::ZERO, |failure| failure.retry),
            "try again",
        );
        consider(self.lanes.next_refresh().unwrap_or(MonoTime::ZERO), "try again");
        consider(state.last_stop.plus(rules::STOP_AGAIN), "stop again");
        if state.exiting
            || matches!(
                self.last,
                Some(Decision {
                    rule: Rule::Leave,
                    ..
                })
            )
        {
            consider(self.now.plus(Duration::from_millis(50)), "leave");
        }
        wake
    }
}

/// The first wait after a failed order to PostgreSQL; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A PostgreSQL that ends sooner than this after a start did not really come up.
const SHORT_LIFE: Duration = Duration::from_secs(10);
