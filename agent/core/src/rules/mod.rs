//! The rules: an ordered list; the first that fires decides.
//!
//! A rule looks at the [`Context`] and either gives a [`Plan`], or `None` for "not my business", noting in the trail what
//! stopped it if it wanted to fire. One file a topic; each rule's doc comment is its specification.

mod bootstrap;
mod fence;
mod handover;
mod identity;
mod lapse;
mod operator;
mod pause;
mod primary;
mod race;
mod rejoin;
mod replica;
mod shutdown;
mod starting;
mod stopped;
mod usurper;

pub(crate) use handover::{candidate, looked_since_wish, wanted};
pub(crate) use race::{HEARSAY, awaited, could_take_lock};
pub(crate) use stopped::SUCCESSION;

use std::time::Duration;

use crate::action::{Lane, Order, StatusRecord, Upstream};
use crate::config::Config;
use crate::decision::{Evidence, Guard, Rule};
use crate::facts::Facts;
use crate::lanes::{Lanes, Outstanding};
use crate::slots::slot_name;
use crate::state::{Handover, Reached, State};
use crate::sync::{self, Mode, SyncKey};
use crate::types::{Lsn, MonoTime, NodeName, Revision, SystemId};
use crate::view::{ClusterView, Initialize, Process, Server, ServerRole};
use crate::zoo::{Flaw, lacks};

/// What rules look at.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) facts: &'a Facts,
    pub(crate) state: &'a State,
    pub(crate) lanes: &'a Lanes,
    pub(crate) now: MonoTime,
}

/// What a rule decided.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rule: Rule,
    pub(crate) because: Vec<Evidence>,
    pub(crate) orders: Vec<Order>,
    pub(crate) intent: Option<Intent>,
}

/// A change of the node's own memory that a decision brings.
#[derive(Debug)]
pub(crate) enum Intent {
    BeginHandover(Handover),
    AbandonHandover,
    GiveUp,
    Reclone(bool),
    ForgetAncestry,
    Nudge(Revision, Lsn),
    Rebuild(Revision),
    Exit,
}

impl Plan {
    pub(crate) fn hold(rule: Rule) -> Self {
        Self {
            rule,
            because: Vec::new(),
            orders: Vec::new(),
            intent: None,
        }
    }

    pub(crate) fn order(rule: Rule, order: Order) -> Self {
        Self {
            orders: vec![order],
            ..Self::hold(rule)
        }
    }

    pub(crate) fn because(mut self, evidence: impl Into<Option<Evidence>>) -> Self {
        self.because.extend(evidence.into());
        self
    }

    pub(crate) fn intent(mut self, intent: Intent) -> Self {
        self.intent = Some(intent);
        self
    }
}

/// What stopped the rules that wanted to fire.
#[derive(Debug, Default)]
pub(crate) struct Trail(pub(crate) Vec<(Rule, Guard)>);

impl Trail {
    pub(crate) fn block(&mut self, rule: Rule, guard: Guard) {
        self.0.push((rule, guard));
    }
}

