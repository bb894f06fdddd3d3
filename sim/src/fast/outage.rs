//! How long a client goes without, for the five faults of the demo on real clusters: the same cluster, the same client, the same fault.
//!
//! The real figures (three members on one machine, defaults, `surus-ci`, medians and ranges of 2026-11) are in [`Demo::real`]. The
//! client writes every 20 ms, finds the primary as libpq does, gives up a connection attempt after 0.5 s and a write after 1 s.
//! None of the model's durations was chosen to meet those figures; where each comes from is said beside it.

use surus_scenarios::{
    End, Fault, HostFault, Nanos, NetFault, Operator, PostgresFault, Shape, Strike, Target, World as _,
};

use crate::clock::{MS, SEC, Time};
use crate::fast::world::World;
use crate::record::Keep;
use crate::rng::Rng;

/// A fault of the demo, at the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demo {
    /// The agent is told to end.
    Stop,
    /// A person asks for a switchover.
    Switchover,
    /// SIGKILL to the postmaster.
    Postgres,
    /// SIGKILL to agent, guard and PostgreSQL.
    Both,
    /// Everything on the host dies and its address falls silent.
    Host,
}

impl Demo {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Stop,
        Self::Switchover,
        Self::Postgres,
        Self::Both,
        Self::Host,
    ];

    /// Its name in the demo.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Switchover => "switchover",
            Self::Postgres => "postgres",
            Self::Both => "both",
            Self::Host => "host",
        }
    }

    /// What a direct client of the real cluster saw: median, shortest, longest.
    #[must_use]
    pub fn real(self) -> (Time, Time, Time) {
        let (median, shortest, longest) = match self {
            Self::Stop => (130, 120, 310),
            Self::Switchover => (160, 120, 180),
            Self::Postgres => (260, 160, 720),
            Self::Both => (4710, 4280, 5010),
            Self::Host => (4830, 4750, 5340),
        };
        (median * MS, shortest * MS, longest * MS)
    }

    fn strikes(self) -> Vec<Strike> {
        let node = Target::Leader;
        let host = |fault| Strike::Fault(Fault::Host(fault));
        match self {
            Self::Stop => vec![host(HostFault::StopAgent {
                node,
                back: Nanos::FOREVER,
            })],
            Self::Switchover => vec![Strike::Operator(Operator::Switchover { to: None })],
            Self::Postgres => vec![Strike::Fault(Fault::Postgres(PostgresFault::KillPostgres {
                node,
            }))],
            Self::Both => vec![
                host(HostFault::KillAgent {
                    node: node.clone(),
                    back: Nanos::FOREVER,
                }),
                host(HostFault::KillGuard { node }),
            ],
            Self::Host => vec![
                Strike::Fault(Fault::Net(NetFault::Cut {
                    a: End::Node(node.clone()),
                    b: End::All,
                    way: surus_scenarios::Way::Both,
                    span: Nanos::FOREVER,
                })),
                host(HostFault::PowerLoss {
                    node,
                    back: Nanos::FOREVER,
                }),
            ],
        }
    }
}

/// The longest silence of a direct client around the fault, for each seed; sorted. A run without an end of the silence counts as the 30 s
/// for which it is watched.
#[must_use]
pub fn outages(demo: Demo, seeds: std::ops::Range<u64>) -> Vec<Time> {
    let mut outages: Vec<Time> = seeds.map(|seed| outage(demo, seed)).collect();
    outages.sort_unstable();
    outages
}

fn outage(demo: Demo, seed: u64) -> Time {
    let shape = Shape::of(3);
    let mut world = World::new(seed, &shape, Keep::Hash);
    // All processes of the real cluster are on one machine: its network is loopback.
    world.net.between = Some(crate::net::LOCAL);
    let begin = 20 * SEC + Rng::new(seed, 3).below(5 * SEC);
    world.run_until(begin);
    for strike in demo.strikes() {
        let _ = match &strike {
            Strike::Fault(fault) => world.strike(fault),
            Strike::Operator(act) => world.operate(act),
        };
    }
    world.run_until(begin + 30 * SEC);
    world.record.witness.outage(begin, world.now, Some(0), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_of_the_real_clusters_order() {
        for demo in Demo::ALL {
            let outages = outages(*demo, 0..15);
            let (median, real) = (outages[7], demo.real().0);
            assert!(
                real / 2 < median && median < 2 * real,
                "{demo:?}: {median} ns, really {real} ns"
            );
        }
    }
}
