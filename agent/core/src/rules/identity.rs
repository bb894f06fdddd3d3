//! Belonging to the cluster one is told to join.

use super::{Context, Intent, Plan, Trail};
use crate::action::Order;
use crate::decision::{Guard, Rule};
use crate::view::{DataDir, Initialize};
use crate::zoo::{Flaw, lacks};

/// Ends the agent, touching nothing, when the data directory belongs to another cluster than the `initialize` key says.
///
/// In a pause it only says so. A lock held is given back first, if PostgreSQL does not run on it.
pub(super) fn foreign_cluster(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let Some(Initialize::Done(cluster)) = ctx.facts.view()?.initialize else {
        return None;
    };
    let Some(DataDir::Present(control)) = ctx.facts.data() else {
        return None;
    };
    // Whoever creates a cluster says so under the lock; without it, another's word stands.
    let creating = ctx.state.created.is_some() && ctx.state.lease.held;
    if control.system_id == cluster || creating || lacks(Flaw::ForeignData) {
        return None;
    }
    let guard = Guard::SystemIdMismatch {
        own: control.system_id,
        cluster,
    };
    let reason = format!(
        "{guard}: this data directory belongs to another cluster; move it away to clone this member anew, or correct \
         `scope`"
    );
    trail.block(Rule::ForeignCluster, guard);
    if ctx.config.pause {
        return None;
    }
    Some(
        Plan::order(
            Rule::ForeignCluster,
            Order::Exit {
                reason,
                detach: true,
                failure: true,
            },
        )
        .intent(Intent::Exit),
    )
}
