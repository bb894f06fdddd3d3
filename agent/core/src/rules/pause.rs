//! Maintenance: the cluster is paused.

use super::{Context, Plan, Trail, primary, race, replica};
use crate::action::Lane;
use crate::decision::Rule;
use crate::view::DataDir;

/// Holds still in a pause.
///
/// What remains: a running primary keeps (or takes) the lock; a holder whose PostgreSQL is not primary gives it back,
/// unless a person chose it as candidate; a person's switchover, restart and reinit are obeyed (by other rules).
/// Nothing is started, stopped, promoted or demoted.
pub(super) fn paused(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    if !ctx.config.pause {
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
