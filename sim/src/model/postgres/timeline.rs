//! Timelines: the history files that say where each forked off, and the numbers that a promotion counts by.

use std::collections::BTreeMap;

use surus_core::types::{Lsn, Timeline};
use surus_core::view::HistoryLine;

/// One line of a history file: this timeline ended there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fork {
    /// The timeline that ended.
    pub timeline: u32,
    /// Where its successor forked off.
    pub at: u64,
}

/// The history files of a data directory by timeline. An empty one is a placeholder: it reserves a number and says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histories(BTreeMap<u32, Vec<Fork>>);

impl Histories {
    /// There is a file for this timeline.
    #[must_use]
    pub fn has(&self, timeline: u32) -> bool {
        self.0.contains_key(&timeline)
    }

    /// The ancestry of a timeline: empty for the first, for one without a file and for a placeholder.
    #[must_use]
    pub fn of(&self, timeline: u32) -> &[Fork] {
        self.0.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// The same as the agent reads it.
    #[must_use]
    pub fn lines(&self, timeline: u32) -> Vec<HistoryLine> {
        self.of(timeline)
            .iter()
            .map(|fork| HistoryLine {
                timeline: Timeline(fork.timeline),
                switch: Lsn(fork.at),
                reason: "no recovery target specified".to_owned(),
                at: None,
                leader: None,
            })
            .collect()
    }

    /// Writes a file.
    pub fn write(&mut self, timeline: u32, forks: Vec<Fork>) {
        self.0.insert(timeline, forks);
    }

    /// Reserves every number up to `above` that has no file, above `own`.
    pub fn reserve(&mut self, own: u32, above: u32) {
        for timeline in own + 1..=above {
            self.0.entry(timeline).or_default();
        }
    }

    /// Removes the files of timelines after `own`, the last that WAL is here of: left by promotions that came to nothing, here or elsewhere.
    /// The first that came of `own` says how that began, where a placeholder stood for it.
    pub fn sweep(&mut self, own: u32) {
        if self.0.get(&own).is_some_and(Vec::is_empty)
            && let Some((_, forks)) = self
                .0
                .range(own + 1..)
                .find(|(_, forks)| forks.iter().any(|fork| fork.timeline == own))
        {
            let before = forks.iter().filter(|fork| fork.timeline < own).copied().collect();
            self.write(own, before);
        }
        self.0.retain(|timeline, _| *timeline <= own);
    }

    /// The newest timeline, counted from `from` as long as there is a file: what a standby takes for its target, and a promotion
    /// counts on from.
    #[must_use]
    pub fn newest(&self, from: u32) -> u32 {
        let mut newest = from;
        while self.has(newest + 1) {
            newest += 1;
        }
        newest
    }

    /// Where `timeline` ended in the ancestry of `target`: nowhere, if it is the target itself; `None` if it is no ancestor.
    #[must_use]
    pub fn switch(&self, timeline: u32, target: u32) -> Option<u64> {
        if timeline == target {
            return Some(u64::MAX);
        }
        let fork = self.of(target).iter().find(|fork| fork.timeline == timeline);
        fork.map(|fork| fork.at)
    }

    /// The timelines after `timeline` that lead to `target`, oldest first, each with where it begins.
    #[must_use]
    pub fn path(&self, timeline: u32, target: u32) -> Vec<(u32, u64)> {
        let forks = self.of(target);
        let mut path = Vec::new();
        for (index, fork) in forks.iter().enumerate() {
            let next = forks.get(index + 1).map_or(target, |next| next.timeline);
            if timeline < next {
                path.push((next, fork.at));
            }
        }
        path
    }

    /// The files of these timelines; one that is missing here is not among them.
    #[must_use]
    pub fn files(&self, from: u32, to: u32) -> Vec<(u32, Vec<Fork>)> {
        let files = self.0.range(from.min(to)..=to);
        files.map(|(number, forks)| (*number, forks.clone())).collect()
    }

    /// All files.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<u32, Vec<Fork>> {
        &self.0
    }
}

/// Where two timelines part, by their history files: the last common timeline and the position.
#[must_use]
pub fn ancestor(own: (u32, &[Fork]), other: (u32, &[Fork])) -> Option<(u32, u64)> {
    let end = |(now, forks): (u32, &[Fork]), timeline: u32| {
        let ended = forks.iter().find(|fork| fork.timeline == timeline);
        ended.map_or((timeline == now).then_some(u64::MAX), |fork| Some(fork.at))
    };
    let mut common = None;
    let path = own.1.iter().map(|fork| fork.timeline).chain([own.0]);
    for timeline in path {
        let (Some(ours), Some(theirs)) = (end(own, timeline), end(other, timeline)) else {
            break;
        };
        common = Some((timeline, ours.min(theirs)));
        if ours != theirs {
            break;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_counts_on_from_placeholders_and_a_start_sweeps_them() {
        let mut files = Histories::default();
        files.reserve(1, 3);
        assert_eq!(files.newest(1), 3);
        files.write(4, vec![Fork { timeline: 1, at: 500 }]);
        files.reserve(4, 6);
        let mut turned = files.clone();
        turned.sweep(4);
        assert_eq!(
            turned.newest(1),
            4,
            "one that WAL is here of stays, and with it those below"
        );
        files.sweep(1);
        assert_eq!(files.newest(1), 1);
    }

    #[test]
    fn a_placeholder_for_the_timeline_of_the_last_wal_becomes_its_history() {
        let fork = |timeline, at| Fork { timeline, at };
        let mut files = Histories::default();
        files.reserve(1, 3);
        files.write(4, vec![fork(1, 500)]);
        files.write(5, vec![fork(1, 400), fork(3, 700)]);
        files.sweep(3);
        assert_eq!((files.newest(1), files.of(3)), (3, &[fork(1, 400)][..]));
    }

    #[test]
    fn the_ancestor_is_the_last_common_point() {
        let fork = |timeline, at| Fork { timeline, at };
        let (left, right) = ([fork(1, 500), fork(2, 700)], [fork(1, 500)]);
        assert_eq!(ancestor((3, &left), (2, &right)), Some((2, 700)));
        assert_eq!(ancestor((1, &[]), (3, &left)), Some((1, 500)));
        assert_eq!(ancestor((2, &[fork(1, 400)]), (3, &left)), Some((1, 400)));
    }
}
