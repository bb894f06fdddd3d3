//! Could these reads and writes have come from one register, each having its effect at one instant while it was under way?
//!
//! In general that takes a search; with values that are written once each it can be read off (Gibbons and Korach, 1997). All operations
//! on one value form a *zone*, from the first end to the last beginning among them. If the first end comes first, the register held that value
//! all through the zone, and no two such zones may overlap. If not, all of them were under way at one instant, and it may be the one instant:
//! but not if another value was held all the while.

use std::collections::BTreeMap;

use crate::clock::Time;

/// An operation, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// What.
    pub what: What,
    /// When it was asked for.
    pub asked: Time,
    /// When it was answered. `None`, for a write: not known, so it may have its effect at any time from `asked` on, or never.
    pub ended: Option<Time>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Writes a value that nothing else writes.
    Write(u64),
    /// Reads a value; `None`: never written.
    Read(Option<u64>),
}

/// Two operations (by their index) that one register cannot have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clash {
    /// The one whose value stood in the way.
    pub one: Option<usize>,
    /// The other.
    pub other: usize,
}

#[derive(Debug, Clone, Copy)]
struct Zone {
    /// When the write was asked for; zero for what was there before.
    written: Time,
    first_end: Time,
    last_begin: Time,
    /// The write is known to have had its effect, by its own answer or by a read of its value.
    sure: bool,
    /// The operation that ends first, and the one that begins last.
    witnesses: (Option<usize>, Option<usize>),
}

impl Zone {
    fn add(&mut self, index: usize, asked: Time, ended: Time) {
        self.sure = true;
        if ended < self.first_end {
            self.first_end = ended;
            self.witnesses.0 = Some(index);
        }
        if self.last_begin <= asked {
            self.last_begin = asked;
            self.witnesses.1 = Some(index);
        }
    }

    fn forward(&self) -> bool {
        self.first_end < self.last_begin
    }
}

