//! Rights in time: this node's own, and the one that another node may still have.
//!
//! A renewal *sent* at `s` and confirmed gives the right to be primary until `s + ttl·(1 − ρ)`, never until "now + ttl":
//! the time the answer took is the holder's loss. Seen from outside, a right whose renewal became visible at `w` is over
//! at `w + ttl·(1 + ρ)` at the latest, because it was sent before it was seen.

use std::time::Duration;

use crate::config::Config;
use crate::types::{Generation, LeaseId, MonoTime, NodeName, Revision};
use crate::view::ClusterView;
use crate::zoo::{Flaw, lacks};

/// This node's hold on the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The key is known to be ours, as of the last answer.
    pub held: bool,
    /// The right to be primary ends here, whatever is known of the key. Zero: there never was one.
    pub until: MonoTime,
    /// When the last confirmed renewal was sent.
    pub renewed: MonoTime,
    /// The etcd lease.
    pub id: Option<LeaseId>,
    /// Counts reigns.
    pub generation: Generation,
    /// The revision of the last confirmed transaction, which wrote `status`.
    pub confirmed: Revision,
    /// The ttl last told to others.
    pub ttl: Duration,
    /// The shortest ttl of this reign. Zero: none was confirmed yet.
    pub shortest: Duration,
    /// Failsafe grants, not etcd, carry the right at present.
    pub by_failsafe: bool,
}

impl Lease {
    /// No lock, and a right until `until` that a running server still has from before this agent started.
    #[must_use]
    pub fn inherited(until: MonoTime, generation: Generation) -> Self {
        Self {
            held: false,
            until,
            renewed: MonoTime::ZERO,
            id: None,
            generation,
            confirmed: Revision(0),
            ttl: Duration::ZERO,
            shortest: Duration::ZERO,
            by_failsafe: false,
        }
    }

    /// A renewal or an acquisition of a lease of `ttl` was confirmed, and `status` tells the others of it. One that it does not tell of gives no
    /// right: if the key vanished then, they would count from the last one that they saw.
    pub fn confirm(&mut self, ttl: Duration, sent: MonoTime, id: LeaseId, told: bool) {
        if !self.held {
            self.generation.0 += 1;
            self.shortest = ttl;
        }
        self.shortest = self.shortest.min(ttl);
        self.held = true;
        self.id = Some(id);
        if !told && !lacks(Flaw::SilentRenewalCounts) {
            return;
        }
        self.renewed = self.renewed.max(sent);
        let right = Config::right(ttl) * if lacks(Flaw::RightForever) { 2 } else { 1 };
        self.until = self.until.max(sent.plus(right));
        self.by_failsafe = false;
    }

    /// An order that tells the others this ttl is about to be sent: a right that a longer one gave before counts no more,
    /// for whoever sees only this waits for this.
    pub fn announce(&mut self, ttl: Duration, now: MonoTime) {
        self.ttl = ttl;
        self.shortest = self.shortest.min(ttl);
        if !lacks(Flaw::LongRightKept) {
            self.until = self.until.min(now.plus(Config::right(ttl)));
        }
    }

    /// For how long to ask for grants: the shortest ttl of the reign, or what this node `claimed` in the DCS before it was restarted.
    ///
    /// Who grants keeps still for what was asked for, whatever it knows; but one that is restarted after that has forgotten it, and waits for
    /// what `status` says. And a Patroni knows only the ttl in its settings.
    #[must_use]
    pub fn safe_ttl(&self, config: &Config, claimed: Option<Duration>) -> Duration {
        let known = if self.shortest == Duration::ZERO {
            claimed.unwrap_or_default()
        } else {
            self.shortest
        };
        config.ttl.min(known)
    }

    /// Every electable member granted, asked at `sent` for `ttl`.
    pub fn granted(&mut self, config: &Config, sent: MonoTime, ttl: Duration) {
        let ttl = if lacks(Flaw::LongRightByGrants) {
            config.ttl.max(self.ttl)
        } else {
            ttl
        };
        self.until = self.until.max(sent.plus(Config::right(ttl)));
        self.by_failsafe = true;
    }

