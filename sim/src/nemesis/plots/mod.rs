//! Plots: bad days with an aim. Each brings about one situation that chance finds too seldom, at the moment at which it hurts, with times
//! and order drawn anew by each seed.
//!
//! The first member creates the cluster and leads when a plot begins, so that a plot can say who loses what. Whatever else a seed draws
//! (timings, clients) stays as it is, unless the situation needs it.

mod data;
mod grants;
mod hand;
mod lock;
mod race;
mod votes;

use surus_scenarios::{
    End, EtcdFault, Fault, HostFault, Lost, Name, Nanos, NetFault, Operator, PostgresFault, PostgresStep,
    Rpc, Shape, Step, Strike, SyncMode, Target, Trap, Trigger, Way,
};

use crate::clock::{SEC, Time};
use crate::rng::Rng;

type Steps = Vec<(Time, Step)>;

/// A plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plot {
    /// Members.
    pub(super) nodes: usize,
    /// Everybody may create the cluster, and the plot begins before it is there.
    pub(super) birth: bool,
    /// What the situation needs of the cast.
    pub(super) cast: fn(&mut Rng, &mut Shape),
    /// What happens, counted from the plot's beginning.
    pub(super) steps: fn(&mut Rng, &Shape) -> Steps,
}

const fn plot(nodes: usize, cast: fn(&mut Rng, &mut Shape), steps: fn(&mut Rng, &Shape) -> Steps) -> Plot {
    Plot {
        nodes,
        birth: false,
        cast,
        steps,
    }
}

/// All of them.
pub(super) const PLOTS: &[Plot] = &[
    plot(2, long_alone, lock::late_answer),
    plot(3, usual, lock::order_after_sleep),
    plot(3, long_alone, lock::unseen_reign),
    plot(3, long_alone, lock::late_release),
    plot(3, alone, lock::newcomers),
    plot(3, long_alone, lock::shorter_ttl_unheard),
    plot(3, long_alone, lock::shorter_ttl_unconfirmed),
    plot(3, short_failsafe, grants::longer_ttl_by_grants),
    plot(3, failsafe, grants::promise),
    plot(3, failsafe, grants::list_in_flight),
    plot(3, usual, data::gone_in_a_pause),
    plot(3, diverging, data::diverged_and_last),
    plot(3, alone, data::better_replica),
    plot(3, usual, data::promotion_outlives_agent),
    plot(3, long_alone, lock::release_and_isolation),
    plot(2, usual, data::hasty_hand_over),
    plot(2, newcomer, data::identity_wiped),
    Plot {
        birth: true,
        ..plot(3, usual, data::half_a_cluster)
    },
    plot(2, usual, data::rebuilt_and_elected),
    plot(3, rewinding, data::history_of_a_replica),
    plot(3, only_rewinding, data::slow_checkpoint),
    plot(3, alone, lock::old_answers),
    plot(2, usual, data::failing_stop),
    plot(3, alone, lock::deposed_etcd),
    plot(3, alone, lock::etcd_thaws),
    plot(2, usual, lock::killed_in_a_start),
    plot(3, long_failsafe, grants::slow_grants),
    plot(2, usual, lock::host_sleeps),
    plot(3, failsafe, grants::listener_returns),
    plot(3, usual, lock::lost_at_once),
    plot(3, failsafe, grants::nobody_there),
    plot(3, long_failsafe, grants::mode_off),
    plot(3, long_failsafe, grants::named_on_grants),
    plot(3, usual, lock::late_renewal_in_a_pause),
    plot(3, alone, race::vanished_key),
    plot(3, slow_alone, race::stale_rival),
    plot(4, alone, race::unrecorded_fork),
    plot(3, long_alone, race::past_the_fork),
    plot(3, long_alone, lock::order_of_before),
    plot(3, from_the_first, data::given_up_by_hearsay),
    plot(3, long_failsafe, grants::granted_in_a_start),
    plot(3, cascading, data::rebuilt_by_an_old_etcd),
    plot(2, diverging, race::unpublished_reign),
    plot(3, short_failsafe, grants::longer_ttl_asked_for),
    plot(3, usual, data::promotion_hangs_in_a_pause),
    plot(3, long_quorum, votes::before_the_end),
    plot(3, quorum, votes::of_the_past),
    plot(3, long_alone, lock::silent_renewals),
    plot(3, diverging, hand::and_the_leader_lost),
    plot(3, diverging, hand::where_nobody_hears),
    plot(2, diverging, hand::in_a_race),
];

