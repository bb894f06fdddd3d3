//! Handing the lock over on purpose: switchover, and manual failover while a leader lives.

use std::time::Duration;

use super::{Context, Intent, Plan, Trail};
use crate::action::{Lane, Order, StopMode};
use crate::decision::{Evidence, Guard, Rule};
use crate::state::Handover;
use crate::types::{Lsn, NodeName};
use crate::view::{Due, FailoverKey, Standby};
use crate::zoo::{Flaw, lacks};

/// How long the stopped primary waits for a candidate to have everything before it takes the reign back. A candidate
/// that streamed has it in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the fast stop of a hand-over may take before it turns immediate and PostgreSQL is started again in place: its checkpoint has just
/// been made, and clients are cut off from its first moment on. A walsender, an archiver or a backend that hangs would hold it for ever.
const STOP_BOUND: Duration = Duration::from_secs(30);

/// Begins a hand-over when the `failover` key asks for it and somebody fit can take over.
///
/// The stop runs a checkpoint first, so that the outage is not as long as the checkpoint. A request that cannot be met is
/// cleared by the leader's duties.
pub(super) fn begin(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let key = ctx.facts.view()?.failover.as_ref()?;
    let server = ctx.primary()?;
    let refused = ctx.state.refused == Some(key.revision);
    if !ctx.state.lease.held || !ctx.valid() || !wanted(ctx) || refused {
        return None;
    }
    match key.due {
        Due::In(left) => {
            trail.block(Rule::HandOver, Guard::NotDue { left });
            return None;
        }
        Due::Stale => return None,
        Due::Now => {}
    }
    let fit = candidate(ctx).and_then(|()| on_this_timeline(ctx));
    if let Err(guard) = fit.and_then(|()| listed(ctx, key)) {
        trail.block(Rule::HandOver, guard);
        return None;
    }
    let handover = Handover {
        key: Some(key.revision),
        candidate: key.candidate.clone(),
        stopped: None,
        streaming: server.streaming_to(),
    };
    let order = Order::Stop {
        mode: StopMode::Fast {
            until: ctx.now.plus(STOP_BOUND),
        },
        checkpoint_first: true,
    };
    let mut plan = Plan::order(Rule::HandOver, order).intent(Intent::BeginHandover(handover));
    plan.because
        .extend(key.candidate.clone().map(Evidence::Candidate));
    Some(plan)
}

/// The `failover` key is meant for this leader and names somebody else.
pub(crate) fn wanted(ctx: &Context<'_>) -> bool {
    let Some(key) = ctx.facts.view().and_then(|view| view.failover.as_ref()) else {
        return false;
    };
    let for_me = key.leader.as_ref().is_none_or(|leader| leader == ctx.me());
    let to_other = key
        .candidate
        .as_ref()
        .is_none_or(|candidate| candidate != ctx.me());
    let named = key.leader.is_some() || key.candidate.is_some();
    let named_in_pause = !ctx.config.pause || key.candidate.is_some();
    for_me && to_other && named && named_in_pause
}

/// Whether somebody could take over: the named candidate, or anybody who streams and may be elected.
pub(crate) fn candidate(ctx: &Context<'_>) -> Result<(), Guard> {
    let named = ctx.facts.view().and_then(|view| view.failover.as_ref());
    let named = named.and_then(|key| key.candidate.clone());
    match (candidates(ctx).next(), named) {
        (Some(_), _) => Ok(()),
        (None, Some(name)) => Err(Guard::CandidateUnfit(name)),
        (None, None) => Err(Guard::NoCandidate),
    }
}

/// PostgreSQL has been looked at since the wish is known: with a `loop_wait` of 10 s the look before may not know of a replica that streams.
pub(crate) fn looked_since_wish(ctx: &Context<'_>) -> bool {
    let looked = ctx.facts.postgres.as_ref().map(|seen| seen.at);
    ctx.facts
        .wished
        .is_none_or(|(_, since)| looked.is_some_and(|at| since <= at))
}

/// Those of the `failover` key who could take over, and what is known of their streams.
fn candidates<'a>(ctx: &Context<'a>) -> impl Iterator<Item = (&'a NodeName, &'a Standby)> {
    let key = ctx.facts.view().and_then(|view| view.failover.as_ref());
    let server = ctx.primary();
    ctx.facts.others(ctx.me()).filter_map(move |(name, _)| {
        let (key, standby) = (key?, server?.standbys.get(name.as_str())?);
        let named = key.candidate.as_ref().is_none_or(|candidate| candidate == name);
        let may = ctx.fit(name) && (key.manual() || ctx.electable(name));
        (named && may).then_some((name, standby))
    })
}

/// One of them is fit, or else there is none; the guard says it of the first.
fn one_of(
    ctx: &Context<'_>,
    fit: impl Fn(&NodeName, &Standby) -> bool,
    guard: fn(NodeName) -> Guard,
) -> Result<(), Guard> {
    let mut unfit = None;
    for (name, standby) in candidates(ctx) {
        if fit(name, standby) {
            return Ok(());
        }
        unfit.get_or_insert(name);
    }
    unfit.map_or(Ok(()), |name| Err(guard(name.clone())))
}

