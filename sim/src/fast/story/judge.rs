//! Whether what a story expects holds.

use std::collections::BTreeSet;

use surus_scenarios::{Expectation, Verdict};

use crate::clock::Time;
use crate::fast::world::World;

impl World {
    pub(super) fn verdict(&mut self, expectation: &Expectation, since: Time) -> Verdict {
        let witness = std::mem::take(&mut self.record.witness);
        let (now, clients) = (self.now, self.shape.clients.len());
        let verdict = witness.judge(expectation, since, now, clients, self);
        self.record.witness = witness;
        if let Some(verdict) = verdict {
            return verdict;
        }
        match expectation {
            Expectation::Healthy { .. } => match self.record.checker.unconverged() {
                None => Verdict::Holds,
                Some(why) => Verdict::NotYet(why),
            },
            Expectation::Lost { max } => match self.lost() {
                Some(lost) if lost <= *max => Verdict::Holds,
                Some(lost) => Verdict::Broken(format!("{lost} acknowledged writes are missing")),
                None => Verdict::Broken("nobody takes writes".to_owned()),
            },
            _ => Verdict::Unable("nobody is meant by that".to_owned()),
        }
    }

    /// How many acknowledged writes the primary does not have.
    fn lost(&self) -> Option<u64> {
        let node = (0..self.hosts.len()).find(|node| self.hosts[*node].pg.writable())?;
        let kept: BTreeSet<u64> = self.hosts[node].pg.visible().collect();
        let missing = self.acked.iter().filter(|value| !kept.contains(*value)).count();
        Some(missing as u64)
    }
}
