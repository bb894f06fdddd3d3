//! Who has the lock, and for how long: answers, orders and ends of reigns that come late, and clocks and keys that are not what they seem.

use surus_scenarios::{
    End, ErrorCode, EtcdFault, EtcdTarget, Fault, HostFault, Lost, Nanos, Operator, Rpc, Shape, Target,
    Trigger, Way,
};

use super::{
    Steps, act, cut, cut_etcd, delay, fault, freeze, host, isolate, kill, kill_postgres, lease_early,
    lock_limit, lose, power_loss, set_ttl, ttl, watch_gap, when, who,
};
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// A renewal is answered as late as it may be, and it is the last: the agent stands still from then on.
pub(super) fn late_answer(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, (limit, share)) = (who(shape, 0), lock_limit(shape));
    let armed = limit + shape.settings.loop_wait * SEC;
    let (late, answered) = if rng.one_in(2) {
        let lost = lose(leader.clone(), Lost::Request, Rpc::Txn, 2, armed);
        (lost, 2 * share)
    } else {
        // It arrives while the next attempt is under way.
        let by = share + rng.range(5 * MS, 40 * MS);
        let rpc = Rpc::KeepAlive;
        (delay(leader.clone(), rpc, by, 12, armed), share + 40 * MS)
    };
    let sleeps = answered + rng.range(20 * MS, 300 * MS);
    let sleep = freeze(leader.clone(), ttl(shape) + 4 * SEC);
    // The renewal before it is what lets the fault in.
    vec![fault(0, late), when(0, Trigger::Renew, leader, sleeps, sleep)]
}

/// The agent stands still between the order to promote and its execution, and is killed as it wakes.
pub(super) fn order_after_sleep(rng: &mut Rng, shape: &Shape) -> Steps {
    let here = || Target::Here;
    let sleep = ttl(shape) + rng.range(0, 4 * SEC);
    let (nobody, woken) = (Target::Any, sleep + rng.range(50_000, 400_000));
    vec![
        when(0, Trigger::Promote, nobody.clone(), 0, freeze(here(), sleep)),
        when(0, Trigger::Promote, nobody, woken, kill(here(), 20 * SEC)),
        fault(MS, power_loss(who(shape, 0), 60 * SEC)),
    ]
}

/// An order to take the lock is on its way while another takes it, leads, and loses the key before its right is over.
pub(super) fn unseen_reign(rng: &mut Rng, shape: &Shape) -> Steps {
    let (node, other) = (who(shape, 1), who(shape, 2));
    let late = rng.range(1500 * MS, ttl(shape) / 2);
    let span = late + 200 * MS;
    let gap = watch_gap(node.clone(), span);
    let deaf = cut(node.clone(), End::Etcd, Way::Back, span);
    let late_txn = delay(node.clone(), Rpc::Txn, late, 8, late);
    let lost = rng.range(300 * MS, late - 500 * MS);
    vec![
        when(0, Trigger::Acquire, node.clone(), 0, gap),
        when(0, Trigger::Acquire, node.clone(), 0, late_txn),
        when(0, Trigger::Acquire, node, rng.range(6 * MS, 12 * MS), deaf),
        when(
            0,
            Trigger::Promoted,
            other.clone(),
            rng.range(50 * MS, 250 * MS),
            cut_etcd(Target::Here, 40 * SEC),
        ),
        when(0, Trigger::Promoted, other, lost, lease_early(Target::Here)),
        fault(MS, power_loss(who(shape, 0), 60 * SEC)),
    ]
}

/// The order to give the lock back arrives seconds after it was sent: its agent is dead, and the next one leads again.
pub(super) fn late_release(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let late = rng.range(2 * SEC, 5 * SEC);
    let slept = late - rng.range(5 * MS, 400 * MS);
    vec![
        when(
            0,
            Trigger::Stopped,
            leader.clone(),
            0,
            delay(leader.clone(), Rpc::Txn, late, 0, 300 * MS),
        ),
        when(
            0,
            Trigger::Release,
            leader.clone(),
            rng.range(5 * MS, 20 * MS),
            kill(Target::Here, rng.range(310 * MS, 600 * MS)),
        ),
        when(
            0,
            Trigger::Release,
            leader.clone(),
            slept,
            freeze(Target::Here, ttl(shape)),
        ),
        fault(
            MS,
            host(HostFault::StopAgent {
                node: leader,
                back: Nanos::secs(60),
            }),
        ),
    ]
}