/// One of them has something of this timeline. Just after a promotion they stream, or seem to, what was before it, and come to the new timeline
/// in some milliseconds or with their next attempt, in 5 s. Until then none of them would get the shutdown checkpoint.
fn on_this_timeline(ctx: &Context<'_>) -> Result<(), Guard> {
    let last = ctx.primary().and_then(|server| server.history.last());
    let fork = last.map_or(Lsn(0), |line| line.switch);
    let beyond = |_: &NodeName, standby: &Standby| fork < standby.position;
    one_of(ctx, beyond, Guard::CandidateBeforeFork)
}

/// The failsafe list names one of them: nobody else takes the lock but by a manual failover.
fn listed(ctx: &Context<'_>, key: &FailoverKey) -> Result<(), Guard> {
    let listed = |name: &NodeName, _: &Standby| key.manual() || ctx.listed(name);
    one_of(ctx, listed, Guard::CandidateUnlisted)
}

/// Carries a hand-over on once PostgreSQL has stopped: gives the lock back as soon as a candidate has the shutdown
/// checkpoint, or takes the reign back if none gets it in time.
pub(super) fn progress(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let handover = ctx.state.handover.as_ref()?;
    if !ctx.state.lease.held || !ctx.at_rest() || handover.stopped.is_none() {
        // It came to nothing: the lock is lost, or PostgreSQL did not stop.
        return Some(Plan::hold(Rule::HandOver).intent(Intent::AbandonHandover));
    }
    if ctx.state.releasing {
        let again = Plan::order(Rule::HandOver, ctx.release());
        let idle = ctx.lanes.idle(Lane::Lock);
        return Some(if idle { again } else { Plan::hold(Rule::HandOver) });
    }
    if let Some(wait) = await_standby(ctx, trail, Rule::HandOver) {
        return Some(wait);
    }
    let caught_up = somebody_has_everything(ctx, handover);
    if !caught_up {
        trail.block(Rule::HandOver, Guard::CandidateBehind);
        return Some(Plan::hold(Rule::HandOver).intent(Intent::AbandonHandover));
    }
    if !ctx.lanes.idle(Lane::Lock) {
        return Some(Plan::hold(Rule::HandOver));
    }
    Some(Plan::order(Rule::HandOver, ctx.release()))
}

/// Holds still while a standby that streamed may still get the shutdown checkpoint, for a bounded time.
pub(super) fn await_standby(ctx: &Context<'_>, trail: &mut Trail, rule: Rule) -> Option<Plan> {
    let handover = ctx.state.handover.as_ref()?;
    let (_, since) = handover.stopped?;
    let hopeless = handover.streaming.is_empty() || lacks(Flaw::StandbyUnawaited);
    if hopeless || somebody_has_everything(ctx, handover) || ctx.now >= since.plus(PATIENCE) {
        return None;
    }
    trail.block(rule, Guard::CandidateBehind);
    Some(Plan::hold(rule))
}

/// The lock is for this one: the candidate, or, if none is named, whoever may be elected. Where the failsafe list names none of those that streamed,
/// what was written last is at least not lost with this node.
fn may_have_it(ctx: &Context<'_>, handover: &Handover, name: &NodeName) -> bool {
    let listed = |name: &String| ctx.listed(&NodeName(name.clone()));
    match &handover.candidate {
        Some(candidate) => candidate == name,
        None => ctx.electable(name) && (ctx.listed(name) || !handover.streaming.iter().any(listed)),
    }
}

/// One that the lock is for has received WAL beyond the start of the shutdown checkpoint, on the timeline
/// that ends there: the position of a replica that has not turned to it yet says nothing, nor does that of a primary that a person made of one.
fn somebody_has_everything(ctx: &Context<'_>, handover: &Handover) -> bool {
    if lacks(Flaw::StandbyUnawaited) {
        return true;
    }
    let Some((Some(checkpoint), since)) = handover.stopped else {
        return false;
    };
    let timeline = ctx.state.reached.as_ref().and_then(|reached| reached.timeline);
    // Where none that streamed may ever lead, what was written last is at least not lost with this node.
    let never = |name: &String| {
        let member = ctx.facts.member(&NodeName(name.clone()));
        member.is_some_and(|member| member.nofailover)
    };
    let nobody_leads = handover.streaming.iter().all(never);
    ctx.facts.peers.iter().any(|(name, peer)| {
        let fresh = since <= peer.asked;
        may_have_it(ctx, handover, name)
            && fresh
            && peer.status.as_ref().is_some_and(|status| {
                (!status.nofailover || nobody_leads)
                    && status.running
                    && !status.primary
                    && status.timeline == timeline
                    && status.position.is_some_and(|position| checkpoint < position)
            })
    })
}