    /// The right holds at `now`.
    #[must_use]
    pub fn valid(&self, now: MonoTime) -> bool {
        now < self.until
    }

    /// How long the right still holds.
    #[must_use]
    pub fn left(&self, now: MonoTime) -> Duration {
        self.until.since(now)
    }
}

/// What is known of the right of the last leader that was not this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForeignRight {
    /// It is over at this time at the latest.
    pub until: MonoTime,
    /// When a renewal was last seen.
    pub heard: MonoTime,
    seen: Option<(Option<NodeName>, Revision, Revision)>,
    ttl: Duration,
}

impl ForeignRight {
    /// Folds in what the DCS held, as it became known at `now`.
    ///
    /// The first view counts as a renewal, for it is not known when the last one was; so does every change of the key or
    /// of `status`, which a leader writes with each renewal. A leader that has vacated has stopped its PostgreSQL before
    /// it gave the key back: its right is over.
    pub fn observe(&mut self, config: &Config, me: &NodeName, view: &ClusterView, now: MonoTime) {
        let status = view.status.as_ref();
        let claimed = view
            .claimed_ttl()
            .filter(|_| !lacks(Flaw::OwnTtlForOthers))
            .unwrap_or_default();
        self.ttl = if self.seen.is_some() {
            self.ttl
        } else {
            Duration::ZERO
        }
        .max(claimed)
        .max(config.ttl);
        let leader = view.leader.as_ref().map(|key| &key.name);
        let created = view.leader.as_ref().map_or(Revision(0), |key| key.created);
        let renewals = if lacks(Flaw::RenewalsUnseen) {
            Revision(0)
        } else {
            view.status_revision
        };
        let first = self.seen.is_none() && !lacks(Flaw::NewcomerDoesNotWait);
        let changed = self.seen.as_ref().is_none_or(|(who, since, status)| {
            (who.as_ref(), *since, *status) != (leader, created, renewals)
        });
        let renewed = self
            .seen
            .as_ref()
            .is_some_and(|(_, _, status)| *status != renewals);
        let new_cluster = view.initialize.is_none() && leader.is_none();
        let vacated = leader.is_none() && status.is_some_and(|status| status.vacated.is_some());
        if vacated || new_cluster {
            self.until = MonoTime::ZERO;
        } else if leader == Some(me) {
            // Our own right is accounted for in `Lease`.
            self.heard = now;
        } else if changed && (leader.is_some() || first || renewed) {
            // A key that vanished proves nothing; a `status` that moved meanwhile was a renewal, or a reign, that was not seen.
            self.until = now.plus(Config::foreign_right(self.ttl));
            self.heard = now;
            // The longest ttl of the reign counts until it is over; the next reign starts with its own.
            self.ttl = claimed.max(config.ttl);
        }
        if changed {
            self.seen = Some((leader.cloned(), created, renewals));
        }
    }

    /// The next view is the first of another history, and counts as a renewal.
    pub fn start_over(&mut self) {
        self.seen = None;
    }

