//! A leader whose right is over, and whose key etcd still holds.
//!
//! etcd drops a key when its lease has run out by etcd's own count: up to half a second after the ttl, and after an election of its own
//! only when a whole ttl more has passed. Nobody need wait for that. Each renewal moves `status`, and none gives a right without that, so who has
//! seen `status` stand still for the ttl that it tells of, and the bound on drift, knows that its writer is no primary any more.
//!
//! To take the key away makes nobody a primary: the race that follows waits for old rights as it does when a key vanishes by itself. So
//! what is asked here is only whether it is worth it: that this node could lead, and that a leader which lives had time to say so.

use super::{Context, Plan, Trail, race};
use crate::action::{Lane, Order};
use crate::decision::{Evidence, Guard, Rule};
use crate::state::Writes;
use crate::types::Revision;
use crate::view::LeaderKey;
use crate::zoo::{Flaw, lacks};

/// Ends the reign of a leader whose right is over.
pub(super) fn end_reign(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let (key, seen) = lapsed(ctx)?;
    ctx.replica()?;
    if let Some(guard) = race::could_take_lock(ctx).err().or_else(|| returning(ctx)) {
        trail.block(Rule::EndReign, guard);
        return None;
    }
    let order = Order::EndReign {
        created: key.created,
        seen,
    };
    let over = ctx.now.since(ctx.facts.foreign.until);
    let plan = if ctx.lanes.idle(Lane::Lock) {
        Plan::order(Rule::EndReign, order)
    } else {
        Plan::hold(Rule::EndReign)
    };
    Some(
        plan.because(Evidence::Leader(key.name.clone()))
            .because(Evidence::RightOver(over)),
    )
}

/// The key of another whose right is over, and the revision of its last word. Not that of a Patroni, which tells of no ttl and whose right
/// is its lease, nor one beside a `status` of an earlier reign: those are waited for until etcd drops them.
fn lapsed<'a>(ctx: &Context<'a>) -> Option<(&'a LeaderKey, Revision)> {
    let view = ctx.facts.view()?;
    let key = view.leader.as_ref().filter(|key| key.name != *ctx.me())?;
    let told = view.claimed_ttl().is_some() && key.created <= view.status_revision;
    let over = ctx.old_right().is_none() || lacks(Flaw::ReignEndedEarly);
    (told && over).then_some((key, view.status_revision))
}

/// etcd has taken what this node writes for half a ttl: a leader that lives, and could not renew before, has renewed by then. It lost its
/// right, but it lacks nothing that clients were told of.
fn returning(ctx: &Context<'_>) -> Option<Guard> {
    let half = ctx.config.ttl / 2;
    let since = match ctx.state.writes {
        Writes::Taken { since } => since,
        Writes::Untried | Writes::Refused => ctx.now,
    };
    let left = since.plus(half).since(ctx.now);
    (!left.is_zero() && !lacks(Flaw::ReturnUnawaited)).then_some(Guard::EtcdReturned { left })
}