/// The lock is lost early and its holder cannot hear of it, and the agents of all others begin anew.
pub(super) fn newcomers(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let mut steps = vec![fault(0, cut_etcd(leader.clone(), 4 * ttl(shape)))];
    for index in 1..shape.members.len() {
        let back = rng.range(50 * MS, 800 * MS);
        steps.push(fault(10 * MS, kill(who(shape, index), back)));
    }
    steps.push(fault(rng.range(12 * MS, 60 * MS), lease_early(leader)));
    steps
}

/// Others have heard of a shorter ttl, the leader has not; they begin anew and see the lock lost early.
pub(super) fn shorter_ttl_unheard(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let again = rng.range(2200 * MS, 3200 * MS);
    let mut steps = vec![
        fault(0, freeze(leader.clone(), ttl(shape) * 3 / 4)),
        set_ttl(100 * MS, 3),
    ];
    for index in 1..shape.members.len() {
        steps.push(fault(
            again,
            kill(who(shape, index), rng.range(50 * MS, 300 * MS)),
        ));
    }
    steps.push(fault(again + rng.range(20 * MS, 800 * MS), lease_early(leader)));
    steps
}

/// The leader announces a shorter ttl, perhaps hears no answer, and then nothing more.
pub(super) fn shorter_ttl_unconfirmed(rng: &mut Rng, shape: &Shape) -> Steps {
    let node = who(shape, 0);
    let mute = lose(node.clone(), Lost::Reply, Rpc::Txn, 0, ttl(shape));
    let mut steps = vec![
        set_ttl(100 * MS, 3),
        fault(rng.range(3 * SEC, 6 * SEC), cut_etcd(node, 2 * ttl(shape))),
    ];
    if rng.one_in(2) {
        steps.push(fault(0, mute));
    }
    steps
}

/// The lock is handed over, and whoever gave it away hears of nothing from then on, the answer included.
pub(super) fn release_and_isolation(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let gone = if rng.one_in(2) {
        isolate(Target::Here, 40 * SEC)
    } else {
        cut_etcd(Target::Here, 40 * SEC)
    };
    let to = rng.one_in(2).then(|| who(shape, 1));
    vec![
        when(0, Trigger::Release, leader, rng.range(50_000, MS), gone),
        act(MS, Operator::Switchover { to }),
    ]
}

/// Answers of etcd take long, and one of them may tell who led before.
pub(super) fn old_answers(rng: &mut Rng, shape: &Shape) -> Steps {
    let late = EtcdFault::Slow {
        member: EtcdTarget::All,
        by: Nanos(rng.range(400 * MS, 650 * MS)),
        span: Nanos::secs(40),
    };
    let gone = ttl(shape) + rng.range(3 * SEC, 8 * SEC);
    vec![
        fault(0, Fault::Etcd(late)),
        fault(SEC, isolate(who(shape, 0), gone)),
    ]
}

/// The leader reaches only one member of etcd, which stands still while the others elect another; and when it goes on, nothing is
/// reached any more.
pub(super) fn deposed_etcd(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let still = rng.range(2100 * MS, 3300 * MS);
    let only = rng.index(shape.etcd.len());
    let others = shape.etcd.iter().enumerate().filter(|(index, _)| *index != only);
    let mut steps: Steps = others
        .map(|(_, member)| {
            let end = End::EtcdMember(member.name.clone());
            fault(0, cut(leader.clone(), end, Way::Both, still + 20 * SEC))
        })
        .collect();
    let span = Nanos(still);
    steps.push(fault(100 * MS, Fault::Etcd(EtcdFault::Depose { span })));
    let deaf = 100 * MS + still + rng.range(4 * MS, 80 * MS);
    steps.push(fault(deaf, cut_etcd(leader, 20 * SEC)));
    steps
}

/// etcd's leader stands still for longer than a lease, and revokes on thawing what was renewed meanwhile; the holder hears of nothing.
pub(super) fn etcd_thaws(rng: &mut Rng, shape: &Shape) -> Steps {
    let still = ttl(shape) + rng.range(500 * MS, 4 * SEC);
    let deaf = still - rng.below(300 * MS);
    let span = Nanos(still);
    vec![
        fault(0, Fault::Etcd(EtcdFault::Depose { span })),
        fault(deaf, cut_etcd(who(shape, 0), 3 * ttl(shape))),
    ]
}

