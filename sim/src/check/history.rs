//! What clients saw, register by register.
//!
//! A register's history is cut into *eras*. Within an era, what clients were answered must be linearizable ([`super::linear`]): one
//! register that everybody reads and writes on whatever is the primary. An era ends when a primary comes up whose history lacks
//! acknowledged writes of that register (S2 and S3 judge whether it may), or has some again that had been given up; the next begins with the
//! value that the new primary's history has.
//!
//! Beyond that, of single answers:
//! - a write that a client was told is done had been committed by a server after it was asked for;
//! - a write that a client was told certainly had no effect had none, and never gets one.
//!
//! Not counted: a read under way while an era ends (either era's answer is right), a write under way then (it may belong to either), and what is
//! read through a server that a person overruled, or in the instant after a whole host stood still: reads have no record of their
//! server, so an era in which such a thing happened is not judged.
//!
//! Bounded: the cost is that of sorting, and an era is judged in parts of [`PART`] answers and a few, where no operation spans the cut and it is known what the
//! register holds.

use std::collections::BTreeMap;

use super::ledger::{Ledger, Turn};
use super::linear::{self, Op, What};
use super::{Fact, Invariant, Moment, Violation, clash, seconds};
use crate::record::{Fate, Seen};

/// An era is judged when it has grown to so many answers, and goes on with the value it then has.
pub const PART: usize = 4096;

#[derive(Debug, Clone, Default)]
struct Register {
    initial: Option<u64>,
    ops: Vec<(Op, Fact)>,
    /// So many of them are of unknown fate and were kept when the history was last cut.
    kept: usize,
    /// Not judged: something happened that is not counted.
    spoilt: bool,
}

/// The histories of all registers.
#[derive(Debug, Clone, Default)]
pub struct History {
    registers: BTreeMap<u32, Register>,
    /// Writes under way, by their value.
    writes: BTreeMap<u64, (u32, Fact)>,
    /// Reads under way, by client.
    reads: BTreeMap<usize, (u32, Fact)>,
    /// Values that a server committed.
    committed: BTreeMap<u64, Fact>,
    /// Values that clients were told had no effect.
    void: BTreeMap<u64, Fact>,
}

impl History {
    pub(super) fn see(&mut self, moment: &Moment<'_>, turn: &Turn, ledger: &Ledger) -> Option<Violation> {
        if let (Seen::Promoted { .. }, Some(node)) = (moment.seen, moment.fact.node)
            && moment.charter.sync
            && moment.scene.by_word(node)
        {
            // Commits that wait for standbys may have been read, and are given up with those that were acknowledged.
            for register in self.registers.values_mut() {
                register.spoilt = true;
            }
        }
        if !turn.changed.is_empty() {
            return self.era(turn, ledger);
        }
        match moment.seen {
            Seen::WriteAsked { key, value, .. } => {
                self.writes.insert(*value, (*key, moment.fact));
                None
            }
            Seen::Committed { value, .. } => {
                let scene = moment.scene;
                let node = moment.fact.node?;
                if scene.overruled == Some(node) || scene.member(node)?.just_thawed(moment.at) {
                    self.registers
                        .values_mut()
                        .for_each(|register| register.spoilt = true);
                }
                if self.writes.contains_key(value) {
                    self.committed.insert(*value, moment.fact);
                }
                let told = self.void.get(value).copied()?;
                let text =
                    format!("value {value} is committed after its client was told that it had no effect");
                moment.breaks(Invariant::C1, Some(told), text)
            }
            Seen::WriteEnded { value, fate, .. } => self.write_ended(moment, *value, *fate),
            Seen::ReadAsked { client, key } => {
                self.reads.insert(*client, (*key, moment.fact));
                None
            }
            Seen::ReadEnded {
                client, value, fate, ..
            } => {
                let (key, asked) = self.reads.remove(client)?;
                if *fate == Fate::Ok {
                    let what = What::Read(*value);
                    let ended = Some(moment.at);
                    return self.add(
                        key,
                        Op {
                            what,
                            asked: asked.at,
                            ended,
                        },
                        moment,
                    );
                }
                None
            }
            _ => None,
        }
    }

    fn write_ended(&mut self, moment: &Moment<'_>, value: u64, fate: Fate) -> Option<Violation> {
        let (key, asked) = self.writes.remove(&value)?;
        let committed = self.committed.remove(&value);
        let what = What::Write(value);
        let asked_at = asked.at;
        match (fate, committed) {
            (Fate::Ok, None) => {
                let text = format!(
                    "value {value} is acknowledged, and no server has committed it since it was sent"
                );
                moment.breaks(Invariant::C1, Some(asked), text)
            }
            (Fate::Ok, Some(_)) => {
                let ended = Some(moment.at);
                self.add(
                    key,
                    Op {
                        what,
                        asked: asked_at,
                        ended,
                    },
                    moment,
                )
            }
            (Fate::Failed, Some(committed)) => {
                let text =
                    format!("value {value} is said to have had no effect, and a server has committed it");
                moment.breaks(Invariant::C1, Some(committed), text)
            }
            (Fate::Failed, None) => {
                self.void.insert(value, moment.fact);
                None
            }
            (Fate::Unknown, _) => {
                let ended = None;
                self.add(
                    key,
                    Op {
                        what,
                        asked: asked_at,
                        ended,
                    },
                    moment,
                )
            }
        }
    }