fn usual(_: &mut Rng, _: &mut Shape) {}

/// No failsafe: a leader without etcd has its right and nothing more.
fn alone(_: &mut Rng, shape: &mut Shape) {
    shape.settings.failsafe_mode = false;
}

/// The same, with a right that outlives what is done about it.
fn long_alone(rng: &mut Rng, shape: &mut Shape) {
    alone(rng, shape);
    long(rng, shape);
}

/// The last member streams from the second.
fn cascading(rng: &mut Rng, shape: &mut Shape) {
    alone(rng, shape);
    let upstream = shape.members.get(1).map(|member| member.name.clone());
    if let Some(last) = shape.members.last_mut() {
        last.tags.replicatefrom = upstream;
    }
}

/// The last member streams from the first, and what diverged is cloned anew.
fn from_the_first(rng: &mut Rng, shape: &mut Shape) {
    alone(rng, shape);
    shape.settings.use_pg_rewind = false;
    let upstream = shape.members.first().map(|member| member.name.clone());
    if let Some(last) = shape.members.last_mut() {
        last.tags.replicatefrom = upstream;
    }
}

/// No failsafe, and rounds so long that much can happen between two.
fn slow_alone(rng: &mut Rng, shape: &mut Shape) {
    alone(rng, shape);
    let settings = &mut shape.settings;
    (settings.ttl, settings.loop_wait, settings.retry_timeout) = ([8, 10][rng.index(2)], 2, 2);
}

fn long(rng: &mut Rng, shape: &mut Shape) {
    let settings = &mut shape.settings;
    (settings.ttl, settings.loop_wait, settings.retry_timeout) = ([10, 15][rng.index(2)], 1, 2);
}

fn long_failsafe(rng: &mut Rng, shape: &mut Shape) {
    failsafe(rng, shape);
    long(rng, shape);
}

fn failsafe(_: &mut Rng, shape: &mut Shape) {
    shape.settings.failsafe_mode = true;
}

fn short_failsafe(rng: &mut Rng, shape: &mut Shape) {
    failsafe(rng, shape);
    let settings = &mut shape.settings;
    (settings.ttl, settings.loop_wait, settings.retry_timeout) = (3, 1, 1);
}

/// Commits wait for either of the replicas.
fn quorum(rng: &mut Rng, shape: &mut Shape) {
    alone(rng, shape);
    let settings = &mut shape.settings;
    settings.synchronous_mode = SyncMode::Quorum;
    settings.synchronous_node_count = 1;
}

/// The same, and members ask each other so seldom that a right can end between two questions.
fn long_quorum(rng: &mut Rng, shape: &mut Shape) {
    quorum(rng, shape);
    let settings = &mut shape.settings;
    (settings.ttl, settings.loop_wait, settings.retry_timeout) = (15, 5, 2);
}

fn diverging(rng: &mut Rng, shape: &mut Shape) {
    alone(rng, shape);
    shape.settings.maximum_lag_on_failover = 1 << 30;
}

fn newcomer(rng: &mut Rng, shape: &mut Shape) {
    if let Some(last) = shape.members.last_mut() {
        last.tags.bootstrap = true;
        last.tags.joins = Nanos(rng.range(32, 40) * SEC);
    }
}

fn rewinding(_: &mut Rng, shape: &mut Shape) {
    shape.settings.use_pg_rewind = true;
}

fn only_rewinding(rng: &mut Rng, shape: &mut Shape) {
    rewinding(rng, shape);
    shape.settings.remove_data_directory_on_diverged_timelines = false;
    shape.settings.remove_data_directory_on_rewind_failure = false;
}

/// A member, by its place in the cast.
fn who(shape: &Shape, index: usize) -> Target {
    let last = shape.members.len().saturating_sub(1);
    Target::Node(shape.members[index.min(last)].name.clone())
}