type RuleFn = fn(&Context<'_>, &mut Trail) -> Option<Plan>;

/// In the order in which they are tried. Safety first: fences look even at a node that is busy or leaving.
const RULES: &[RuleFn] = &[
    shutdown::exiting,
    fence::right_is_ending,
    fence::lock_is_anothers,
    shutdown::leave,
    identity::foreign_cluster,
    settle,
    fence::unfinished_promotion,
    handover::progress,
    operator::obey,
    handover::begin,
    pause::paused,
    bootstrap::data,
    starting::starting,
    starting::unresponsive,
    stopped::lock_held,
    rejoin::under_leader,
    stopped::no_leader,
    primary::lead,
    primary::without_lock,
    replica::promote,
    lapse::end_reign,
    replica::follow,
    race::take_lock,
];

/// Asks the rules in their order.
pub(crate) fn decide(ctx: &Context<'_>) -> (Plan, Trail) {
    let mut trail = Trail::default();
    let plan = RULES
        .iter()
        .find_map(|rule| rule(ctx, &mut trail))
        .unwrap_or_else(|| Plan::hold(Rule::AwaitProbe));
    let plan = pace(ctx, plan, &mut trail);
    let plan = if disarming(ctx, &plan) {
        Plan::hold(Rule::Busy)
    } else {
        plan
    };
    (plan, trail)
}

/// The plan would make PostgreSQL writable while the guard is still being told to lift its deadline: the two could reach it
/// in the wrong order.
fn disarming(ctx: &Context<'_>, plan: &Plan) -> bool {
    let lifting = matches!(
        ctx.lanes
            .outstanding(Lane::Guard)
            .map(|outstanding| &outstanding.order),
        Some(Order::SetDeadline(None))
    );
    lifting && plan.orders.iter().any(makes_writable) && !lacks(Flaw::DisarmingRace)
}

/// The order makes PostgreSQL accept writes, or keeps it doing so, under a deadline.
fn makes_writable(order: &Order) -> bool {
    matches!(
        order,
        Order::Promote { .. }
            | Order::StartPrimary { .. }
            | Order::Bootstrap { .. }
            | Order::Restart {
                guard_until: Some(_),
                ..
            }
            | Order::AdoptPostmaster { guard_until: Some(_) }
    )
}

/// Between two orders to stop, so that one that fails at once is not repeated without end.
pub(crate) const STOP_AGAIN: Duration = Duration::from_millis(200);

/// After so many failures in a row, of whatever orders, PostgreSQL is left alone until the wait is over.
const FAILURES_OF_ANY_KIND: u32 = 3;

/// Holds back an order to PostgreSQL that has just failed, or a stop that has just been ordered. A first failure of one
/// order does not hold back another: a leader that cannot be asked for its history is no reason not to start.
fn pace(ctx: &Context<'_>, plan: Plan, trail: &mut Trail) -> Plan {
    let Some(order) = plan.orders.iter().find(|order| order.lane() == Lane::Postgres) else {
        return plan;
    };
    if matches!(order, Order::Stop { .. }) {
        let wait = ctx.now < ctx.state.last_stop.plus(STOP_AGAIN) && !lacks(Flaw::StopUnpaced);
        return if wait { Plan::hold(plan.rule) } else { plan };
    }
    let Some(failure) = ctx
        .state
        .failure
        .as_ref()
        .filter(|failure| ctx.now < failure.retry)
    else {
        return plan;
    };
    let same = std::mem::discriminant(&failure.order) == std::mem::discriminant(order);
    if !same && failure.count < FAILURES_OF_ANY_KIND {
        return plan;
    }
    trail.block(plan.rule, Guard::LastAttempt(failure.text.clone()));
    trail.block(
        plan.rule,
        Guard::Cooldown {
            left: failure.retry.since(ctx.now),
        },
    );
    Plan::hold(Rule::Busy).because(Evidence::Said(describe(&failure.order)))
}

/// Nothing is decided about PostgreSQL before the DCS has been seen, while an order to PostgreSQL is under way, or before
/// PostgreSQL has been looked at since the last order ended.
fn settle(ctx: &Context<'_>, _: &mut Trail) -> Option<Plan> {
    if ctx.facts.cluster.is_none() {
        return Some(Plan::hold(Rule::AwaitView));
    }
    if let Some(outstanding) = ctx.lanes.outstanding(Lane::Postgres) {
        return Some(Plan::hold(Rule::Busy).because(Evidence::Said(describe(&outstanding.order))));
    }
    if !ctx.settled() {
        return Some(Plan::hold(Rule::AwaitProbe));
    }
    None
}

/// An order, in words.
pub(crate) fn describe(order: &Order) -> String {
    match order {
        Order::Bootstrap { .. } => "creating the cluster".to_owned(),
        Order::BaseBackup { from } => format!("cloning from {}", from.name),
        Order::StartReplica { .. } => "starting as a replica".to_owned(),
        Order::StartPrimary { .. } => "starting as primary".to_owned(),
        Order::Stop { .. } => "stopping".to_owned(),
        Order::Promote { .. } => "promoting".to_owned(),
        Order::Follow {
            upstream: Some(upstream),
        } => format!("following {}", upstream.name),
        Order::Follow { upstream: None } => "following nobody".to_owned(),
        Order::CompareHistory { leader } => format!("asking {} for its timelines", leader.name),
        Order::Rewind { leader } => format!("rewinding onto {}", leader.name),
        Order::Restart { .. } => "restarting".to_owned(),
        Order::AdoptPostmaster { .. } => "putting PostgreSQL under the guard".to_owned(),
        other => format!("{:?}", other.lane()).to_lowercase(),
    }
}

impl<'a> Context<'a> {
    pub(crate) fn me(&self) -> &'a NodeName {
        &self.config.name
    }

    /// PostgreSQL has been looked at since the last order to it ended.
    pub(crate) fn settled(&self) -> bool {
        self.facts
            .postgres
            .as_ref()
            .is_some_and(|seen| self.state.settled <= seen.at)
    }

    pub(crate) fn valid(&self) -> bool {
        self.state.lease.valid(self.now)
    }

    pub(crate) fn leader_is_me(&self) -> bool {
        self.facts.leader() == Some(self.me())
    }

    pub(crate) fn leader_is_other(&self) -> bool {
        self.facts.leader().is_some_and(|leader| leader != self.me())
    }

    pub(crate) fn leaderless_for(&self) -> Duration {
        self.facts
            .leaderless
            .map_or(Duration::ZERO, |since| self.now.since(since))
    }

    pub(crate) fn absent(&self) -> bool {
        matches!(self.facts.process(), Some(Process::Absent))
    }

    /// PostgreSQL has ended, or, in a hand-over, has written its shutdown checkpoint and is about to: no backend is left
    /// that could write, and nothing starts it but an order.
    pub(crate) fn at_rest(&self) -> bool {
        let closed = self
            .state
            .handover
            .as_ref()
            .is_some_and(|handover| handover.stopped.is_some());
        let ending = matches!(
            self.facts.process(),
            Some(Process::Starting { .. } | Process::Unresponsive { may_write: false })
        );
        self.absent() || closed && ending
    }

    pub(crate) fn replica(&self) -> Option<(&'a Server, bool)> {
        let server = self.facts.server()?;
        match server.role {
            ServerRole::Replica { streaming, .. } => Some((server, streaming)),
            ServerRole::Primary { .. } => None,
        }
    }

    pub(crate) fn primary(&self) -> Option<&'a Server> {
        self.facts.server().filter(|server| server.is_primary())
    }

    /// The order under way would make PostgreSQL writable.
    pub(crate) fn becoming_writable(&self) -> bool {
        matches!(
            self.lanes.outstanding(Lane::Postgres),
            Some(Outstanding {
                order: Order::Promote { .. }
                    | Order::StartPrimary { .. }
                    | Order::Bootstrap { .. }
                    | Order::Restart {
                        guard_until: Some(_),
                        ..
                    },
                ..
            })
        )
    }

    /// PostgreSQL accepts writes, or may begin to without a further order.
    pub(crate) fn may_write(&self) -> bool {
        let doubtful = self.state.tried && self.facts.unresponsive();
        self.facts.may_write() || self.becoming_writable() || self.state.unsure || doubtful
    }

    /// Until when an order that makes PostgreSQL writable may be executed.
    pub(crate) fn valid_until(&self) -> MonoTime {
        self.state.lease.until.minus(self.config.stop_margin())
    }

    /// The guard's deadline that belongs to the present right.
    pub(crate) fn guard_until(&self) -> MonoTime {
        if self.exempt() {
            MonoTime::NEVER
        } else {
            let late = if lacks(Flaw::GuardTooLate) {
                Duration::from_secs(2)
            } else {
                Duration::ZERO
            };
            self.state
                .lease
                .until
                .plus(late)
                .minus(self.config.guard_margin())
        }
    }

    /// How to reach a member's PostgreSQL from here.
    pub(crate) fn upstream(&self, name: &NodeName) -> Option<Upstream> {
        let member = self.facts.member(name)?;
        if member.conn_url.is_empty() {
            return None;
        }
        Some(Upstream {
            name: name.clone(),
            conn_url: member.conn_url.clone(),
            slot: self
                .config
                .use_slots
                .then(|| slot_name(self.me().as_str()).into_owned()),
        })
    }

    /// The leader has commits wait for this replica, which is about to stop and has told it so: it is given two rounds to choose another.
    pub(crate) fn awaited(&self, trail: &mut Trail, rule: Rule) -> bool {
        let key = self.facts.sync_key();
        let named = key.is_some_and(|key| key.voters.contains(self.me()));
        let Some(since) = self.state.leaving.filter(|_| named && self.leader_is_other()) else {
            return false;
        };
        let until = since.plus(self.config.loop_wait * 2);
        let waits = self.now < until && self.replica().is_some_and(|(_, streaming)| streaming);
        if waits {
            trail.block(rule, Guard::CommitsWait);
        }
        waits
    }

    /// In a synchronous mode the `sync` key comes before anything becomes writable, and the failsafe list before that: once the one names this
    /// node alone and the other does not, nobody could lead if it were lost.
    pub(crate) fn named_first(&self, trail: &mut Trail, rule: Rule) -> Option<Plan> {
        let write = sync::duty::before_writable(self)?;
        if !self.listed(self.me()) {
            trail.block(rule, Guard::NotInFailsafe);
            return Some(Plan::hold(rule));
        }
        trail.block(rule, Guard::SyncKeyNotWritten);
        Some(write.map_or_else(|| Plan::hold(rule), |write| Plan::order(rule, write)))
    }

    /// The right of the last leader may still run.
    pub(crate) fn old_right(&self) -> Option<Guard> {
        let left = self.facts.foreign.until.since(self.now);
        let runs = self.facts.foreign.may_run(self.now);
        runs.then_some(Guard::OldRight { left })
    }

    /// Somebody else's right that may still run: the last leader's, one this node has granted, or that of a primary without a
    /// deadline. The lock can have come late, by an order of long ago, so this is looked at again before anything becomes writable.
    pub(crate) fn others_right(&self) -> Option<Guard> {
        if lacks(Flaw::OldRightAtPromotionIgnored) {
            return None;
        }
        if let Some(guard) = self.unfenced_other() {
            return Some(guard);
        }
        if let Some(guard) = self.old_right() {
            return Some(guard);
        }
        self.promised()
    }

    /// A failsafe grant of this node's own binds it.
    pub(crate) fn promised(&self) -> Option<Guard> {
        let promise = self.state.promise.as_ref()?;
        let left = promise.until.since(self.now);
        (self.now < promise.until).then_some(Guard::FailsafePromise { left })
    }

    /// When the rights that this node knows of are over: from then on no other primary acknowledges anything.
    pub(crate) fn rights_end(&self) -> MonoTime {
        let granted = self.state.promise.as_ref().map(|promise| promise.until);
        self.facts
            .foreign
            .until
            .max(granted.unwrap_or_default())
            .max(self.facts.leaderless.unwrap_or_default())
    }

    /// `initialize` names the cluster in this node's data directory: then nobody can create another beside it, and what is written
    /// to it is not lost to one. Nothing becomes writable before.
    pub(crate) fn announced(&self, own: SystemId) -> Option<Guard> {
        let initialize = self.facts.view().and_then(|view| view.initialize);
        (initialize != Some(Initialize::Done(own))).then_some(Guard::Unannounced)
    }

    /// Nobody has led for two lifetimes of the lock. Whoever makes a new cluster holds the lock while it works, so it is gone; and of who is
    /// within the lag limit any may lead.
    pub(crate) fn long_leaderless(&self) -> bool {
        self.config.ttl * 2 < self.leaderless_for()
    }

    /// Some leader of this cluster has had a primary: only one writes its timeline to `status`.
    pub(crate) fn has_lived(&self) -> bool {
        self.facts
            .view()
            .and_then(|view| view.status.as_ref())
            .is_some_and(|status| status.timeline.is_some())
    }

    /// Another member that could take over: it runs, may be elected, and is no primary.
    pub(crate) fn somebody_could_lead(&self) -> bool {
        self.facts
            .others(self.me())
            .any(|(name, member)| member.running() && !member.nofailover && self.electable(name))
    }

    /// Who is not named in the `sync` key cannot take the lock; in quorum mode votes decide, if there are voters. The key counts as long as it
    /// stands, whatever the mode is by now, for who wrote it may not have heard of that.
    pub(crate) fn electable(&self, name: &NodeName) -> bool {
        let quorum = self.config.synchronous.mode == Mode::Quorum;
        let by_votes = |key: &SyncKey| quorum && !key.voters.is_empty();
        let key = self.facts.sync_key();
        key.is_none_or(|key| key.names(name) || by_votes(key))
    }

    /// The leader would ask this member before it stays primary without etcd; nobody else takes the lock.
    ///
    /// The mode being off changes nothing as long as the list stands: a leader without etcd has not heard of that. One that has empties the list;
    /// Patroni's does not, so its list counts in the mode only.
    pub(crate) fn listed(&self, name: &NodeName) -> bool {
        let Some(view) = self.facts.view() else {
            return true;
        };
        let emptied = view.status.as_ref().is_some_and(|status| status.ttl.is_some());
        let heeded = self.config.failsafe_mode || emptied && !lacks(Flaw::FailsafeOffAtOnce);
        let list = view.failsafe.as_ref().filter(|list| heeded && !list.is_empty());
        list.is_none_or(|list| list.contains_key(name))
    }

    /// Those whom this primary's `sync` key names run, and are enough to elect one of them: it has every commit that clients were told of.
    pub(crate) fn successor_has_all(&self) -> bool {
        let key = self.facts.sync_key().filter(|key| key.leader == *self.me());
        key.is_some_and(|key| {
            let fit = key.voters.iter().filter(|name| self.fit(name)).count();
            key.votes() <= fit
        })
    }

    /// Another member that runs and could be asked to lead, or the named one.
    pub(crate) fn fit(&self, name: &NodeName) -> bool {
        self.facts
            .member(name)
            .is_some_and(|member| member.running() && !member.nofailover)
    }

    /// The ttl to tell others with an order about the lock.
    ///
    /// Whoever hears of a shorter one waits no longer than that, so it is told once the guard would end the server within it, and nothing
    /// that rests on the longer one is under way.
    fn ttl_to_tell(&self) -> Duration {
        let claimed = self.facts.view().and_then(ClusterView::claimed_ttl);
        let told = self.state.lease.ttl.max(claimed.unwrap_or_default());
        let end = self.now.plus(Config::right(self.config.ttl));
        let within = match self.state.deadline {
            Some(Some(deadline)) => deadline <= end,
            Some(None) => true,
            None => self.settled() && !self.may_write(),
        };
        let soon = within && self.lanes.idle(Lane::Guard) && !self.becoming_writable();
        if soon || lacks(Flaw::LongRightKept) {
            self.config.ttl
        } else {
            told.max(self.config.ttl)
        }
    }

    /// What to write to `status`.
    ///
    /// Who takes the lock on a timeline whose reign published nothing publishes what it has of it: it reserves the next one, and if that
    /// comes to nothing, this timeline is not the one that was reserved last any more. One that was made by hand, and whatever is that of a
    /// primary that took the lock by a person's word, is published once the `sync` key names nobody else: until then, those whom it names may
    /// have to lead, with what they have of the timeline before.
    pub(crate) fn status(&self, vacated: bool) -> StatusRecord {
        let old = self.facts.view().and_then(|view| view.status.as_ref());
        let server = self.primary();
        let said = || {
            let said = old.map(|status| Reached {
                timeline: status.timeline,
                position: status.optime,
                forks: status.forks.clone(),
            });
            // A renewal does not take the cluster back to where an older view has it.
            let newer = |told: &&Reached| said.as_ref().is_none_or(|said| said.timeline < told.timeline);
            self.state.told.as_ref().filter(newer).cloned().or(said)
        };
        let in_others_name = self.facts.sync_key().is_some_and(|key| key.leader != *self.me());
        let by_hand = self.usurped().is_some() && !in_others_name;
        let inherited = self.replica().map(|(replica, _)| replica);
        let inherited = inherited.filter(|replica| race::unpublished(self, replica) || by_hand);
        let own = server.map(Reached::by).or_else(|| self.state.reached.clone());
        let binding = self.config.synchronous.mode != Mode::Off;
        let reached = own
            .filter(|_| !(binding && in_others_name))
            .or_else(|| inherited.map(Reached::by))
            .or_else(said)
            .unwrap_or_default();
        let forks = match self.facts.view() {
            Some(view) => view.to_publish(reached.forks),
            None => reached.forks,
        };
        let mut record = StatusRecord {
            optime: reached.position,
            slots: server.map(|server| server.slots.clone()).unwrap_or_default(),
            retain_slots: old.map(|status| status.retain_slots.clone()).unwrap_or_default(),
            ttl: self.ttl_to_tell(),
            timeline: reached.timeline,
            forks,
            next: self.state.proposed.max(old.and_then(|status| status.next)),
            vacated,
            unfenced: self.says_unfenced(),
        };
        if let Some(Handover {
            stopped: Some((Some(checkpoint), _)),
            ..
        }) = &self.state.handover
        {
            record.optime = record.optime.max(*checkpoint);
        }
        record
    }

    /// The order to give the lock back. PostgreSQL must be known to have stopped, or never to have been writable.
    pub(crate) fn release(&self) -> Order {
        Order::Release {
            seen: self.status_seen(),
            status: self.status(true),
        }
    }

    /// Gives the lock back, as soon as nothing else is under way about it.
    pub(crate) fn give_back(&self) -> Plan {
        if self.lanes.idle(Lane::Lock) {
            Plan::order(Rule::GiveUp, self.release())
        } else {
            Plan::hold(Rule::GiveUp)
        }
    }

    /// etcd was last read longer ago than the lock lives.
    pub(crate) fn stale_view(&self) -> Option<Guard> {
        let age = self.facts.read.map_or(Duration::MAX, |read| self.now.since(read));
        (self.config.ttl < age).then_some(Guard::ViewStale { age })
    }

    /// The order to renew the lock, saying this.
    pub(crate) fn renew(&self, status: StatusRecord) -> Order {
        Order::Renew {
            ttl: status.ttl,
            seen: self.status_seen(),
            status,
        }
    }

    /// The revision of `status` as this node last wrote or saw it.
    fn status_seen(&self) -> Revision {
        let seen = self.facts.view().map(|view| view.status_revision);
        seen.unwrap_or_default().max(self.state.lease.confirmed)
    }
}
