//! One number from proptest becomes a whole fact.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use surus_core::Order;
use surus_core::config::Config;
use surus_core::input::Outcome;
use surus_core::sync::{Gate, Mode, Names, Settings, SyncKey};
use surus_core::types::*;
use surus_core::view::*;

/// A small generator (splitmix64): one number from proptest becomes a whole fact.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    pub(crate) fn name(&mut self) -> NodeName {
        ["a", "b", "c"][self.roll(3) as usize].into()
    }

    pub(crate) fn lsn(&mut self) -> Lsn {
        Lsn(self.roll(6) * 100)
    }

    pub(crate) fn timeline(&mut self) -> Timeline {
        Timeline(1 + self.roll(3) as u32)
    }

    fn fork(&mut self) -> Fork {
        Fork {
            from: Timeline(self.roll(4) as u32),
            at: Lsn(self.roll(400)),
        }
    }

    pub(crate) fn maybe<T>(&mut self, n: u64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.one_in(n)).then(|| make(self))
    }

    pub(crate) fn history(&mut self) -> Vec<HistoryLine> {
        (0..self.roll(3) as u32)
            .map(|n| HistoryLine {
                timeline: Timeline(n + 1),
                switch: self.lsn(),
                reason: String::new(),
                at: None,
                leader: None,
            })
            .collect()
    }

    pub(crate) fn member(&mut self, name: &NodeName) -> Member {
        Member {
            conn_url: if self.one_in(9) {
                String::new()
            } else {
                format!("postgres://{name}:5432/postgres")
            },
            api_url: if self.one_in(9) {
                String::new()
            } else {
                format!("http://{name}:8008/patroni")
            },
            state: ["running", "stopped", "crashed", "starting"][self.roll(4) as usize].to_owned(),
            role: ["primary", "replica", "uninitialized"][self.roll(3) as usize].to_owned(),
            position: self.maybe(4, Self::lsn),
            timeline: self.maybe(4, Self::timeline),
            checkpoint_after_promote: if self.one_in(4) { Some(false) } else { None },
            nofailover: self.one_in(6),
            failover_priority: 1,
            clonefrom: self.one_in(6),
            replicatefrom: None,
            nostream: self.one_in(9),
            nosync: self.one_in(9),
            sync_priority: 1,
            surus: true,
            pause: false,
        }
    }

    pub(crate) fn view(&mut self) -> ClusterView {
        let members: BTreeSet<NodeName> = (0..self.roll(4)).map(|_| self.name()).collect();
        let members = members
            .into_iter()
            .map(|name| {
                let member = self.member(&name);
                (name, Arc::new(member))
            })
            .collect();
        ClusterView {
            revision: Revision(self.roll(60) as i64),
            term: Term(self.roll(3)),
            initialize: match self.roll(8) {
                0 => None,
                1 => Some(Initialize::InProgress),
                2 => Some(Initialize::Garbage),
                3 => Some(Initialize::Done(SystemId(2))),
                _ => Some(Initialize::Done(SystemId(1))),
            },
            config_revision: self.maybe(5, |dice| Revision(dice.roll(5) as i64)),
            leader: self.maybe(2, |dice| LeaderKey {
                name: dice.name(),
                lease: dice.maybe(5, |dice| LeaseId(dice.roll(4) as i64)),
                created: Revision(dice.roll(9) as i64),
            }),
            members,
            status: self
                .maybe(5, |dice| Status {
                    optime: dice.lsn(),
                    slots: BTreeMap::new(),
                    retain_slots: BTreeSet::new(),
                    ttl: dice.maybe(2, |dice| Duration::from_secs(1 + dice.roll(9))),
                    timeline: dice.maybe(2, Self::timeline),
                    forks: (0..dice.roll(3)).map(|_| dice.fork()).collect(),
                    next: dice.maybe(2, Self::timeline),
                    vacated: dice.maybe(2, Self::name),
                    unfenced: if dice.one_in(5) { Some(dice.name()) } else { None },
                })
                .map(Arc::new),
            status_revision: Revision(self.roll(9) as i64),
            failover: self.maybe(2, |dice| FailoverKey {
                leader: dice.maybe(2, Self::name),
                candidate: dice.maybe(2, Self::name),
                due: match dice.roll(5) {
                    0 => Due::In(Duration::from_secs(3)),
                    1 => Due::Stale,
                    _ => Due::Now,
                },
                revision: Revision(dice.roll(5) as i64),
            }),
            history: Arc::new(self.history()),
            failsafe: self.maybe(2, |dice| {
                let names: BTreeSet<NodeName> = (0..dice.roll(4)).map(|_| dice.name()).collect();
                let addresses = names.into_iter().map(|name| (name, "http://x".to_owned()));
                Arc::new(addresses.collect())
            }),
            failover_revision: Revision(self.roll(5) as i64),
            failsafe_revision: Revision(self.roll(5) as i64),
            sync: self.maybe(3, |dice| Arc::new(dice.sync_key())),
            sync_revision: Revision(self.roll(5) as i64),
        }
    }

    fn sync_key(&mut self) -> SyncKey {
        SyncKey {
            leader: self.name(),
            voters: (0..self.roll(4)).map(|_| self.name()).collect(),
            quorum: self.roll(3) as usize,
        }
    }

    fn names(&mut self) -> Names {
        match self.roll(4) {
            0 => Names::Alone,
            1 => Names::Foreign("*".to_owned()),
            number => {
                let of = (0..self.roll(4)).map(|_| self.name()).collect();
                Names::some(self.one_in(2), number as usize - 1, of)
            }
        }
    }

    fn standby(&mut self) -> Standby {
        Standby {
            streaming: !self.one_in(4),
            position: self.lsn(),
            doubled: self.one_in(9),
        }
    }

    pub(crate) fn server(&mut self) -> Server {
        Server {
            role: if self.one_in(2) {
                ServerRole::Primary { written: self.lsn() }
            } else {
                ServerRole::Replica {
                    received: self.maybe(3, Self::lsn),
                    replayed: self.lsn(),
                    streaming: self.one_in(2),
                }
            },
            timeline: self.timeline(),
            system_id: SystemId(1),
            version: 150_018,
            guarded: !self.one_in(4),
            standbys: (0..self.roll(3))
                .map(|_| (self.name().0, self.standby()))
                .collect(),
            synchronous: self.names(),
            managed: self.one_in(2),
            gated: self.one_in(8),
            slots: BTreeMap::new(),
            history: self.history(),
            upstream: self.maybe(2, |dice| format!("{}:5432", dice.name())),
            slot: self.maybe(2, |dice| dice.name().0),
            heard_of: self.one_in(4).then(|| self.timeline()),
        }
    }

    pub(crate) fn postgres(&mut self) -> PostgresView {
        let states = [
            ControlState::ShutDown,
            ControlState::ShutDownInRecovery,
            ControlState::InProduction,
            ControlState::InArchiveRecovery,
            ControlState::InCrashRecovery,
            ControlState::ShuttingDown,
        ];
        PostgresView {
            data: match self.roll(9) {
                0 => DataDir::Empty,
                1 => DataDir::Incomplete("half a base backup".to_owned()),
                2 => DataDir::Unusable("no permission".to_owned()),
                _ => DataDir::Present(ControlData {
                    system_id: SystemId(if self.one_in(20) { 2 } else { 1 }),
                    state: states[self.roll(6) as usize],
                    timeline: self.timeline(),
                    position: self.lsn(),
                    rewindable: self.one_in(2),
                    fork: self.maybe(3, Self::fork),
                }),
            },
            process: match self.roll(6) {
                0 | 1 => Process::Absent,
                2 => Process::Starting {
                    as_primary: self.one_in(2),
                },
                3 => Process::Unresponsive {
                    may_write: self.one_in(2),
                },
                _ => Process::Running(self.server()),
            },
        }
    }

    pub(crate) fn peer(&mut self) -> PeerStatus {
        PeerStatus {
            running: !self.one_in(4),
            primary: self.one_in(4),
            position: self.maybe(4, Self::lsn),
            timeline: self.maybe(4, Self::timeline),
            nofailover: self.one_in(6),
            failover_priority: 1,
            stands: self.maybe(4, Self::timeline),
            can_take_lock: self.maybe(3, |dice| dice.one_in(2)),
        }
    }

    pub(crate) fn config(&mut self) -> Config {
        Config {
            ttl: Duration::from_secs([2, 5, 30][self.roll(3) as usize]),
            pause: self.one_in(3),
            nofailover: self.one_in(8),
            use_pg_rewind: self.one_in(2),
            reclone_on_divergence: self.one_in(2),
            reclone_on_rewind_failure: self.one_in(2),
            primary_start_timeout: Duration::from_secs([0, 10, 300][self.roll(3) as usize]),
            failsafe_mode: !self.one_in(3),
            synchronous: Settings {
                mode: [Mode::Off, Mode::On, Mode::Quorum][self.roll(3) as usize],
                strict: self.one_in(3),
                count: 1 + self.roll(2) as usize,
                maximum_lag: self.maybe(2, |dice| dice.roll(100)),
                gate: self.maybe(3, |dice| Gate {
                    bound: Duration::from_secs(dice.roll(20)),
                    hold: dice.one_in(2),
                }),
            },
            ..Config::new("a".into())
        }
    }

    /// An answer of the right kind for `order`, or none, or one of the wrong kind.
    pub(crate) fn outcome(&mut self, now: MonoTime, order: &Order) -> Outcome {
        let sent = now.minus(Duration::from_millis(self.roll(3000)));
        match self.roll(12) {
            0 => return Outcome::Failed("no".to_owned()),
            1 => return Outcome::Unknown("perhaps".to_owned()),
            2 => return Outcome::Refused("too old".to_owned()),
            3 => return Outcome::Ok,
            4 => {
                return Outcome::NotLocked {
                    holder: self.maybe(2, Self::name),
                };
            }
            _ => {}
        }
        match order {
            Order::Acquire { .. } | Order::Renew { .. } => Outcome::Locked {
                sent,
                lease: LeaseId(self.roll(4) as i64),
                term: Term(1),
                revision: Revision(self.roll(70) as i64),
                written: self.maybe(5, |dice| Revision(dice.roll(70) as i64)),
            },
            Order::WriteSync { .. } => Outcome::Written {
                revision: Revision(self.roll(70) as i64),
            },
            Order::ReadCluster => Outcome::Read {
                sent,
                view: self.view(),
            },
            Order::Probe => Outcome::Probed {
                at: now.minus(Duration::from_millis(self.roll(50))),
                view: self.postgres(),
            },
            Order::Stop { .. } => Outcome::Stopped {
                checkpoint: self.maybe(2, Self::lsn),
            },
            Order::Bootstrap { .. } => Outcome::Bootstrapped {
                system_id: SystemId(1 + self.roll(2)),
            },
            Order::CompareHistory { .. } => Outcome::Ancestry {
                timeline: self.timeline(),
                history: self.history(),
            },
            Order::AskFailsafe { voters, .. } => Outcome::Failsafe {
                sent,
                granted: voters.keys().filter(|_| !self.one_in(4)).cloned().collect(),
                refused: BTreeSet::new(),
            },
            _ => Outcome::Ok,
        }
    }
}
