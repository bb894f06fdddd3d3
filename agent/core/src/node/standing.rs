//! On which timeline this node's data is, and whether that is the cluster's.

use super::Node;
use crate::state::Stood;
use crate::types::Timeline;

impl Node {
    /// Takes in what was last seen of PostgreSQL. Before what is known of orders is judged by it: a promotion that nobody ordered shows only then.
    pub(super) fn stand(&mut self) {
        if !self.context().settled() {
            return;
        }
        let held = self.facts.control().map(|control| control.timeline);
        let server = self.facts.server();
        let Some(timeline) = server.map(|server| server.timeline).max(held) else {
            return;
        };
        let writes = server.is_some_and(|server| server.is_primary() && server.timeline == timeline);
        let recovers = server.is_some_and(|server| !server.is_primary());
        let before = self.state.stood.map(|stood| stood.timeline);
        if before < Some(timeline) {
            self.arrive(timeline, writes && before.is_some());
        }
        let here = |stood: &&mut Stood| stood.timeline == timeline;
        let below = self.state.lease.held && self.state.reserved.is_some_and(|next| timeline < next);
        if let Some(stood) = self.state.stood.as_mut().filter(here) {
            // The look before may have seen it in the midst of its promotion. One that was started as a primary is none that was promoted.
            stood.usurped |= below && writes && !stood.wrote && stood.recovering;
            stood.recovering |= recovers;
            stood.wrote |= writes;
        }
        // In a pause a person's primary may take the lock.
        let leads = self.state.lease.held && writes && self.config.pause;
        let known = self.context().another();
        let adopted = leads || self.context().adopted();
        if let Some(stood) = self.state.stood.as_mut().filter(here) {
            stood.usurped = (stood.usurped || known) && !adopted;
        }
    }

    /// The data has come to a new timeline, or this is the first that is known of it. Whether somebody reserved it is read at once.
    fn arrive(&mut self, timeline: Timeline, promoted: bool) {
        // An agent before this one may have ordered it. What was ordered comes to the number that was reserved for it, or above.
        let leads = self.state.lease.held || self.context().leader_is_me();
        let ordered = leads || self.state.unsure || self.context().becoming_writable();
        let next = self.facts.view().and_then(|view| view.status.as_ref()?.next);
        let reserved = self.state.reserved.or(next).filter(|_| leads);
        let below = reserved.is_some_and(|reserved| timeline < reserved);
        self.state.stood = Some(Stood {
            timeline,
            since: self.now,
            wrote: false,
            recovering: false,
            usurped: promoted && (!ordered || below),
        });
        self.state.due.read = self.state.due.read.min(self.now);
    }
}
