//! A stopped PostgreSQL under another leader: does its history lead to the leader's?

use std::time::Duration;

use super::{Context, Intent, Plan, Trail, bootstrap};
use crate::action::Order;
use crate::decision::{Evidence, Guard, Rule};
use crate::state::Ancestry;
use crate::sync::Mode;
use crate::types::{Lsn, Timeline};
use crate::view::{ControlData, ControlState, DataDir};
use crate::zoo::{Flaw, lacks};

/// Between a rewind that ended well and the next.
const REWIND_AGAIN: Duration = Duration::from_secs(1);

/// Rewinds that end well for so long, and change nothing, are in vain. Up to version 15 pg_rewind goes by the timeline of the last
/// checkpoint alone, and so finds nothing to do on a node that was promoted and lost before its first.
const REWIND_IN_VAIN: Duration = Duration::from_secs(15);

/// Starts of a replica in a row that ended at once before its data directory is given up.
const STARTS_IN_VAIN: u32 = 3;

/// What the leader's history says about a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinship {
    /// All that it holds is in the leader's history.
    Ancestor,
    /// It holds WAL that the leader's history does not have.
    Diverged,
    /// It cannot be told without looking at its WAL: it was a primary and did not stop cleanly.
    Unclear,
}

/// Compares a timeline and a position with the leader's history.
///
/// `shut_down_primary`: the position is the *start* of a shutdown checkpoint, which must itself be in the leader's
/// history, so it must lie before the fork.
pub(super) fn kinship(
    leader: &Ancestry,
    timeline: Timeline,
    position: Lsn,
    shut_down_primary: bool,
) -> Kinship {
    let follows_by_number = lacks(Flaw::NumberForAncestry) && timeline < leader.timeline;
    if timeline == leader.timeline || follows_by_number || lacks(Flaw::ForkIgnored) {
        return Kinship::Ancestor;
    }
    match leader.fork_of(timeline) {
        Some(fork) if position < fork || position == fork && !shut_down_primary => Kinship::Ancestor,
        Some(_) | None => Kinship::Diverged,
    }
}

/// Brings a stopped data directory back under another leader.
///
/// One that was a replica on the leader's own timeline is just started. For any other the leader's history is asked for
/// and compared; what diverged is rewound if that is allowed and possible, else moved aside and cloned if that is
/// allowed, else a person is asked. pg_rewind itself keeps what needs no rewinding as it is, so it may look at an ex-primary
/// that did not stop cleanly.
pub(super) fn under_leader(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let DataDir::Present(control) = ctx.facts.data()? else {
        return None;
    };
    if !ctx.absent() || !ctx.leader_is_other() {
        return None;
    }
    let leader = ctx.facts.leader()?;
    let Some(upstream) = ctx.upstream(leader) else {
        // A leader without a member key cannot be followed by name; start, and follow it when it shows up.
        trail.block(Rule::CompareHistory, Guard::LeaderNotReady);
        return Some(if control.state.was_primary() {
            Plan::hold(Rule::CompareHistory)
        } else {
            Plan::order(Rule::StartReplica, Order::StartReplica { upstream: None })
        });
    };
    let start = Plan::order(
        Rule::StartReplica,
        Order::StartReplica {
            upstream: super::replica::source(ctx),
        },
    );
    if let Some(plan) = unstartable(ctx, trail) {
        return Some(plan);
    }
    let leader_timeline = ctx.leader_timeline();
    // Up to its first checkpoint the control file names the timeline before.
    let usurped = ctx.usurped();
    let same = leader_timeline == Some(control.timeline) && usurped.is_none();
    if same && !control.state.was_primary() {
        return Some(start);
    }
    let Some(ancestry) = ctx.ancestry() else {
        if !ctx.leader_is_primary() && !lacks(Flaw::EarlyHistory) {
            trail.block(Rule::CompareHistory, Guard::LeaderNotReady);
            // A replica loses nothing by starting; an ex-primary waits to be compared.
            return Some(if control.state.was_primary() {
                Plan::hold(Rule::CompareHistory)
            } else {
                start
            });
        }
        return Some(Plan::order(
            Rule::CompareHistory,
            Order::CompareHistory { leader: upstream },
        ));
    };
    if let Some(guard) = usurped {
        if control.state == ControlState::InArchiveRecovery {
            // It followed one that was promoted, and crashed. pg_rewind's own recovery would end it on the timeline of the last checkpoint and write
            // there, where the leader's goes on; a standby finds its way to the newer one, and is stopped cleanly.
            return Some(start);
        }
        trail.block(Rule::StartReplica, guard);
        return diverged(ctx, trail, control);
    }
    match judge(ancestry, control) {
        Kinship::Ancestor => Some(start),
        Kinship::Unclear if ctx.may_rewind(control) => rewind(ctx, trail),
        // Without pg_rewind the only way to find out is to start and see whether it can follow.
        Kinship::Unclear => Some(start),
        Kinship::Diverged => diverged(ctx, trail, control),
    }
}

