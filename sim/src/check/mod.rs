//! What must never happen, and what must happen in time: judged from the record alone, never from what agents say of themselves.
//!
//! ```text
//!   Seen ──► Checker ──► Scene     what stands: servers, guards, rights, the lock
//!                   └──► families  each a small state machine over (Scene, Seen) ──► Violation
//! ```
//!
//! | id | file | in a sentence |
//! |---|---|---|
//! | S1 | [`writer`] | one writer: whoever was followed by another acknowledges nothing more; a timeline has one writer |
//! | S2 S3 | [`durability`] | with synchronous replication no acknowledged write is lost; without, no more than was allowed |
//! | S4 S13 | [`fence`] | writes are acknowledged only within a right, and under a guard that will kill in time |
//! | S5 | [`election`] | who takes the lock may be elected at that instant, and nobody who could be has more |
//! | S6 S11 | [`identity`] | a timeline is made once and above all others; a cluster has one identity |
//! | S7 | [`sync`] | whoever may elect meets whoever may acknowledge |
//! | S8 | [`data`] | the last good copy is not given up |
//! | S9 | [`routing`] | only a primary in its right is called one |
//! | S10 | [`slots`] | what a slot keeps is kept, and only for those who may come back |
//! | C1 | [`gate`] | with the gate nobody is let in to see what no standby has |
//! | S12 | [`totality`] | no panic, no order without end |
//! | L1 L3 L4 | [`liveness`] | after the faults a primary, everybody behind it, writes answered: each within its bound |
//! | L2 | [`calm`] | faults below the tolerance move nobody, and nobody stops for a lock that is its own |
//! | L2 | [`reign`] | nobody takes away the key of a leader that has a right |
//! | — | [`history`], [`linear`] | what clients saw could have come from one register |
//!
//! A family sees the [`Scene`] as it was before the entry. It is worth as much as its tests: each has some that show it fails, and
//! some that show it does not fail wrongly.

use surus_scenarios::{Expectation, Step, Story, SyncMode};

use crate::clock::{SEC, Time};
use crate::record::{NodeIndex, Seen};
use ledger::Turn;

pub mod calm;
pub mod data;
pub mod durability;
pub mod election;
pub mod fence;
pub mod gate;
pub mod history;
pub mod identity;
mod invariant;
pub mod ledger;
pub mod linear;
pub mod liveness;
pub mod reign;
pub mod routing;
pub mod scene;
pub mod slots;
pub mod sync;
pub mod totality;
pub mod writer;

#[cfg(test)]
pub(crate) mod made_up;

pub use invariant::{Invariant, Violation};
pub use scene::Scene;

/// An entry of the record that a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// Its serial number.
    pub serial: u64,
    /// When.
    pub at: Time,
    /// At which node.
    pub node: Option<NodeIndex>,
}

/// What a cluster is allowed, and what is asked of it: from its story.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Charter {
    /// Members.
    pub nodes: usize,
    /// Those that may never be elected.
    pub nofailover: Vec<NodeIndex>,
    /// Diverged data may be rewound.
    pub rewind: bool,
    /// Diverged data may be replaced by a clone.
    pub reclone: bool,
    /// A person may order a rebuild in the story.
    pub reinit: bool,
    /// Every acknowledged write is on a standby first.
    pub sync: bool,
    /// From then on only faults below the tolerance: the primary stays.
    pub calm_from: Option<Time>,
    /// The longest time an etcd leader takes to be elected, twice counted in the bound of a failover.
    pub election: Time,
}

impl Charter {
    /// What a story allows and asks for.
    #[must_use]
    pub fn of(story: &Story) -> Self {
        let shape = &story.shape;
        let settings = &shape.settings;
        let by_people = story
            .steps
            .iter()
            .any(|planned| matches!(planned.step, Step::Operator(_)));
        let set = |key: &str| {
            story
                .steps
                .iter()
                .any(|planned| planned.step.to_string().contains(key))
        };
        let stays = story
            .expectations
            .iter()
            .any(|expectation| matches!(expectation, Expectation::NoFailover {}));
        let begins = story.steps.first().map_or(0, |step| step.at.0);
        Self {
            nodes: shape.members.len(),
            nofailover: (0..shape.members.len())
                .filter(|node| shape.members[*node].tags.nofailover)
                .collect(),
            rewind: settings.use_pg_rewind || set("use_pg_rewind"),
            reclone: settings.remove_data_directory_on_diverged_timelines
                || settings.remove_data_directory_on_rewind_failure
                || set("remove_data_directory"),
            reinit: by_people,
            sync: settings.synchronous_mode != SyncMode::Off,
            calm_from: (stays && !by_people).then_some(begins),
            election: ELECTION,
        }
    }
}

