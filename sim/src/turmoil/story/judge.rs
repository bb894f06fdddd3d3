//! Whether what a story expects holds.

use std::collections::BTreeSet;

use surus_scenarios::{Expectation, Verdict};

use super::super::world::World;
use crate::clock::Time;

impl World {
    pub(super) fn verdict(&mut self, expectation: &Expectation, since: Time) -> Verdict {
        let witness = std::mem::take(&mut self.hub.record().witness);
        let (now, clients) = (self.time(), self.clients.len());
        let verdict = witness.judge(expectation, since, now, clients, self);
        self.hub.record().witness = witness;
        if let Some(verdict) = verdict {
            return verdict;
        }
        match expectation {
            Expectation::Healthy { .. } => match self.hub.record().checker.unconverged() {
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

    /// Acknowledged writes that the primary does not have.
    fn lost(&self) -> Option<u64> {
        let writable = |host: &usize| self.hub.look(*host, |inside| inside.server.writable());
        let primary = (0..self.agents.len()).find(writable)?;
        let kept: BTreeSet<u64> = self.hub.look(primary, |inside| inside.server.visible().collect());
        let missing = self
            .hub
            .acked()
            .iter()
            .filter(|value| !kept.contains(*value))
            .count();
        Some(missing as u64)
    }
}