/// Clones a replica anew that has nothing of its own and does not start, where that is allowed, once in a reign.
///
/// One that fetched the history file of a timeline which came to nothing, forked before its own end, is such: PostgreSQL finds that the
/// newest timeline it knows of is not a child of its own, and ends. What a new copy does not cure (its configuration, a missing library)
/// would fill the disk with copies, so it is not repeated.
fn unstartable(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let DataDir::Present(control) = ctx.facts.data()? else {
        return None;
    };
    let failure = ctx.state.failure.as_ref().filter(|failure| {
        matches!(failure.order, Order::StartReplica { .. }) && STARTS_IN_VAIN <= failure.count
    })?;
    let reign = ctx.facts.view()?.leader.as_ref()?.created;
    let allowed = ctx.config.reclone_on_rewind_failure || ctx.config.reclone_on_divergence;
    if control.state.was_primary() || !allowed || ctx.state.rebuilt == Some(reign) {
        return None;
    }
    trail.block(Rule::StartReplica, Guard::LastAttempt(failure.text.clone()));
    let plan = reclone(ctx, trail, false)?;
    if plan.orders.is_empty() {
        return Some(plan);
    }
    Some(plan.intent(Intent::Rebuild(reign)))
}

fn judge(leader: &Ancestry, control: &ControlData) -> Kinship {
    let clean = control.state == ControlState::ShutDown || lacks(Flaw::CrashCountsAsClean);
    if control.state.was_primary() && !clean && control.timeline != leader.timeline {
        return Kinship::Unclear;
    }
    kinship(leader, control.timeline, control.position, clean)
}

/// A stopped data directory that diverged.
pub(super) fn diverged(ctx: &Context<'_>, trail: &mut Trail, control: &ControlData) -> Option<Plan> {
    // pg_rewind takes two timelines of one number for the same, and leaves them as they are.
    let alike = ctx.leader_timeline() == Some(control.timeline);
    if ctx.may_rewind(control) && !alike {
        return rewind(ctx, trail);
    }
    let evidence = Guard::Diverged {
        timeline: control.timeline,
        position: control.position,
    };
    trail.block(Rule::StartReplica, evidence);
    if let Some(guard) = ctx.still_named() {
        trail.block(Rule::Reclone, guard);
        return Some(Plan::hold(Rule::Reclone));
    }
    let by_failure = ctx.config.use_pg_rewind && ctx.config.reclone_on_rewind_failure;
    if ctx.config.reclone_on_divergence || alike && by_failure {
        return reclone(ctx, trail, false);
    }
    trail.block(Rule::Rewind, Guard::MayNotRewind);
    Some(Plan::hold(Rule::NeedHelp))
}

fn rewind(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    if let Some(guard) = ctx.outdated().or_else(|| ctx.still_named()) {
        trail.block(Rule::Rewind, guard);
        return Some(Plan::hold(Rule::Rewind));
    }
    let leader = ctx.facts.leader()?;
    let failed = ctx
        .state
        .failure
        .as_ref()
        .filter(|failure| matches!(failure.order, Order::Rewind { .. }));
    if let Some(failure) = failed {
        trail.block(Rule::Rewind, Guard::LastAttempt(failure.text.clone()));
        if ctx.config.reclone_on_rewind_failure && 2 <= failure.count {
            return reclone(ctx, trail, false);
        }
    }
    if ctx
        .facts
        .member(leader)
        .is_some_and(|member| member.checkpoint_after_promote == Some(false))
        && !lacks(Flaw::RewindBeforeCheckpoint)
    {
        trail.block(Rule::Rewind, Guard::LeaderCheckpoint);
        return Some(Plan::hold(Rule::Rewind));
    }
    if let Some(rewound) = ctx.state.rewound {
        // It ended well and something is to be rewound all the same: pg_rewind saw the leader's old timeline, and a checkpoint is on its
        // way there that this node has not heard of; or it is in vain.
        if REWIND_IN_VAIN <= rewound.last.since(rewound.first) {
            let text =
                "pg_rewind finds nothing to do, and the leader's history has not all that is here".to_owned();
            trail.block(Rule::Rewind, Guard::LastAttempt(text));
            let allowed = ctx.config.reclone_on_rewind_failure || ctx.config.reclone_on_divergence;
            return if allowed {
                reclone(ctx, trail, false)
            } else {
                Some(Plan::hold(Rule::NeedHelp))
            };
        }
        let again = rewound.last.plus(REWIND_AGAIN);
        if ctx.now < again {
            let left = again.since(ctx.now);
            trail.block(Rule::Rewind, Guard::Cooldown { left });
            return Some(Plan::hold(Rule::Rewind));
        }
    }
    let upstream = ctx.upstream(leader)?;
    Some(Plan::order(Rule::Rewind, Order::Rewind { leader: upstream }).intent(Intent::ForgetAncestry))
}