/// The longest that etcd takes to elect a leader: its election timeout of one second, drawn up to twice that.
const ELECTION: Time = 2 * SEC;

/// One entry, as the families see it.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The entry.
    pub fact: Fact,
    /// When.
    pub at: Time,
    /// What.
    pub seen: &'a Seen,
    /// What stood before it.
    pub scene: &'a Scene,
    /// What is allowed.
    pub charter: &'a Charter,
}

impl<'a> Moment<'a> {
    /// The same, if this had happened.
    fn but(&self, seen: &'a Seen) -> Self {
        Self { seen, ..*self }
    }

    /// This entry breaks `invariant`, against an earlier one.
    #[must_use]
    pub fn breaks(&self, invariant: Invariant, first: Option<Fact>, text: String) -> Option<Violation> {
        Some(clash(invariant, first, self.fact, text))
    }
}

/// A finding: the later of the two facts is when and where it was seen. What fails to happen in time has no earlier one.
pub(crate) fn clash(invariant: Invariant, first: Option<Fact>, second: Fact, text: String) -> Violation {
    let facts = first
        .into_iter()
        .chain([second])
        .map(|fact| fact.serial)
        .collect();
    Violation {
        invariant,
        text,
        at: second.at,
        node: second.node,
        facts,
    }
}

/// Seconds, for people.
pub(crate) fn seconds(time: Time) -> f64 {
    time as f64 / 1e9
}

/// A member's name, for people.
pub(crate) fn name(node: NodeIndex) -> String {
    format!("n{}", node + 1)
}

#[derive(Debug, Clone, Default)]
struct Families {
    ledger: ledger::Ledger,
    writer: writer::Writer,
    durability: durability::Durability,
    fence: fence::Fence,
    election: election::Election,
    identity: identity::Identity,
    sync: sync::Sync,
    gates: gate::Gates,
    data: data::LastCopy,
    reign: reign::Reign,
    routing: routing::Routing,
    slots: slots::Slots,
    totality: totality::Totality,
    liveness: liveness::Liveness,
    calm: calm::Calm,
    history: history::History,
}

impl Families {
    fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        if let Some(turn) = self.ledger.adopt(moment.scene)
            && let Some(found) = self
                .history
                .see(&moment.but(&Seen::PromotedByHand), &turn, &self.ledger)
        {
            return Some(found);
        }
        let by_client = said_by_client(moment.seen);
        let turn = if by_client {
            Turn::default()
        } else {
            self.ledger.see(moment)
        };
        let found = if by_client {
            None
        } else {
            self.of_servers(moment, &turn)
        };
        found
            .or_else(|| self.calm.see(moment))
            .or_else(|| self.reign.see(moment, &self.calm))
            .or_else(|| self.history.see(moment, &turn, &self.ledger))
            .or_else(|| self.liveness.see(moment))
    }

    /// The families to which it is nothing what clients say.
    fn of_servers(&mut self, moment: &Moment<'_>, turn: &Turn) -> Option<Violation> {
        self.writer
            .see(moment)
            .or_else(|| self.durability.see(moment, &turn.lost, &self.ledger))
            .or_else(|| self.fence.see(moment))
            .or_else(|| self.election.see(moment))
            .or_else(|| self.identity.see(moment))
            .or_else(|| self.sync.see(moment))
            .or_else(|| self.gates.see(moment))
            .or_else(|| self.data.see(moment))
            .or_else(|| self.routing.see(moment))
            .or_else(|| self.slots.see(moment))
            .or_else(|| self.totality.see(moment))
    }
}

/// What clients say of their operations: most of a record, so families to which it is nothing are not asked.
fn said_by_client(seen: &Seen) -> bool {
    matches!(
        seen,
        Seen::WriteAsked { .. } | Seen::WriteEnded { .. } | Seen::ReadAsked { .. } | Seen::ReadEnded { .. }
    )
}

