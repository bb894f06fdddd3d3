//! The `sync` key: who may be elected.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Names;
use crate::types::NodeName;

/// Who may be elected, as the `sync` key says: its leader, which has every commit that it acknowledged; and whoever is not behind any of
/// `quorum` + 1 of the voters, of which it may be one itself.
///
/// Without voters nobody but the leader may be. Without a key everybody may be: replication is asynchronous.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SyncKey {
    /// The primary that wrote it.
    pub leader: NodeName,
    /// The members that are heard (`sync_standby`).
    pub voters: BTreeSet<NodeName>,
    /// One less than how many of them must be.
    pub quorum: usize,
}

impl SyncKey {
    /// Nobody but `leader` may be elected.
    #[must_use]
    pub fn alone(leader: NodeName) -> Self {
        Self {
            leader,
            voters: BTreeSet::new(),
            quorum: 0,
        }
    }

    /// This member may be elected by it, or has a vote.
    #[must_use]
    pub fn names(&self, member: &NodeName) -> bool {
        self.leader == *member || self.voters.contains(member)
    }

    /// How many voters must be heard.
    #[must_use]
    pub fn votes(&self) -> usize {
        self.quorum + 1
    }

    /// Whoever elects by this key meets whoever acknowledges by `names`.
    #[must_use]
    pub fn meets(&self, names: &Names) -> bool {
        let votes = self.votes();
        if self.voters.len() < votes {
            return true;
        }
        let some = match names {
            Names::Alone | Names::Foreign(_) => return false,
            Names::Some(some) => some,
        };
        if some.of.len() < some.number {
            return true;
        }
        let common = some.of.intersection(&self.voters).count();
        // Each side avoids the common ones as far as it can; what is left over must not fit beside each other.
        let forced = |number: usize, members: usize| number.saturating_sub(members - common);
        common < forced(votes, self.voters.len()) + forced(some.number, some.of.len())
    }

    /// Whoever may be elected by this key may be by `other` as well: a change from that to this needs nothing.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        let none = self.voters.len() < self.votes();
        self.leader == other.leader
            && (none || self.voters.is_subset(&other.voters) && other.quorum <= self.quorum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bits: u32) -> BTreeSet<NodeName> {
        let all = ["b", "c", "d", "e"];
        (0..4)
            .filter(|bit| bits & 1 << bit != 0)
            .map(|bit| NodeName::from(all[bit as usize]))
            .collect()
    }

    /// All ways to choose `number` of the members in `bits`.
    fn choices(bits: u32, number: usize) -> Vec<u32> {
        (0..16)
            .filter(|chosen: &u32| chosen & !bits == 0 && chosen.count_ones() as usize == number)
            .collect()
    }

    #[test]
    fn the_formulas_agree_with_trying_everything() {
        let key = |voters, quorum| SyncKey {
            leader: "a".into(),
            voters: names(voters),
            quorum,
        };
        for voters in 0..16 {
            for quorum in 0..4 {
                let one = key(voters, quorum);
                let electing = choices(voters, quorum + 1);
                for acknowledging in 0..16 {
                    for number in 1..5 {
                        let some = Names::some(true, number, names(acknowledging));
                        let meet = electing
                            .iter()
                            .all(|e| choices(acknowledging, number).iter().all(|a| e & a != 0));
                        assert_eq!(one.meets(&some), meet, "{one:?} {some:?}");
                    }
                }
                for others in 0..16 {
                    for other_quorum in 0..4 {
                        let other = key(others, other_quorum);
                        // Whoever hears these votes has heard as many of the other's.
                        let within = electing.iter().all(|votes| {
                            let heard = (votes & others).count_ones() as usize;
                            other_quorum < heard
                        });
                        assert!(!one.within(&other) || within, "{one:?} {other:?}");
                    }
                }
            }
        }
    }
}