/// Moves the data directory aside and clones it anew.
pub(super) fn reclone(ctx: &Context<'_>, trail: &mut Trail, from_leader: bool) -> Option<Plan> {
    if !ctx.leader_is_other() && !lacks(Flaw::LeaderRecloned) {
        return None;
    }
    if let Some(guard) = ctx.outdated() {
        trail.block(Rule::Reclone, guard);
        return Some(Plan::hold(Rule::Reclone));
    }
    let source = bootstrap::source(ctx, from_leader)?;
    let from = ctx.upstream(&source)?;
    if !ctx.absent() {
        return None;
    }
    Some(Plan::order(Rule::Reclone, Order::BaseBackup { from }).because(Evidence::Candidate(source)))
}

impl<'a> Context<'a> {
    /// The timeline the leader is on, as it says in the DCS or has told this node.
    pub(super) fn leader_timeline(&self) -> Option<Timeline> {
        let told = self.ancestry().map(|ancestry| ancestry.timeline);
        self.said_timeline().max(told)
    }

    /// The timeline the leader is on, as it says in the DCS.
    fn said_timeline(&self) -> Option<Timeline> {
        let leader = self.facts.leader()?;
        let member = self.facts.member(leader).and_then(|member| member.timeline);
        let status = self
            .facts
            .view()?
            .status
            .as_ref()
            .and_then(|status| status.timeline);
        member.max(status)
    }

    /// The leader's timelines, as this reign's leader told them.
    pub(super) fn ancestry(&self) -> Option<&'a Ancestry> {
        let leader = self.facts.view()?.leader.as_ref()?;
        let known = self.state.ancestry.as_ref()?;
        // Told before its promotion, it does not say where the timeline before forked off.
        let present = self
            .said_timeline()
            .is_none_or(|timeline| timeline <= known.timeline);
        let told = present || lacks(Flaw::EarlyHistory);
        (known.leader == leader.name && known.created == leader.created && told).then_some(known)
    }

    /// What is known of the leader may be of a reign that is over: nothing that a node holds is given up for it.
    ///
    /// A primary's timeline is above all that others had when it was promoted, so one below this node's own is not the present one's, unless this
    /// node's is none of the cluster's.
    pub(super) fn outdated(&self) -> Option<Guard> {
        if lacks(Flaw::DoomedByHearsay) {
            return None;
        }
        if let Some(guard) = self.stale_view() {
            return Some(guard);
        }
        let held = self.facts.control().map(|control| control.timeline);
        let own = held.max(self.state.stood.map(|stood| stood.timeline))?;
        let leader = self.leader_timeline().filter(|leader| *leader < own)?;
        let usurped = self.usurped().is_some();
        (!usurped).then_some(Guard::LeaderOlder { own, leader })
    }

    /// The `sync` key names this node and is not the present leader's, who has just come to lead or did so by a person's word: if that one were lost
    /// before it has made the key its own, what is here would be needed to elect anybody.
    pub(super) fn still_named(&self) -> Option<Guard> {
        let (key, leader) = (self.facts.sync_key()?, self.facts.leader()?);
        let still =
            key.leader != *leader && key.names(self.me()) && self.config.synchronous.mode != Mode::Off;
        still.then(|| Guard::StillNamed(leader.clone()))
    }

    /// The leader says that its PostgreSQL runs as primary.
    pub(super) fn leader_is_primary(&self) -> bool {
        self.facts
            .leader()
            .and_then(|leader| self.facts.member(leader))
            .is_some_and(|member| member.running() && (member.role == "primary" || member.role == "master"))
    }

    fn may_rewind(&self, control: &ControlData) -> bool {
        self.config.use_pg_rewind && control.rewindable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeName, Revision};
    use crate::view::HistoryLine;

    fn leader() -> Ancestry {
        let line = |timeline, switch| HistoryLine {
            timeline: Timeline(timeline),
            switch: Lsn(switch),
            reason: String::new(),
            at: None,
            leader: None,
        };
        Ancestry {
            leader: NodeName::from("n2"),
            created: Revision(9),
            timeline: Timeline(3),
            history: vec![line(1, 100), line(2, 200)],
        }
    }

    #[test]
    fn a_replica_at_the_fork_has_nothing_of_its_own() {
        assert_eq!(
            kinship(&leader(), Timeline(2), Lsn(200), false),
            Kinship::Ancestor
        );
        assert_eq!(
            kinship(&leader(), Timeline(2), Lsn(201), false),
            Kinship::Diverged
        );
    }

    #[test]
    fn a_shutdown_checkpoint_at_the_fork_is_not_in_the_leaders_history() {
        assert_eq!(kinship(&leader(), Timeline(2), Lsn(199), true), Kinship::Ancestor);
        assert_eq!(kinship(&leader(), Timeline(2), Lsn(200), true), Kinship::Diverged);
    }

    #[test]
    fn a_timeline_the_leader_never_was_on_has_diverged() {
        assert_eq!(kinship(&leader(), Timeline(4), Lsn(1), false), Kinship::Diverged);
    }
}
