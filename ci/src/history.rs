//! What clients saw, and what follows from it: outages, overlaps of primaries, lost writes.
//!
//! Judges only what was acknowledged to clients, never what agents claim of themselves. Pure: no IO, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The row.
    pub id: i64,
    /// When the client had the acknowledgement.
    pub acked: Instant,
    /// The server that took it.
    pub node: Ipv4Addr,
    /// The timeline that the server inserted on.
    pub timeline: u32,
}

/// A write or connection that failed.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// When the client knew.
    pub at: Instant,
    /// What it was told.
    pub what: String,
}

/// All that one client knows.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Its name.
    pub name: String,
    /// Acknowledged writes, in the order of acknowledgement.
    pub acks: Vec<Ack>,
    /// Failures, in order.
    pub troubles: Vec<Trouble>,
    /// How many connections it opened.
    pub connections: u64,
}

/// One look at HAProxy: through the door to the replicas, and at its statistics.
#[derive(Clone, Debug)]
pub struct Look {
    /// When the answer came, or did not.
    pub at: Instant,
    /// The statistics page answered.
    pub statistics: bool,
    /// The server and whether it was in recovery; `None` if there was no answer.
    pub found: Option<(Ipv4Addr, bool)>,
}

/// A silence of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// From one acknowledgement to the next.
    pub length: Duration,
    /// False when no acknowledgement came before the end of the observation: the true outage is longer.
    pub ended: bool,
}

impl Log {
    /// The longest silence that touches the time between `from` and `to`; `None` if nothing was acknowledged before `from`.
    pub fn outage(&self, from: Instant, to: Instant) -> Option<Outage> {
        let mut before = self.acks.iter().rev().find(|ack| ack.acked <= from)?.acked;
        let mut longest = Outage {
            length: Duration::ZERO,
            ended: true,
        };
        for ack in self.acks.iter().filter(|ack| from < ack.acked && ack.acked <= to) {
            longest.length = longest.length.max(ack.acked - before);
            before = ack.acked;
        }
        let rest = to - before;
        Some(if longest.length < rest {
            Outage {
                length: rest,
                ended: false,
            }
        } else {
            longest
        })
    }
}

/// The worst time during which two servers acknowledged writes.
#[derive(Clone, Debug, Default)]
pub struct Overlap {
    /// How long; zero is the only good answer.
    pub length: Duration,
    /// Acknowledgements by the older one after the first by the newer one.
    pub acks: usize,
    /// Who, on which timelines.
    pub who: String,
}

/// One server's reign on one timeline.
struct Reign {
    node: Ipv4Addr,
    timeline: u32,
    acks: Vec<Instant>,
}

fn reigns(logs: &[Log]) -> Vec<Reign> {
    let mut all: BTreeMap<(u32, Ipv4Addr), Vec<Instant>> = BTreeMap::new();
    for ack in logs.iter().flat_map(|log| &log.acks) {
        all.entry((ack.timeline, ack.node)).or_default().push(ack.acked);
    }
    let sorted = |((timeline, node), mut acks): ((u32, Ipv4Addr), Vec<Instant>)| {
        acks.sort_unstable();
        Reign { node, timeline, acks }
    };
    all.into_iter().map(sorted).collect()
}

/// The worst overlap of two servers' reigns.
///
/// A server reigns from its first to its last acknowledgement on a timeline. No two servers may share an instant, whether their
/// timelines differ (split brain) or not (two clones of one primary, which is worse).
pub fn overlap(logs: &[Log]) -> Overlap {
    let reigns = reigns(logs);
    let mut worst = Overlap::default();
    for (i, one) in reigns.iter().enumerate() {
        for other in reigns[i + 1..].iter().filter(|other| other.node != one.node) {
            let ends = |reign: &Reign| (reign.acks[0], reign.acks[reign.acks.len() - 1]);
            let (older, newer) = if ends(one).0 <= ends(other).0 {
                (one, other)
            } else {
                (other, one)
            };
            let (begin, end) = (ends(newer).0, ends(older).1.min(ends(newer).1));
            let length = end.saturating_duration_since(begin);
            if worst.length < length {
                let acks = older.acks.iter().filter(|at| **at >= begin).count();
                let who = format!(
                    "{} (TL {}) and {} (TL {})",
                    older.node, older.timeline, newer.node, newer.timeline
                );
                worst = Overlap { length, acks, who };
            }
        }
    }
    worst
}

/// The timelines on which writes were acknowledged, in order.
pub fn timelines(logs: &[Log]) -> BTreeSet<u32> {
    logs.iter()
        .flat_map(|log| &log.acks)
        .map(|ack| ack.timeline)
        .collect()
}

