//! Which kinds of faults a seed has, and how often each strikes.

use surus_scenarios::{Shape, Step};

use super::{Temper, faults, traps};
use crate::rng::Rng;

macro_rules! kinds {
    ($($variant:ident = $weight:literal $tempers:ident,)*) => {
        /// A kind of fault, or of what people do.
        #[expect(missing_docs, reason = "the step that it makes says what it is")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($variant,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// How often a seed that has it draws it, before its own weight.
            fn usual(self) -> u64 { match self { $(Self::$variant => $weight,)* } }

            /// In what kind of bad days it may strike.
            fn fits(self, temper: Temper) -> bool { match self { $(Self::$variant => Tempers::$tempers.has(temper),)* } }
        }
    };
}

/// In what kinds of bad days something may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tempers {
    /// In all but mild ones, pauses left out.
    Rough,
    /// In all but mild ones.
    Always,
    /// Only where the cluster is paused now and then.
    Paused,
}

impl Tempers {
    fn has(self, temper: Temper) -> bool {
        match (self, temper) {
            (_, Temper::Mild) => false,
            (Self::Always, _) => true,
            (Self::Rough, _) => temper != Temper::Paused,
            (Self::Paused, _) => temper == Temper::Paused,
        }
    }
}

kinds! {
    KillAgent = 4 Always,
    FreezeAgent = 4 Always,
    SlowAgent = 2 Rough,
    StopAgent = 4 Always,
    KillPostgres = 4 Always,
    FreezePostgres = 3 Rough,
    KillGuard = 3 Always,
    PowerLoss = 3 Always,
    PauseHost = 2 Rough,
    ClockDrift = 1 Rough,
    NoQuorum = 3 Rough,
    NoSpace = 1 Rough,
    SlowEtcd = 3 Rough,
    Elect = 3 Rough,
    LeaseEarly = 4 Always,
    LeaseLate = 1 Rough,
    WatchGap = 3 Rough,
    WatchRepeat = 1 Rough,
    EtcdError = 2 Rough,
    Lose = 3 Rough,
    Delay = 3 Rough,
    CutEtcd = 4 Always,
    CutPeers = 3 Rough,
    CutClients = 1 Rough,
    CutReplicas = 2 Rough,
    Isolate = 4 Always,
    Split = 3 Rough,
    Bridge = 2 Rough,
    SlowLink = 2 Rough,
    SlowStep = 4 Rough,
    FailStep = 3 Rough,
    Switchover = 4 Always,
    Failover = 1 Rough,
    Restart = 3 Always,
    Reinit = 2 Rough,
    PromoteByHand = 1 Rough,
    SetTtl = 1 Rough,
    SetOther = 1 Rough,
    Pause = 12 Paused,
    PauseAndCut = 6 Paused,
    Burst = 2 Rough,
    InAct = 6 Always,
    AfterFact = 5 Rough,
    NearDeadline = 4 Rough,
    SecondFailover = 3 Rough,
}

/// The faults of a seed.
#[derive(Debug)]
pub(super) struct Swarm {
    kinds: Vec<(Kind, u64)>,
    total: u64,
    temper: Temper,
}

impl Swarm {
    pub(super) fn new(rng: &mut Rng, temper: Temper, shape: &Shape) -> Self {
        let alone = shape.members.len() < 2;
        let mut kinds: Vec<(Kind, u64)> = Kind::ALL
            .iter()
            .copied()
            .filter(|kind| kind.fits(temper))
            .filter(|kind| {
                !(alone
                    && matches!(
                        kind,
                        Kind::CutPeers | Kind::CutReplicas | Kind::Split | Kind::Bridge
                    ))
            })
            .filter_map(|kind| {
                let weight = kind.usual() * rng.range(1, 4);
                // Half of what there is, and pauses always where they are the matter.
                let has = rng.one_in(2) || matches!(kind, Kind::Pause | Kind::PauseAndCut);
                has.then_some((kind, weight))
            })
            .collect();
        if kinds.is_empty() {
            kinds.push((Kind::KillAgent, 1));
        }
        let total = kinds.iter().map(|(_, weight)| weight).sum();
        Self { kinds, total, temper }
    }

    /// The next thing that happens: usually one step, for some kinds several, each so long after the first.
    pub(super) fn draw(&self, rng: &mut Rng, shape: &Shape) -> Vec<(u64, Step)> {
        if self.temper == Temper::Mild {
            return vec![(0, faults::mild(rng, shape))];
        }
        let mut left = rng.below(self.total);
        let mut kind = Kind::KillAgent;
        for (candidate, weight) in &self.kinds {
            kind = *candidate;
            if left < *weight {
                break;
            }
            left -= weight;
        }
        match kind {
            Kind::InAct => vec![(0, traps::in_act(rng, shape))],
            Kind::AfterFact => vec![(0, traps::after_fact(rng, shape))],
            Kind::NearDeadline => traps::near_deadline(rng, shape),
            Kind::SecondFailover => traps::second_failover(rng, shape),
            Kind::PauseAndCut => faults::pause_and_cut(rng, shape),
            kind => vec![(0, faults::of(kind, rng, shape))],
        }
    }
}