    /// The right may still run at `now`.
    #[must_use]
    pub fn may_run(&self, now: MonoTime) -> bool {
        now < self.until && !lacks(Flaw::OldRightIgnored)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::SystemId;
    use crate::view::{Initialize, LeaderKey, Status};

    fn config() -> Config {
        Config::new("n1".into())
    }

    #[test]
    fn the_right_counts_from_when_the_renewal_was_sent() {
        let mut lease = Lease::inherited(MonoTime::ZERO, Generation(0));
        lease.confirm(config().ttl, MonoTime::from_millis(1000), LeaseId(7), true);
        assert_eq!(lease.until, MonoTime::from_millis(5995));
        assert!(lease.valid(MonoTime::from_millis(5994)));
        assert!(!lease.valid(MonoTime::from_millis(5995)));
    }

    #[test]
    fn a_late_confirmation_never_shortens_the_right_nor_counts_a_reign_twice() {
        let mut lease = Lease::inherited(MonoTime::ZERO, Generation(0));
        lease.confirm(config().ttl, MonoTime::from_millis(3000), LeaseId(7), true);
        lease.confirm(config().ttl, MonoTime::from_millis(1000), LeaseId(7), true);
        assert_eq!(lease.until, MonoTime::from_millis(7995));
        assert_eq!(lease.generation, Generation(1));
    }

    #[test]
    fn a_renewal_of_which_nobody_was_told_gives_no_right() {
        let mut lease = Lease::inherited(MonoTime::ZERO, Generation(0));
        lease.confirm(config().ttl, MonoTime::from_millis(1000), LeaseId(7), true);
        lease.confirm(config().ttl, MonoTime::from_millis(3000), LeaseId(7), false);
        assert_eq!(lease.until, MonoTime::from_millis(5995));
        assert_eq!(lease.renewed, MonoTime::from_millis(1000));
    }

    fn view(leader: Option<&str>, status_revision: i64, vacated: bool) -> ClusterView {
        ClusterView {
            initialize: Some(Initialize::Done(SystemId(1))),
            leader: leader.map(|name| LeaderKey {
                name: name.into(),
                lease: None,
                created: Revision(3),
            }),
            status: Some(Arc::new(Status {
                vacated: vacated.then(|| "n2".into()),
                ..Status::default()
            })),
            status_revision: Revision(status_revision),
            ..ClusterView::default()
        }
    }

    #[test]
    fn anothers_right_counts_from_its_last_visible_renewal() {
        let (config, me) = (config(), NodeName::from("n1"));
        let mut right = ForeignRight::default();
        right.observe(
            &config,
            &me,
            &view(Some("n2"), 5, false),
            MonoTime::from_millis(1000),
        );
        right.observe(
            &config,
            &me,
            &view(Some("n2"), 6, false),
            MonoTime::from_millis(2000),
        );
        right.observe(
            &config,
            &me,
            &view(Some("n2"), 6, false),
            MonoTime::from_millis(3000),
        );
        assert_eq!(right.until, MonoTime::from_millis(7005));
        // The key vanishing early proves nothing.
        right.observe(&config, &me, &view(None, 6, false), MonoTime::from_millis(3500));
        assert_eq!(right.until, MonoTime::from_millis(7005));
        // A leader that vacated has stopped.
        right.observe(&config, &me, &view(None, 7, true), MonoTime::from_millis(3600));
        assert!(!right.may_run(MonoTime::from_millis(3600)));
    }

    /// What etcd drops in time vanishes up to half a second after its ttl, and a hair before it as others count, who heard of it later.
    #[test]
    fn a_key_that_ran_out_is_waited_for_no_longer() {
        for vanished in [5990, 6100] {
            let (config, me) = (config(), NodeName::from("n1"));
            let mut right = ForeignRight::default();
            let at = MonoTime::from_millis;
            right.observe(&config, &me, &view(Some("n2"), 5, false), at(1000));
            right.observe(&config, &me, &view(None, 5, false), at(vanished));
            assert_eq!(right.until, at(6005));
        }
    }

    #[test]
    fn a_node_that_knows_nothing_waits_a_whole_ttl() {
        let (config, me) = (config(), NodeName::from("n1"));
        let mut right = ForeignRight::default();
        right.observe(&config, &me, &view(None, 6, false), MonoTime::from_millis(1000));
        assert_eq!(right.until, MonoTime::from_millis(6005));
        let mut fresh = ForeignRight::default();
        fresh.observe(&config, &me, &ClusterView::default(), MonoTime::from_millis(1000));
        assert!(!fresh.may_run(MonoTime::from_millis(1000)));
    }
}
