//! Nothing fails: people hand over, restart, rebuild, set things and take members out for a while, and clients hardly notice.
//!
//! A switchover to somebody fit is expected to be over soon. Who is fit is known beforehand of those whom nothing has touched for a while.

use surus_scenarios::{
    Expectation, Fault, HostFault, Name, Nanos, Operator, Planned, Shape, Step, SyncMode, Tags, Target,
};

use super::faults;
use super::swarm::Kind;
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// A cluster stands by then, also with a `loop_wait` of ten seconds.
const STANDS: Time = 35 * SEC;

/// How long clients may be without a primary, and how long a switchover may take: a stop with its checkpoint, a promotion, and the reconnecting
/// of standbys that commits wait for take a second or two; what waits for a round, a reservation or a lease takes longer than this.
const SOON: Nanos = Nanos::secs(6);

/// A member that was restarted, or whose upstream changed, streams again by then.
const SETTLED: Time = 12 * SEC;

/// A member that was cloned anew does.
const REBUILT: Time = 40 * SEC;

/// What is expected of each such seed beside its health.
pub(super) fn expectations() -> [Expectation; 3] {
    let outage = Expectation::Outage {
        max: SOON,
        client: Some(Name::from("c1")),
    };
    [
        Expectation::NoDualPrimary {},
        Expectation::Lost { max: 0 },
        outage,
    ]
}

/// Only the first creates the cluster, one may join late, and clients are not kept waiting on purpose.
pub(super) fn cast(rng: &mut Rng, shape: &mut Shape) {
    let late = shape.members.len() - 1;
    for (index, member) in shape.members.iter_mut().enumerate() {
        member.tags.bootstrap = index == 0;
        if 0 < index && index == late && rng.one_in(3) {
            member.tags.joins = Nanos(rng.range(15 * SEC, 60 * SEC));
        }
    }
    let settings = &mut shape.settings;
    settings.synchronous_mode_strict = false;
    settings.synchronous_gate_timeout = 0;
    settings.synchronous_gate_hold = false;
}

/// Until when each member counts as touched.
struct Touched<'a> {
    shape: &'a Shape,
    until: Vec<Time>,
    switched: Time,
}

impl Touched<'_> {
    fn one(&mut self, member: usize, until: Time) {
        self.until[member] = self.until[member].max(until);
    }

    fn all(&mut self, until: Time) {
        for member in 0..self.until.len() {
            self.one(member, until);
        }
    }

    /// Nobody is touched, and another could take over from this one.
    fn spared(&self, member: usize, at: Time) -> bool {
        let others = self.shape.members.iter().enumerate();
        let leads = |tags: &Tags| !tags.nofailover && !tags.nosync;
        self.until.iter().all(|until| *until <= at)
            && others
                .filter(|(other, _)| *other != member)
                .any(|(_, other)| leads(&other.tags))
    }

    /// It streams from the leader, whoever that is, and may take over.
    fn fit(&self, member: usize, at: Time) -> bool {
        let tags = &self.shape.members[member].tags;
        // In a synchronous mode the `sync` key says who may, and names not all.
        let anybody = self.shape.settings.synchronous_mode == SyncMode::Off;
        anybody && self.until[member] <= at && !tags.nofailover && tags.replicatefrom.is_none()
    }
}

/// The steps of a seed, by time, and the end.
pub(super) fn steps(rng: &mut Rng, shape: &Shape) -> (Vec<Planned>, Time) {
    let pace = rng.range(2 * SEC, 12 * SEC);
    let end = rng.range(120, 180) * SEC;
    let joined = |member: &surus_scenarios::Member| member.tags.joins.0 + REBUILT;
    let mut touched = Touched {
        shape,
        until: shape.members.iter().map(joined).collect(),
        switched: 0,
    };
    let mut steps = Vec::new();
    let mut at = STANDS;
    while {
        at += rng.range(200 * MS, 2 * pace);
        at < end
    } {
        act(rng, at, &mut touched, &mut steps);
    }
    (steps, end + 20 * SEC)
}

fn act(rng: &mut Rng, at: Time, touched: &mut Touched<'_>, steps: &mut Vec<Planned>) {
    let shape = touched.shape;
    let mut plan = |step| steps.push(Planned { at: Nanos(at), step });
    let member = rng.index(shape.members.len());
    let node = Target::Node(shape.members[member].name.clone());
    match rng.below(12) {
        // One wish takes the place of another that is under way.
        0..=5 if touched.switched + SOON.0 <= at => {
            touched.switched = at;
            let named = rng.below(4) != 0;
            let fit = named && touched.fit(member, at);
            let to = named.then(|| node.clone());
            plan(Step::Operator(Operator::Switchover { to }));
            if fit {
                let (is, within) = (node, SOON);
                plan(Step::Expect(Expectation::Primary { is, within }));
            }
            touched.all(at + SETTLED);
        }
        6 | 7 => {
            plan(Step::Operator(Operator::Restart { node }));
            touched.all(at + SETTLED);
        }
        8 => {
            plan(Step::Operator(Operator::Reinit {
                node,
                force: rng.one_in(3),
                from_leader: rng.one_in(2),
            }));
            touched.one(member, at + REBUILT);
        }
        // Who takes the one replica that has everything out leaves those that have less: a person looks first.
        9 | 10 if touched.spared(member, at) => {
            let back = Nanos(rng.range(SEC, 10 * SEC));
            plan(Step::Fault(Fault::Host(HostFault::StopAgent { node, back })));
            touched.all(at + SETTLED);
            touched.one(member, at + back.0 + 2 * SETTLED);
        }
        9 | 10 => {}
        _ => plan(faults::of(
            [Kind::SetTtl, Kind::SetOther][rng.index(2)],
            rng,
            shape,
        )),
    }
}