/// Two replicas, by chance.
fn two_replicas(rng: &mut Rng, shape: &Shape) -> (Target, Target) {
    let one = 1 + rng.index(2);
    (who(shape, one), who(shape, 3 - one))
}

fn ttl(shape: &Shape) -> Time {
    shape.settings.ttl * SEC
}

fn host(fault: HostFault) -> Fault {
    Fault::Host(fault)
}

fn kill(node: Target, back: Time) -> Fault {
    let back = Nanos(back);
    host(HostFault::KillAgent { node, back })
}

fn freeze(node: Target, span: Time) -> Fault {
    let span = Nanos(span);
    host(HostFault::FreezeAgent { node, span })
}

fn power_loss(node: Target, back: Time) -> Fault {
    let back = Nanos(back);
    host(HostFault::PowerLoss { node, back })
}

fn isolate(node: Target, span: Time) -> Fault {
    Fault::Net(NetFault::Isolate {
        node,
        clients: true,
        span: Nanos(span),
    })
}

fn cut(a: Target, b: End, way: Way, span: Time) -> Fault {
    Fault::Net(NetFault::Cut {
        a: End::Node(a),
        b,
        way,
        span: Nanos(span),
    })
}

fn cut_etcd(node: Target, span: Time) -> Fault {
    cut(node, End::Etcd, Way::Both, span)
}

fn delay(node: Target, rpc: Rpc, by: Time, count: u64, span: Time) -> Fault {
    Fault::Etcd(EtcdFault::Delay {
        node,
        by: Nanos(by),
        rpc,
        count,
        span: Nanos(span),
    })
}

/// So many of these requests of the node (zero is all) or their replies get lost.
fn lose(node: Target, part: Lost, rpc: Rpc, count: u64, span: Time) -> Fault {
    Fault::Etcd(EtcdFault::Lose {
        node,
        part,
        rpc,
        count,
        span: Nanos(span),
    })
}

fn watch_gap(node: Target, span: Time) -> Fault {
    let span = Nanos(span);
    Fault::Etcd(EtcdFault::WatchGap { node, span })
}

fn lease_early(node: Target) -> Fault {
    Fault::Etcd(EtcdFault::LeaseEarly { node })
}

fn slow(node: Target, step: PostgresStep, by: Time) -> Fault {
    Fault::Postgres(PostgresFault::Slow {
        node,
        step,
        by: Nanos(by),
        count: 1,
    })
}

/// The next so many of these steps fail; zero is all.
fn fail(node: Target, step: PostgresStep, count: u64) -> Fault {
    Fault::Postgres(PostgresFault::Fail { node, step, count })
}

fn kill_postgres(node: Target) -> Fault {
    Fault::Postgres(PostgresFault::KillPostgres { node })
}

fn fault(at: Time, fault: Fault) -> (Time, Step) {
    (at, Step::Fault(fault))
}

fn act(at: Time, act: Operator) -> (Time, Step) {
    (at, Step::Operator(act))
}

fn set(at: Time, key: &str, value: &str) -> (Time, Step) {
    let (key, value) = (Name::from(key), Name::from(value));
    act(at, Operator::Set { key, value })
}

fn set_ttl(at: Time, seconds: u64) -> (Time, Step) {
    set(at, "ttl", &seconds.to_string())
}

/// From `at` on: when that happens on `on`, so long after it, this.
fn when(at: Time, when: Trigger, on: Target, after: Time, strike: Fault) -> (Time, Step) {
    trap(at, when, on, after, Strike::Fault(strike))
}

/// The same, and a person does this.
fn when_act(at: Time, when: Trigger, on: Target, after: Time, act: Operator) -> (Time, Step) {
    trap(at, when, on, after, Strike::Operator(act))
}

fn trap(at: Time, when: Trigger, on: Target, after: Time, strike: Strike) -> (Time, Step) {
    let trap = Trap {
        when,
        on,
        skip: 0,
        after: Nanos(after),
        strike,
    };
    (at, Step::Trap(trap))
}

/// How long the agent tries an order to the lock (`Limits::lock`), and one of three endpoints within it.
fn lock_limit(shape: &Shape) -> (Time, Time) {
    let limit = (ttl(shape) / 5).clamp(SEC, 2 * SEC);
    (limit, limit / 3)
}