/// The lock is taken and lost within a moment, and its holder does not hear of that.
pub(super) fn lost_at_once(rng: &mut Rng, shape: &Shape) -> Steps {
    let here = || Target::Here;
    let deaf = rng.below(30 * MS);
    let lost = deaf + rng.range(10 * MS, 700 * MS);
    let begin = if rng.one_in(2) {
        act(MS, Operator::Switchover { to: None })
    } else {
        fault(MS, power_loss(who(shape, 0), 60 * SEC))
    };
    vec![
        when(
            0,
            Trigger::Promoted,
            Target::Any,
            deaf,
            cut_etcd(here(), 40 * SEC),
        ),
        when(0, Trigger::Promoted, Target::Any, lost, lease_early(here())),
        begin,
    ]
}

/// The leader's whole host stands still until about the end of its right.
pub(super) fn host_sleeps(rng: &mut Rng, shape: &Shape) -> Steps {
    let span = Nanos(rng.range(ttl(shape) / 2, 2 * ttl(shape)));
    let node = who(shape, 0);
    vec![fault(0, host(HostFault::PauseHost { node, span }))]
}

/// The guard dies and PostgreSQL with it, and the agent is killed as it starts it again.
pub(super) fn killed_in_a_start(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let killed = rng.range(500_000, 5 * MS);
    let back = [rng.range(50 * MS, SEC), 20 * SEC][rng.index(2)];
    let node = leader.clone();
    vec![
        when(0, Trigger::Start, leader, killed, kill(Target::Here, back)),
        fault(MS, host(HostFault::KillGuard { node })),
    ]
}

/// A renewal from before a pause arrives after one that said that the primary runs without a deadline; then the leader is cut off, and
/// hears of nothing when the pause ends.
pub(super) fn late_renewal_in_a_pause(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let (limit, share) = lock_limit(shape);
    let late = limit + rng.range(350 * MS, 700 * MS);
    let txn = delay(leader.clone(), Rpc::Txn, late, 0, limit - share / 2);
    let deaf = cut_etcd(Target::Here, 60 * SEC);
    let span = Nanos(ttl(shape) + rng.range(4 * SEC, 8 * SEC));
    vec![
        when(0, Trigger::Renew, leader.clone(), 0, txn),
        when(
            0,
            Trigger::Renew,
            leader,
            late + rng.range(20 * MS, 300 * MS),
            deaf,
        ),
        act(
            shape.settings.loop_wait * SEC + rng.below(limit / 2),
            Operator::Pause { span },
        ),
    ]
}

/// A primary asks for the lock that it has just lost, and crashes. The order is carried out when it is a replica and about to ask again, now
/// with a timeline reserved; it is cut off as it makes that.
pub(super) fn order_of_before(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let (limit, _) = lock_limit(shape);
    let late = limit + rng.range(10 * MS, 190 * MS);
    let first = |after: Time, strike: Fault| when(0, Trigger::Acquire, leader.clone(), after, strike);
    let gone = isolate(Target::Here, 60 * SEC);
    vec![
        first(0, delay(leader.clone(), Rpc::Txn, late, 0, limit)),
        first(0, watch_gap(leader.clone(), 2 * limit)),
        first(rng.range(5 * MS, 50 * MS), kill_postgres(leader.clone())),
        when(0, Trigger::Promote, leader.clone(), rng.range(0, 20 * MS), gone),
        fault(rng.range(10 * MS, SEC), lease_early(leader)),
    ]
}

/// etcd has no space for `status`, so renewals are confirmed without a word; then the key vanishes before its time, and the agent is killed: the
/// others have last heard of a renewal long before.
pub(super) fn silent_renewals(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let vanishes = rng.range(4 * SEC, ttl(shape) - 2 * SEC);
    let full = EtcdFault::Error {
        node: leader.clone(),
        code: ErrorCode::NoSpace,
        rpc: Rpc::Txn,
        applied: false,
        count: 0,
        span: Nanos(2 * ttl(shape)),
    };
    vec![
        fault(0, Fault::Etcd(full)),
        fault(vanishes, lease_early(leader.clone())),
        fault(vanishes + rng.below(10 * MS), kill(leader, 3 * ttl(shape))),
    ]
}
