//! What people ask of this node's PostgreSQL through REST.

use super::{Context, Intent, Plan, Trail};
use crate::action::{Order, StopMode};
use crate::decision::{Guard, Rule};
use crate::input::OperatorOrder;
use crate::view::{Process, Server};
use crate::zoo::{Flaw, lacks};

/// Carries out a restart or a reinitialization.
///
/// Whether it may be done at all was answered when it was asked (see `Node`); here the world may have moved on, so a
/// restart of a primary still needs its right.
pub(super) fn obey(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    if (ctx.leader_is_other() || lacks(Flaw::LeaderRecloned))
        && let Some(from_leader) = ctx.state.reclone
    {
        return super::rejoin::reclone(ctx, trail, from_leader);
    }
    let (_, order) = ctx.state.asked.as_ref()?;
    match order {
        OperatorOrder::Restart => {
            let server = ctx.facts.server()?;
            let leading = server.is_primary();
            let may_lead = ctx.state.lease.held && ctx.valid();
            if leading && !may_lead && !ctx.config.pause {
                return None;
            }
            if ctx.awaited(trail, Rule::ObeyOperator) {
                return Some(Plan::hold(Rule::ObeyOperator));
            }
            if leading && let Some(plan) = ctx.named_first(trail, Rule::ObeyOperator) {
                return Some(plan);
            }
            let guard_until = leading.then(|| ctx.guard_until());
            let gated = leading && ctx.config.synchronous.shut_by().is_some();
            let order = Order::Restart { guard_until, gated };
            Some(Plan::order(Rule::ObeyOperator, order))
        }
        OperatorOrder::Reinitialize { from_leader, .. } => {
            if let Some(guard) = ctx.outdated().or_else(|| unheard(ctx)) {
                trail.block(Rule::ObeyOperator, guard);
                return Some(Plan::hold(Rule::ObeyOperator));
            }
            let plan = match ctx.facts.process()? {
                Process::Absent => Plan::hold(Rule::ObeyOperator),
                Process::Running(Server { .. }) | Process::Starting { .. } | Process::Unresponsive { .. } => {
                    Plan::order(
                        Rule::ObeyOperator,
                        Order::Stop {
                            mode: StopMode::Immediate,
                            checkpoint_first: false,
                        },
                    )
                }
            };
            Some(plan.intent(Intent::Reclone(*from_leader)))
        }
    }
}

/// A data directory is given up only for what is known since it was asked for: a replica may have come to a newer timeline than its agent and
/// the agent's view of the cluster know of.
fn unheard(ctx: &Context<'_>) -> Option<Guard> {
    let asked = ctx.state.asked_at;
    let looked = ctx.facts.postgres.as_ref().is_some_and(|seen| asked <= seen.at);
    let read = ctx.facts.read.is_some_and(|read| asked <= read);
    let age = ctx.now.since(asked);
    (!(looked && read)).then_some(Guard::ViewStale { age })
}
