//! Ending the agent: the lock is given back as soon as a standby has everything.

use std::time::Duration;

use super::{Context, Intent, Plan, Trail, handover};
use crate::action::{Lane, Order, StopMode};
use crate::decision::{Guard, Rule};
use crate::state::Handover;

/// How long a stop of a replica may take before it turns immediate: systemd's usual patience (TimeoutSec=30) less a
/// reserve.
const REPLICA_STOP: Duration = Duration::from_secs(20);

/// How long a stop of the primary may take before it turns immediate. The standbys may lack its end then, so it is long; but a walsender,
/// an archiver or a backend that hangs would hold it for ever.
const PRIMARY_STOP: Duration = Duration::from_secs(60);

/// How long to wait for the last word in the DCS when it does not answer.
const LAST_WORD: Duration = Duration::from_secs(2);

/// After the order to end nothing is decided any more.
pub(super) fn exiting(ctx: &Context<'_>, _: &mut Trail) -> Option<Plan> {
    ctx.state.exiting.then(|| Plan::hold(Rule::Leave))
}

/// Ends the agent.
///
/// In a pause PostgreSQL and the lock are left as they are. Otherwise PostgreSQL is stopped fast; a primary then waits
/// until a standby that streamed has the shutdown checkpoint (bounded), and gives the lock back.
pub(super) fn leave(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let asked = ctx.state.shutdown?;
    if ctx.config.pause {
        let order = Order::Exit {
            reason: "asked to end while the cluster is paused: PostgreSQL keeps running".to_owned(),
            detach: true,
            failure: false,
        };
        return Some(Plan::order(Rule::Leave, order).intent(Intent::Exit));
    }
    if matches!(ctx.lanes.outstanding(Lane::Postgres), Some(outstanding) if matches!(outstanding.order, Order::Stop { .. }))
    {
        return Some(Plan::hold(Rule::Leave));
    }
    if ctx.awaited(trail, Rule::Leave) {
        return Some(Plan::hold(Rule::Leave));
    }
    if !ctx.at_rest() || !ctx.lanes.idle(Lane::Postgres) {
        return Some(stop(ctx));
    }
    if !ctx.settled() {
        return Some(Plan::hold(Rule::Leave));
    }
    if ctx.state.lease.held {
        if let Some(wait) = handover::await_standby(ctx, trail, Rule::Leave) {
            return Some(wait);
        }
        return Some(
            if ctx.lanes.idle(Lane::Lock) && ctx.now < asked.plus(ctx.config.ttl + REPLICA_STOP) {
                Plan::order(Rule::Leave, ctx.release())
            } else if ctx.lanes.idle(Lane::Lock) {
                exit()
            } else {
                Plan::hold(Rule::Leave)
            },
        );
    }
    let said = ctx
        .state
        .published
        .as_ref()
        .is_some_and(|record| record.state == "stopped");
    if said || ctx.now >= asked.plus(LAST_WORD) && !ctx.reachable() {
        return Some(exit());
    }
    trail.block(
        Rule::Leave,
        Guard::ViewStale {
            age: ctx.now.since(asked),
        },
    );
    Some(Plan::hold(Rule::Leave))
}

fn exit() -> Plan {
    let order = Order::Exit {
        reason: "PostgreSQL is stopped".to_owned(),
        detach: false,
        failure: false,
    };
    Plan::order(Rule::Leave, order).intent(Intent::Exit)
}

fn stop(ctx: &Context<'_>) -> Plan {
    let leading = ctx.state.lease.held && ctx.primary().is_some();
    let alive = !ctx.facts.unresponsive();
    let mode = match (leading, alive) {
        // The right goes on being renewed meanwhile; if it cannot be, the fence stops harder.
        (true, true) => StopMode::Fast {
            until: ctx.now.plus(PRIMARY_STOP),
        },
        (false, true) => StopMode::Fast {
            until: ctx.now.plus(REPLICA_STOP),
        },
        (_, false) => StopMode::Immediate,
    };
    let plan = Plan::order(
        Rule::Leave,
        Order::Stop {
            mode,
            checkpoint_first: leading,
        },
    );
    if !leading {
        return plan;
    }
    let streaming = ctx
        .primary()
        .map(crate::view::Server::streaming_to)
        .unwrap_or_default();
    plan.intent(Intent::BeginHandover(Handover {
        key: None,
        candidate: None,
        stopped: None,
        streaming,
    }))
}

impl Context<'_> {
    /// etcd answered lately.
    fn reachable(&self) -> bool {
        self.facts
            .read
            .is_some_and(|read| self.now.since(read) < self.config.retry_timeout + self.config.round())
    }
}
