//! A timeline that nobody reserved: somebody promoted PostgreSQL past the agent.
//!
//! Whoever leads under Surus reserves the number of a timeline in `status` before the timeline exists. So one above all that were published
//! and reserved was made by hand (`pg_ctl promote`), beside a leader or while there was none. So was one of a number that the cluster has as
//! well, if it began elsewhere or if two have written it (whoever led next had not heard of it); and one that the agent here saw begin without an
//! order.
//!
//! Its number says nothing of who has more: what the data is worth in a race is what it holds of the cluster's own timelines, up to the
//! fork. Under a leader it has diverged, as a primary that was deposed has. If this node leads with it all the same (by a person's word, or for
//! want of others), it is the cluster's.
//!
//! A leader of Patroni reserves nothing, and writes a `status` without these fields: nothing is said then.

use super::Context;
use crate::decision::Guard;
use crate::types::{Lsn, Timeline};
use crate::view::{Fork, Server};
use crate::zoo::{Flaw, lacks};

impl Context<'_> {
    /// The highest timeline that a leader has published or reserved, if leaders do that here.
    fn reserved_up_to(&self) -> Option<Timeline> {
        let view = self.facts.view().filter(|_| !self.facts.led_by_patroni)?;
        let status = view.status.as_ref()?;
        // A reign that was over before its first renewal has reserved and published nothing.
        let said = status.timeline.max(status.next)?;
        Some(said.max(view.timeline().unwrap_or_default()))
    }

    /// This node's data is on a timeline that is not the cluster's, or it is not known yet whether it is: what is known of the DCS must have been
    /// asked for since the timeline was first seen here, for the reservation comes before the timeline.
    pub(super) fn unreserved(&self) -> Option<Guard> {
        let stood = self.state.stood?;
        let own = stood.timeline;
        let reserved = self.reserved_up_to().filter(|_| !lacks(Flaw::UsurperUnknown))?;
        if stood.usurped {
            return Some(Guard::Usurped { own, reserved });
        }
        let read = self.facts.read.unwrap_or_default();
        let age = self.now.since(read);
        (reserved < own && read < stood.since).then_some(Guard::ViewStale { age })
    }

    /// This node's data is on a timeline that is not the cluster's.
    pub(super) fn usurped(&self) -> Option<Guard> {
        self.unreserved()
            .filter(|guard| matches!(guard, Guard::Usurped { .. }))
    }

    /// What is known says that this node's timeline is another than the cluster's, if that has one of this number.
    pub(crate) fn another(&self) -> bool {
        let (Some(stood), Some(reserved)) = (self.state.stood, self.reserved_up_to()) else {
            return false;
        };
        let heard = self.facts.read.is_some_and(|read| stood.since <= read);
        let own = stood.timeline;
        let elsewhere = self.began(own).is_some_and(|(here, recorded)| here != recorded);
        reserved < own && heard || elsewhere || stood.wrote && self.written_elsewhere(own)
    }

    /// This node's timeline has become the cluster's: somebody leads with it.
    pub(crate) fn adopted(&self) -> bool {
        let status = self.facts.view().and_then(|view| view.status.as_ref());
        let published = status.and_then(|status| status.timeline);
        let Some(stood) = self.state.stood.filter(|stood| Some(stood.timeline) == published) else {
            return false;
        };
        let same = self
            .began(stood.timeline)
            .is_some_and(|(here, recorded)| here == recorded);
        same && !stood.wrote
    }

    /// Where this node's timeline began, and where the cluster's of that number did.
    fn began(&self, own: Timeline) -> Option<(Fork, Fork)> {
        let here = match (self.facts.server(), self.facts.control()) {
            (Some(server), _) if server.timeline == own => Fork::of(own, &server.history),
            (_, Some(control)) if control.timeline == own => control.fork,
            _ => None,
        };
        let recorded = self.facts.view().and_then(|view| view.began(own));
        here.zip(recorded)
    }

    /// Another leader has its server as a primary on the timeline of that number.
    fn written_elsewhere(&self, own: Timeline) -> bool {
        let leader = self.facts.leader().filter(|_| self.leader_is_other());
        let said = leader.and_then(|leader| self.facts.member(leader));
        let said = said.filter(|member| member.surus && self.leader_is_primary());
        let said = said.and_then(|member| member.timeline);
        let told = self.ancestry().map(|ancestry| ancestry.timeline);
        leader.is_some() && said.max(told) == Some(own)
    }

    /// How far a server has the cluster's history: the end of what it holds, or where it left the last timeline that somebody reserved.
    pub(super) fn worth(&self, server: &Server) -> (Timeline, Lsn) {
        let own = (server.timeline, server.position());
        let Some(Guard::Usurped { reserved, .. }) = self.usurped() else {
            return own;
        };
        let mut lines = server.history.iter().rev();
        let left = lines.find(|line| line.timeline <= reserved && line.timeline < server.timeline);
        left.map_or((Timeline(0), Lsn(0)), |line| (line.timeline, line.switch))
    }

    /// The highest timeline that exists, as far as this node has heard, whoever made it: the next one to be made is above it.
    pub(super) fn newest_timeline(&self) -> Timeline {
        let view = self.facts.view();
        let said = view.and_then(|view| view.timeline());
        let keys = view.into_iter().flat_map(|view| view.members.values());
        let members = keys.filter_map(|member| member.timeline);
        let peers = self.facts.peers.values();
        let peers = peers
            .filter_map(|peer| peer.status.as_ref())
            .map(|status| status.timeline.max(status.stands));
        let held = self.facts.control().map(|control| control.timeline);
        let own = self.state.stood.map(|stood| stood.timeline).max(held);
        let heard_of = self.facts.server().and_then(|server| server.heard_of);
        let all = [said, own, heard_of].into_iter().flatten();
        all.chain(members)
            .chain(peers.flatten())
            .max()
            .unwrap_or_default()
    }
}