    fn add(&mut self, key: u32, op: Op, moment: &Moment<'_>) -> Option<Violation> {
        let register = self.registers.entry(key).or_default();
        register.ops.push((op, moment.fact));
        if register.ops.len() < register.kept + PART {
            return None;
        }
        // The history can be cut in two only where nothing is under way, and after a read that all writes were before: it tells what the
        // register holds.
        let busy =
            self.writes.values().any(|(at, _)| *at == key) || self.reads.values().any(|(at, _)| *at == key);
        let What::Read(value) = op.what else {
            return None;
        };
        let before = |(other, _): &(Op, Fact)| {
            matches!(other.what, What::Read(_)) || other.ended.is_none_or(|ended| ended <= op.asked)
        };
        if busy || !register.ops.iter().all(before) {
            return None;
        }
        let found = register.judge();
        // One of unknown fate may show later.
        register.ops.retain(|(op, _)| op.ended.is_none());
        register.kept = register.ops.len();
        register.initial = value;
        found
    }

    /// The primary's history is another one: the registers whose values that changes begin anew.
    fn era(&mut self, turn: &Turn, ledger: &Ledger) -> Option<Violation> {
        let line = turn.line?;
        let mut found = None;
        for key in turn.changed.iter().copied() {
            let Some(register) = self.registers.get_mut(&key) else {
                continue;
            };
            // What is under way may have had its effect, in this era or in the next.
            let mut unsure = Vec::new();
            for (value, (_, asked)) in self.writes.iter().filter(|(_, (at, _))| *at == key) {
                let what = What::Write(*value);
                let (asked, fact) = (asked.at, *asked);
                unsure.push((
                    Op {
                        what,
                        asked,
                        ended: None,
                    },
                    fact,
                ));
            }
            register.ops.extend(unsure.iter().copied());
            let unknown = register
                .ops
                .iter()
                .filter(|(op, _)| op.ended.is_none())
                .copied()
                .collect();
            found = found.or_else(|| register.judge());
            *register = Register {
                initial: ledger.value(line, key),
                ops: unknown,
                kept: 0,
                spoilt: false,
            };
            self.reads.retain(|_, (at, _)| *at != key);
        }
        found
    }

    /// The run is over.
    pub(super) fn finish(&mut self, _: Fact) -> Option<Violation> {
        let registers = self.registers.iter_mut();
        let mut found = None;
        for (key, register) in registers {
            for (value, (_, asked)) in self.writes.iter().filter(|(_, (at, _))| at == key) {
                let what = What::Write(*value);
                let op = Op {
                    what,
                    asked: asked.at,
                    ended: None,
                };
                register.ops.push((op, *asked));
            }
            found = found.or_else(|| register.judge());
        }
        found
    }
}

impl Register {
    fn judge(&self) -> Option<Violation> {
        if self.spoilt {
            return None;
        }
        let ops: Vec<Op> = self.ops.iter().map(|(op, _)| *op).collect();
        let found = linear::judge(self.initial, &ops).err()?;
        let (one, other) = (
            found.one.and_then(|index| self.ops.get(index)),
            self.ops.get(found.other)?,
        );
        let (first, second) = match one {
            Some(one) if one.1 <= other.1 => (Some(one), other),
            Some(one) => (Some(other), one),
            None => (None, other),
        };
        let describe = |(op, _): &(Op, Fact)| {
            let what = match op.what {
                What::Write(value) => format!("the write of {value}"),
                What::Read(Some(value)) => format!("the read of {value}"),
                What::Read(None) => "the read of nothing".to_owned(),
            };
            let ended = op.ended.map_or_else(
                || "unknown".to_owned(),
                |ended| format!("{:.4} s", seconds(ended)),
            );
            format!("{what} ({:.4} s to {ended})", seconds(op.asked))
        };
        let text = match first {
            Some(first) => format!(
                "no single register answers {} and {}",
                describe(first),
                describe(second)
            ),
            None => format!("nobody wrote what {} shows", describe(second)),
        };
        Some(clash(Invariant::C1, first.map(|(_, fact)| *fact), second.1, text))
    }
}

#[cfg(test)]
mod tests {
    use surus_core::types::SystemId;
    use surus_core::view::Initialize;

    use super::super::made_up::{MadeUp, at};
    use super::*;
    use crate::record::Standing;