/// Judges the history of a register that held `initial` before all of it.
///
/// # Errors
///
/// Two operations that clash.
pub fn judge(initial: Option<u64>, ops: &[Op]) -> Result<(), Clash> {
    let before = Zone {
        written: 0,
        first_end: 0,
        last_begin: 0,
        sure: true,
        witnesses: (None, None),
    };
    let mut zones = BTreeMap::from([(initial, before)]);
    for (index, op) in ops.iter().enumerate() {
        if let What::Write(value) = op.what {
            let zone = Zone {
                written: op.asked,
                first_end: op.ended.unwrap_or(Time::MAX),
                last_begin: op.asked,
                sure: op.ended.is_some(),
                witnesses: (Some(index), Some(index)),
            };
            zones.insert(Some(value), zone);
        }
    }
    for (index, op) in ops.iter().enumerate() {
        let (What::Read(value), Some(ended)) = (op.what, op.ended) else {
            continue;
        };
        let zone = zones.get_mut(&value).ok_or(Clash {
            one: None,
            other: index,
        })?;
        if ended < zone.written {
            return Err(Clash {
                one: zone.witnesses.0,
                other: index,
            });
        }
        zone.add(index, op.asked, ended);
    }
    // A write that nobody is sure of and nobody read need not have been.
    let zones: Vec<Zone> = zones.into_values().filter(|zone| zone.sure).collect();
    let mut held: Vec<Zone> = zones.iter().filter(|zone| zone.forward()).copied().collect();
    held.sort_by_key(|zone| (zone.first_end, zone.last_begin));
    for pair in held.windows(2) {
        if let [one, other] = pair
            && other.first_end < one.last_begin
        {
            return Err(Clash {
                one: one.witnesses.1.or(one.witnesses.0),
                other: other.witnesses.0.or(other.witnesses.1).unwrap_or_default(),
            });
        }
    }
    for zone in zones.iter().filter(|zone| !zone.forward()) {
        let before = held.partition_point(|held| held.first_end < zone.last_begin);
        let around = before.checked_sub(1).and_then(|index| held.get(index));
        if let Some(around) = around.filter(|around| zone.first_end < around.last_begin) {
            return Err(Clash {
                one: around.witnesses.1,
                other: zone.witnesses.0.or(zone.witnesses.1).unwrap_or_default(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rng::Rng;

    fn write(value: u64, asked: Time, ended: Time) -> Op {
        let ended = Some(ended);
        let what = What::Write(value);
        Op { what, asked, ended }
    }

    fn read(value: u64, asked: Time, ended: Time) -> Op {
        let ended = Some(ended);
        let what = What::Read((value != 0).then_some(value));
        Op { what, asked, ended }
    }

    fn lost(value: u64, asked: Time) -> Op {
        let what = What::Write(value);
        Op {
            what,
            asked,
            ended: None,
        }
    }

    fn good(ops: &[Op]) -> bool {
        judge(None, ops).is_ok()
    }

    #[test]
    fn known_good_histories() {
        assert!(good(&[]));
        assert!(good(&[read(0, 1, 2), write(1, 3, 4), read(1, 5, 6)]));
        // The read is under way with the write: either value will do.
        assert!(good(&[write(1, 1, 9), read(0, 2, 3), read(1, 4, 5)]));
        // A write of unknown fate shows up late.
        assert!(good(&[lost(1, 1), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7)]));
        // Or never.
        assert!(good(&[lost(1, 1), write(2, 2, 3), read(2, 4, 5)]));
        // Two writes at once, in either order.
        assert!(good(&[write(1, 1, 9), write(2, 1, 9), read(2, 10, 11)]));
        assert!(judge(Some(7), &[read(7, 1, 2)]).is_ok());
    }

    #[test]
    fn known_bad_histories() {
        // A value out of nowhere.
        assert!(!good(&[read(1, 1, 2)]));
        // Read before it was written.
        assert!(!good(&[read(1, 1, 2), write(1, 3, 4)]));
        // A stale read.
        assert!(!good(&[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]));
        // An acknowledged write that is gone.
        assert!(!good(&[write(1, 1, 2), read(0, 3, 4)]));
        // Back and forth.
        assert!(!good(&[
            write(1, 1, 9),
            write(2, 1, 9),
            read(1, 10, 11),
            read(2, 12, 13)
        ]));
        // New, then old, while the write is still under way.
        assert!(!good(&[write(1, 1, 9), read(1, 2, 3), read(0, 4, 5)]));
        assert!(judge(Some(7), &[write(1, 1, 2), read(7, 3, 4)]).is_err());
    }

    #[test]
    fn the_clash_names_who_stood_in_the_way() {
        let clash = judge(
            None,
            &[write(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8)],
        )
        .unwrap_err();
        assert!(clash.one.is_some());
        assert!([0, 1, 2, 3].contains(&clash.other));
    }

    /// Tries every order (Wing and Gong), remembering what has been tried (Lowe): which operations are done, and the value.
    fn search(initial: Option<u64>, ops: &[Op]) -> bool {
        fn go(value: Option<u64>, done: u32, ops: &[Op], seen: &mut BTreeSet<(Option<u64>, u32)>) -> bool {
            let open = |index: &usize| done & 1 << index == 0;
            let left: Vec<usize> = (0..ops.len()).filter(open).collect();
            if left.iter().all(|index| ops[*index].ended.is_none()) {
                return true;
            }
            if !seen.insert((value, done)) {
                return false;
            }
            let first_end = left.iter().filter_map(|index| ops[*index].ended).min().unwrap();
            left.iter().any(|index| {
                let op = ops[*index];
                if first_end < op.asked {
                    return false;
                }
                let value = match op.what {
                    What::Write(new) => Some(new),
                    What::Read(read) if read == value => value,
                    What::Read(_) => return false,
                };
                go(value, done | 1 << index, ops, seen)
            })
        }
        go(initial, 0, ops, &mut BTreeSet::new())
    }

    #[test]
    fn the_zones_agree_with_the_search() {
        let (mut bad, mut fine) = (0, 0);
        for seed in 0..20_000 {
            let mut rng = Rng::new(seed, 77);
            let ops: Vec<Op> = (1..=2 + rng.below(6))
                .map(|number| {
                    let asked = 1 + rng.below(40) * 2;
                    let ended = asked + 1 + rng.below(12) * 2;
                    match rng.below(5) {
                        0 | 1 => write(number, asked, ended),
                        2 => lost(number, asked),
                        _ => read(rng.below(number), asked, ended),
                    }
                })
                .collect();
            let (zones, tried) = (judge(None, &ops).is_ok(), search(None, &ops));
            assert_eq!(zones, tried, "seed {seed}: {ops:?}");
            *if tried { &mut fine } else { &mut bad } += 1;
        }
        assert!(1000 < bad && 1000 < fine, "{bad} bad, {fine} fine");
    }
}
