//! Every acknowledged write and the timeline it was written on; what changes when another history becomes the primary's.

use std::collections::{BTreeMap, BTreeSet};

use surus_core::types::{Lsn, SystemId, Timeline};

use super::scene::{Member, Scene};
use super::{Fact, Moment};
use crate::record::{NodeIndex, Seen, Standing};

/// A timeline of a cluster.
pub type Line = (SystemId, Timeline);

/// An acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The end of its commit record.
    pub position: Lsn,
    /// The register.
    pub key: u32,
    /// The value.
    pub value: u64,
    /// Its entry.
    pub fact: Fact,
}

/// What a primary's history lacks or has that the last one's had or lacked.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// The present history ends on this timeline.
    pub line: Option<Line>,
    /// Acknowledged writes that are in it no more.
    pub lost: Vec<Commit>,
    /// The registers whose history is another than before: something was lost, or came back that had been lost.
    pub changed: BTreeSet<u32>,
}

/// Every acknowledged write.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// By timeline, in the order of their positions.
    commits: BTreeMap<Line, Vec<Commit>>,
    /// Where a timeline comes from: its parent, and where it left that.
    parents: BTreeMap<Line, (Timeline, Lsn)>,
    /// The same of those that a person made by hand.
    by_hand: BTreeMap<Line, (Timeline, Lsn)>,
    present: Option<Line>,
    /// What a person made by hand last and has become the cluster's.
    adopted: Option<(NodeIndex, Standing, (Timeline, Lsn))>,
}

impl Ledger {
    /// What a person made by hand has become the cluster's since the last entry: what that changed.
    pub(super) fn adopt(&mut self, scene: &Scene) -> Option<Turn> {
        if scene.adopted == self.adopted {
            return None;
        }
        self.adopted = scene.adopted;
        let (_, standing, fork) = self.adopted?;
        let line = (standing.system_id, standing.timeline);
        self.parents.insert(line, fork);
        Some(self.turn(line))
    }

    /// Takes in an entry; says what it changed.
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Turn {
        let member = moment.fact.node.and_then(|node| moment.scene.member(node));
        let by_hand = member.is_some_and(|member| member.by_hand);
        match moment.seen {
            Seen::Committed { key, value, standing } => {
                let line = (standing.system_id, standing.timeline);
                self.commits.entry(line).or_default().push(Commit {
                    position: standing.position,
                    key: *key,
                    value: *value,
                    fact: moment.fact,
                });
                Turn::default()
            }
            Seen::Forked {
                from,
                switch,
                standing,
            } if by_hand => {
                let line = (standing.system_id, standing.timeline);
                self.by_hand.insert(line, (*from, *switch));
                Turn::default()
            }
            Seen::Promoted { .. } if by_hand => Turn::default(),
            Seen::Forked {
                from,
                switch,
                standing,
            } => {
                let line = (standing.system_id, standing.timeline);
                self.parents
                    .insert(line, self.origin(line.0, member, *from, *switch));
                Turn::default()
            }
            Seen::Promoted {
                from,
                switch,
                standing,
            } => {
                let line = (standing.system_id, standing.timeline);
                self.parents
                    .insert(line, self.origin(line.0, member, *from, *switch));
                // On a host that stood still the promotion of a reign that is over comes to its end before the guard kills: what it would
                // acknowledge is judged by S4, and no other history ends with it.
                if member.is_some_and(|member| member.just_thawed(moment.at) && member.right < moment.at) {
                    return Turn::default();
                }
                self.turn(line)
            }
            // The first primary of the cluster; of those that are made before it has a name, the last one. One that comes up later begins no
            // history: it goes on with its own, or (on a host that stood still) is killed before it counts.
            Seen::Up {
                primary: true,
                standing,
            } => {
                let named = moment.scene.identity;
                let other = self.present.is_none_or(|(id, _)| id != standing.system_id);
                if other && named.is_none_or(|id| id == standing.system_id) {
                    self.present = Some((standing.system_id, standing.timeline));
                }
                Turn::default()
            }
            Seen::WalLost { standing, .. } => {
                let line = (standing.system_id, standing.timeline);
                let primary = member.is_some_and(|member| member.primary_until.is_some());
                if primary && self.present == Some(line) {
                    self.cut(line, standing.position)
                } else {
                    Turn::default()
                }
            }
            _ => Turn::default(),
        }
    }

    /// Where a timeline comes from. Nobody has written to one that a person made by hand, so what comes of it comes of what that came of.
    fn origin(
        &self,
        cluster: SystemId,
        member: Option<&Member>,
        from: Timeline,
        switch: Lsn,
    ) -> (Timeline, Lsn) {
        let own = member.and_then(|member| Some(member.by_hand_on(from)?.fork));
        let line = (cluster, from);
        let others = self
            .by_hand
            .get(&line)
            .filter(|_| !self.parents.contains_key(&line));
        own.or(others.copied()).unwrap_or((from, switch))
    }

    /// The last value of a register in the history that ends on `line`.
    #[must_use]
    pub fn value(&self, line: Line, key: u32) -> Option<u64> {
        let chain = self.chain(line);
        chain.iter().rev().find_map(|(timeline, until)| {
            let commits = self.commits.get(&(line.0, *timeline))?;
            let of_key = |commit: &&Commit| commit.key == key && commit.position <= *until;
            commits.iter().rev().find(of_key).map(|commit| commit.value)
        })
    }

    /// Where the history that ends on `line` left `timeline`, if it ever was on it.
    #[must_use]
    pub fn left(&self, line: Line, timeline: Timeline) -> Option<Lsn> {
        self.chain(line).get(&timeline).copied()
    }

    /// The timelines of a history, and how far each belongs to it.
    fn chain(&self, line: Line) -> BTreeMap<Timeline, Lsn> {
        let mut chain = BTreeMap::from([(line.1, Lsn(u64::MAX))]);
        let (mut at, mut until) = (line, Lsn(u64::MAX));
        while let Some((parent, switch)) = self.parents.get(&at).copied() {
            until = until.min(switch);
            if chain.insert(parent, until).is_some() {
                break;
            }
            at.1 = parent;
        }
        chain
    }

    /// The history that ends on `line` is the primary's now.
    fn turn(&mut self, line: Line) -> Turn {
        let before = self.present.replace(line);
        let Some(before) = before.filter(|before| *before != line && before.0 == line.0) else {
            return Turn::default();
        };
        let (old, new) = (self.chain(before), self.chain(line));
        let mut turn = Turn {
            line: Some(line),
            ..Turn::default()
        };
        let timelines: BTreeSet<Timeline> = old.keys().chain(new.keys()).copied().collect();
        for timeline in timelines {
            let until = |chain: &BTreeMap<Timeline, Lsn>| chain.get(&timeline).copied().unwrap_or_default();
            let (was, is) = (until(&old), until(&new));
            let Some(commits) = self.commits.get(&(line.0, timeline)) else {
                continue;
            };
            let from = commits.partition_point(|commit| commit.position <= was.min(is));
            let to = commits.partition_point(|commit| commit.position <= was.max(is));
            let between = &commits[from..to];
            turn.changed.extend(between.iter().map(|commit| commit.key));
            if is < was {
                turn.lost.extend(between);
            }
        }
        turn
    }

    fn cut(&mut self, line: Line, until: Lsn) -> Turn {
        let Some(commits) = self.commits.get_mut(&line) else {
            return Turn::default();
        };
        let keep = commits.partition_point(|commit| commit.position <= until);
        let lost = commits.split_off(keep);
        Turn {
            line: Some(line),
            changed: lost.iter().map(|commit| commit.key).collect(),
            lost,
        }
    }
}