/// Judges a record while it is made. The first violation stands.
#[derive(Debug, Clone, Default)]
pub struct Checker {
    /// The first thing that must not happen and did.
    pub violation: Option<Violation>,
    /// Writes that a server acknowledged.
    pub acks: u64,
    /// Promotions.
    pub promotions: u64,
    /// When a server last acknowledged a write.
    pub last_ack: Time,
    /// One leads whose data was made by hand, and nobody can know: what is lost so, and who follows it, is not judged.
    void: bool,
    charter: Charter,
    scene: Scene,
    count: u64,
    families: Families,
}

impl Checker {
    /// A checker of a cluster with this charter.
    #[must_use]
    pub fn new(charter: Charter) -> Self {
        Self {
            scene: Scene::new(charter.nodes),
            charter,
            ..Self::default()
        }
    }

    /// Something happened; no detail.
    pub fn see(&mut self, at: Time, node: Option<NodeIndex>, seen: &Seen) {
        let serial = self.count;
        self.count += 1;
        match seen {
            Seen::Committed { .. } => {
                self.acks += 1;
                self.last_ack = at;
            }
            Seen::Promoted { .. } => self.promotions += 1,
            _ => {}
        }
        let fact = Fact { serial, at, node };
        if let (Seen::LockTaken { .. }, Some(node)) = (seen, node) {
            self.void |= self.scene.member(node).is_some_and(scene::Member::mistaken);
        }
        if self.violation.is_none() && !self.void {
            let moment = Moment {
                fact,
                at,
                seen,
                scene: &self.scene,
                charter: &self.charter,
            };
            self.violation = self.families.see(&moment);
        }
        self.scene.fold(fact, seen);
    }

    /// The run is over: what clients saw last is judged.
    pub fn finish(&mut self, at: Time) {
        if self.violation.is_none() && !self.void {
            let fact = self.now(at);
            self.violation = self.families.history.finish(fact);
        }
    }

    /// Something else must not happen and did: for what a world sees without a record.
    pub fn fail(&mut self, invariant: Invariant, at: Time, text: String) {
        if self.violation.is_none() {
            self.violation = Some(clash(invariant, None, self.now(at), text));
        }
    }

    /// What stands.
    #[must_use]
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// What is asked of the cluster.
    #[must_use]
    pub fn charter(&self) -> &Charter {
        &self.charter
    }

    /// Why not all is well yet: one primary under the lock, everybody else behind it. `None`: all is well.
    #[must_use]
    pub fn unconverged(&self) -> Option<String> {
        self.scene.unconverged().filter(|_| !self.void)
    }

    fn now(&self, at: Time) -> Fact {
        Fact {
            serial: self.count.saturating_sub(1),
            at,
            node: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made_up::{MadeUp, at};
    use super::*;
    use crate::record::Fate;

    #[test]
    fn what_clients_say_is_nothing_to_the_families_that_are_not_asked() {
        let mut run = MadeUp::leading(3);
        run.replica(1, at(1, 100), 0);
        run.write(0, at(1, 200));
        run.promote(1, at(2, 210));
        let (client, key, value) = (0, 3, 1);
        let mut said = vec![
            Seen::WriteAsked { client, key, value },
            Seen::ReadAsked { client, key },
        ];
        for fate in [Fate::Ok, Fate::Failed, Fate::Unknown] {
            let read = Some(value);
            said.push(Seen::WriteEnded {
                client,
                key,
                value,
                fate,
            });
            said.push(Seen::ReadEnded {
                client,
                key,
                value: read,
                fate,
            });
        }
        let mut families = run.checker.families.clone();
        let before = format!("{families:?}");
        for node in [None, Some(0), Some(1)] {
            for seen in &said {
                assert!(said_by_client(seen));
                let at = run.now + 1000 * SEC;
                let fact = Fact {
                    serial: 1000,
                    at,
                    node,
                };
                let moment = Moment {
                    fact,
                    at,
                    seen,
                    scene: run.checker.scene(),
                    charter: run.checker.charter(),
                };
                let turn = families.ledger.see(&moment);
                assert_eq!(families.of_servers(&moment, &turn), None);
            }
        }
        assert_eq!(
            format!("{families:?}"),
            before,
            "nothing is remembered of them either"
        );
    }
}