    /// A write by client 0 that a server commits.
    fn wrote(run: &mut MadeUp, node: usize, value: u64, standing: Standing, fate: Fate) {
        run.see(
            None,
            Seen::WriteAsked {
                client: 0,
                key: 3,
                value,
            },
        );
        run.later(1);
        run.see(
            Some(node),
            Seen::Committed {
                key: 3,
                value,
                standing,
            },
        );
        run.later(1);
        run.see(
            None,
            Seen::WriteEnded {
                client: 0,
                key: 3,
                value,
                fate,
            },
        );
        run.later(1);
    }

    fn reads(run: &mut MadeUp, value: Option<u64>) {
        run.see(None, Seen::ReadAsked { client: 1, key: 3 });
        run.later(1);
        let fate = Fate::Ok;
        run.see(
            None,
            Seen::ReadEnded {
                client: 1,
                key: 3,
                value,
                fate,
            },
        );
        run.later(1);
    }

    fn finished(mut run: MadeUp) -> Option<Invariant> {
        run.checker.finish(run.now);
        run.checker.violation.map(|found| found.invariant)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut run = MadeUp::leading(2);
        reads(&mut run, None);
        wrote(&mut run, 0, 1, at(1, 200), Fate::Ok);
        reads(&mut run, Some(1));
        assert_eq!(finished(run), None);
    }

    #[test]
    fn a_history_is_cut_where_it_is_known_what_the_register_holds() {
        for (shows, found) in [(0, None), (1, Some(Invariant::C1))] {
            let mut run = MadeUp::leading(1);
            run.arm(0, 600_000);
            run.right(0, 600_000);
            let last = PART as u64 + 1;
            for value in 1..=last {
                wrote(&mut run, 0, value, at(1, 200 + value), Fate::Ok);
            }
            // The first read is where it is cut; the next is judged by what it showed.
            reads(&mut run, Some(last));
            reads(&mut run, Some(last - shows));
            assert_eq!(finished(run), found);
        }
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut run = MadeUp::leading(2);
        wrote(&mut run, 0, 1, at(1, 200), Fate::Ok);
        wrote(&mut run, 0, 2, at(1, 210), Fate::Ok);
        reads(&mut run, Some(1));
        assert_eq!(finished(run), Some(Invariant::C1));
    }

    #[test]
    fn an_allowed_loss_begins_a_new_era() {
        let mut run = MadeUp::leading(2);
        wrote(&mut run, 0, 1, at(1, 200), Fate::Ok);
        wrote(&mut run, 0, 2, at(1, 210), Fate::Ok);
        reads(&mut run, Some(2));
        run.promote(1, at(2, 215));
        reads(&mut run, Some(1));
        wrote(&mut run, 1, 3, at(2, 230), Fate::Ok);
        reads(&mut run, Some(3));
        assert_eq!(finished(run), None);
    }

    #[test]
    fn the_history_is_that_of_the_cluster_which_got_a_name() {
        // The one of before was not finished.
        let named = SystemId(8);
        let of = |standing: Standing| Standing {
            system_id: named,
            ..standing
        };
        let mut run = MadeUp::leading(2);
        run.primary(0, of(at(1, 100)));
        let to = Some(Initialize::Done(named));
        run.see(Some(0), Seen::InitializeWritten { to });
        wrote(&mut run, 0, 1, of(at(1, 200)), Fate::Ok);
        wrote(&mut run, 0, 2, of(at(1, 210)), Fate::Ok);
        run.promote(1, of(at(2, 215)));
        reads(&mut run, Some(1));
        assert_eq!(finished(run), None);
    }

    #[test]
    fn a_write_that_survived_is_read_in_the_next_era() {
        let mut run = MadeUp::leading(2);
        wrote(&mut run, 0, 1, at(1, 200), Fate::Ok);
        wrote(&mut run, 0, 2, at(1, 210), Fate::Ok);
        run.promote(1, at(2, 220));
        reads(&mut run, Some(1));
        assert_eq!(finished(run), Some(Invariant::C1));
    }

    #[test]
    fn an_acknowledgement_out_of_nowhere_is_found() {
        let mut run = MadeUp::leading(2);
        run.see(
            None,
            Seen::WriteAsked {
                client: 0,
                key: 3,
                value: 9,
            },
        );
        let fate = Fate::Ok;
        run.see(
            None,
            Seen::WriteEnded {
                client: 0,
                key: 3,
                value: 9,
                fate,
            },
        );
        assert_eq!(finished(run), Some(Invariant::C1));
    }

    #[test]
    fn what_failed_for_certain_has_no_effect() {
        let mut run = MadeUp::leading(2);
        wrote(&mut run, 0, 1, at(1, 200), Fate::Failed);
        assert_eq!(finished(run), Some(Invariant::C1));
        let mut run = MadeUp::leading(2);
        wrote(&mut run, 0, 1, at(1, 200), Fate::Unknown);
        reads(&mut run, Some(1));
        assert_eq!(finished(run), None);
    }
}
