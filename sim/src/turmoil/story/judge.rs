//! Whether what a story expects holds.

use std::collections::BTreeSet;

use surus_scenarios::{Expectation, Verdict};

use super::super::world::World;
use crate::clock::Time;
use crate::model::postgres::{Peer, Relation};
use crate::record::{Fate, Seen};

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
            Expectation::Healthy { .. } => match self.unconverged() {
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
        let missing = self.acked.iter().filter(|value| !kept.contains(*value)).count();
        Some(missing as u64)
    }

    /// Remembers what clients were told, for [`Self::lost`].
    pub(in super::super) fn remember(&mut self) {
        let record = self.hub.record();
        let fresh = record.entries().get(self.looked..).unwrap_or_default();
        for entry in fresh {
            if let Seen::WriteEnded {
                value,
                fate: Fate::Ok,
                ..
            } = entry.seen
            {
                self.acked.insert(value);
            }
        }
        self.looked += fresh.len();
    }

    /// One primary under the lock, everybody else streams from it on its history; what is missing.
    pub(in super::super) fn unconverged(&self) -> Option<String> {
        let Some(leader) = self.leader() else {
            return Some("nobody holds the lock".to_owned());
        };
        let name = |host: usize| self.hub.hosts[host].name.as_str();
        if !self.hub.look(leader, |inside| inside.server.writable()) {
            return Some(format!(
                "{} holds the lock and does not accept writes",
                name(leader)
            ));
        }
        let wanted = self.hub.look(leader, |inside| {
            inside.server.cluster().map(|cluster| cluster.log.clone())
        })?;
        let feeding = self
            .hub
            .look(leader, |inside| inside.server.replication().unwrap_or_default());
        for (host, agent) in self.agents.iter().enumerate() {
            if agent.is_none() {
                return Some(format!("{} has no agent", name(host)));
            }
            if host == leader {
                continue;
            }
            let follows = self.hub.look(host, |inside| {
                let upstream = inside.server.settings.primary_conninfo.as_ref()?.to;
                let own = &inside.server.cluster()?.log;
                let same = matches!(own.relation(&wanted), Relation::Equal | Relation::Behind);
                let fed = upstream != Peer(u32::try_from(leader).unwrap_or(u32::MAX))
                    || feeding
                        .iter()
                        .any(|row| row.application_name == name(host) && row.state == "streaming");
                Some(same && fed && inside.server.standby())
            });
            if follows != Some(true) {
                return Some(format!("{} does not stream from {}", name(host), name(leader)));
            }
        }
        None
    }
}