/// Acknowledged writes that are not among `present`, with the client that has the acknowledgement.
pub fn missing<'a>(logs: &'a [Log], present: &BTreeSet<i64>) -> Vec<(&'a str, &'a Ack)> {
    let acks = logs
        .iter()
        .flat_map(|log| log.acks.iter().map(|ack| (log.name.as_str(), ack)));
    let mut lost: Vec<_> = acks.filter(|(_, ack)| !present.contains(&ack.id)).collect();
    lost.sort_by_key(|(_, ack)| ack.acked);
    lost
}

/// The median; for an even number of values the greater of the two in the middle.
pub fn median(values: &mut [Duration]) -> Option<Duration> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// The value that so many of a hundred do not exceed, by nearest rank; `sorted` begins with the least.
pub fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str, start: Instant, acks: &[(u64, u8, u32)]) -> Log {
        let ack = |(i, (at, node, timeline)): (usize, &(u64, u8, u32))| {
            let acked = start + Duration::from_millis(*at);
            Ack {
                id: i as i64,
                acked,
                node: Ipv4Addr::new(127, 0, 0, *node),
                timeline: *timeline,
            }
        };
        Log {
            name: name.into(),
            acks: acks.iter().enumerate().map(ack).collect(),
            ..Log::default()
        }
    }

    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn an_outage_is_the_longest_silence_around_the_fault() {
        let t = origin();
        let at = |ms| t + Duration::from_millis(ms);
        let log = log(
            "a",
            t,
            &[(0, 1, 1), (20, 1, 1), (700, 2, 2), (720, 2, 2), (740, 2, 2)],
        );
        let outage = log.outage(at(30), at(750)).unwrap();
        assert_eq!(
            outage,
            Outage {
                length: Duration::from_millis(680),
                ended: true
            }
        );
        assert!(!log.outage(at(30), at(2000)).unwrap().ended);
        assert_eq!(
            log.outage(at(730), at(741)).unwrap().length,
            Duration::from_millis(20)
        );
        assert!(Log::default().outage(at(30), at(31)).is_none());
    }

    #[test]
    fn reigns_that_follow_each_other_do_not_overlap() {
        let t = origin();
        let logs = [log("a", t, &[(0, 1, 1), (20, 1, 1), (50, 2, 2), (90, 1, 3)])];
        assert_eq!(overlap(&logs).length, Duration::ZERO);
    }

    #[test]
    fn an_older_timeline_that_goes_on_is_an_overlap() {
        let t = origin();
        let old = log("old", t, &[(0, 1, 1), (20, 1, 1), (120, 1, 1), (130, 1, 1)]);
        let new = log("new", t, &[(100, 2, 2), (300, 2, 2)]);
        let found = overlap(&[new, old]);
        assert_eq!((found.length, found.acks), (Duration::from_millis(30), 2));
        assert!(found.who.starts_with("127.0.0.1 (TL 1)"), "{}", found.who);
    }

    #[test]
    fn two_primaries_on_one_timeline_are_an_overlap() {
        let t = origin();
        let found = overlap(&[
            log("a", t, &[(0, 1, 1), (40, 1, 1)]),
            log("b", t, &[(10, 2, 1), (30, 2, 1)]),
        ]);
        assert_eq!(found.length, Duration::from_millis(20));
    }

    #[test]
    fn a_lost_write_is_named() {
        let t = origin();
        let logs = [log("a", t, &[(0, 1, 1), (20, 1, 1)])];
        let lost = missing(&logs, &BTreeSet::from([0]));
        assert_eq!(
            lost.iter().map(|(name, ack)| (*name, ack.id)).collect::<Vec<_>>(),
            [("a", 1)]
        );
    }

    #[test]
    fn of_twenty_values_one_is_above_the_95th_percentile() {
        let values: Vec<Duration> = (1..=20).map(Duration::from_secs).collect();
        assert_eq!(percentile(&values, 95), Some(Duration::from_secs(19)));
        assert_eq!(percentile(&values[..3], 95), Some(Duration::from_secs(3)));
        assert_eq!(percentile(&values[..3], 50), Some(Duration::from_secs(2)));
        assert_eq!(percentile(&[], 95), None);
    }

    #[test]
    fn the_median_of_five_is_the_third() {
        let mut values = [5, 1, 4, 2, 3].map(Duration::from_secs);
        assert_eq!(median(&mut values), Some(Duration::from_secs(3)));
        assert_eq!(median(&mut []), None);
    }
}
