//! Maintenance: the cluster is paused.

use super::{Context, Plan, Trail, primary, race, replica};
use crate::action::Lane;
use crate::decision::{Guard, Rule};
use crate::types::MonoTime;
use crate::view::DataDir;
use crate::zoo::{Flaw, lacks};

/// Holds still in a pause.
///
/// What remains: a running primary keeps (or takes) the lock; a holder whose PostgreSQL is not primary gives it back,
/// unless a person chose it as candidate; a person's switchover, restart and reinit are obeyed (by other rules).
/// Nothing is started, stopped, promoted or demoted. The guard's deadline is lifted once `status` says so (see [`Context::exempt`]).
pub(super) fn paused(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    if !ctx.config.pause || ctx.replica().is_some() && lacks(Flaw::PauseUnheeded) {
        return None;
    }
    if let Some(plan) = chosen(ctx, trail) {
        return Some(plan);
    }
    if ctx.primary().is_some() {
        return primary::lead(ctx, trail)
            .or_else(|| primary::take_free_lock(ctx, trail))
            .map(|plan| Plan {
                rule: Rule::Paused,
                ..plan
            })
            .or_else(|| Some(Plan::hold(Rule::Paused)));
    }
    let stopped = ctx.absent() || ctx.replica().is_some();
    if ctx.state.lease.held && stopped && ctx.lanes.idle(Lane::Lock) {
        return Some(Plan::order(Rule::Paused, ctx.release()));
    }
    if ctx.absent() && matches!(ctx.facts.data(), Some(DataDir::Empty)) && ctx.leader_is_other() {
        // A new, empty member may join: nothing that exists is touched.
        return None;
    }
    Some(Plan::hold(Rule::Paused))
}

/// A person named this node in the `failover` key, and nobody leads.
fn chosen(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let key = ctx.facts.view()?.failover.as_ref()?;
    if key.candidate.as_ref() != Some(ctx.me()) || ctx.leader_is_other() {
        return None;
    }
    replica::promote(ctx, trail).or_else(|| race::take_lock(ctx, trail))
}

/// A primary without a deadline.
///
/// A pause lifts the guard's deadline, and a primary that cannot hear of its end runs on: no right that runs out would ever stop it.
/// So it says so in `status` first, and nobody takes the lock after it until it has taken that back: it is under a deadline
/// again, or it is certainly no primary any more. Only a person can overrule that, by a manual failover that names another. Once that
/// is confirmed no earlier renewal can unsay it: each is void when `status` has moved.
impl Context<'_> {
    /// This node's primary may run without a deadline: the cluster is paused, and everybody can know.
    pub(crate) fn exempt(&self) -> bool {
        self.state.exempt(self.config)
    }

    /// `status` says that this node's primary runs without a deadline.
    pub(crate) fn known_unfenced(&self) -> bool {
        let status = self.facts.view().and_then(|view| view.status.as_ref());
        self.state.unfenced || status.is_some_and(|status| status.unfenced.as_ref() == Some(self.me()))
    }

    /// What to say of this node's primary in `status`: before the deadline is lifted, and until it is certainly back.
    pub(crate) fn says_unfenced(&self) -> bool {
        let unknown = self.facts.postgres.is_none() || !self.settled();
        let armed = matches!(self.state.deadline, Some(Some(deadline)) if deadline != MonoTime::NEVER);
        let fenced = armed && !self.becoming_writable();
        match (self.config.pause, self.may_write()) {
            (true, true) => true,
            (false, true) => self.known_unfenced() && !fenced,
            (_, false) => self.known_unfenced() && unknown,
        }
    }

    /// Another member's primary may run without a deadline, and no person has overruled that.
    pub(crate) fn unfenced_other(&self) -> Option<Guard> {
        let name = self.facts.view()?.status.as_ref()?.unfenced.as_ref()?;
        let blocked = name != self.me() && !race::forced(self) && !lacks(Flaw::UnfencedUnheeded);
        blocked.then(|| Guard::Unfenced(name.clone()))
    }
}
