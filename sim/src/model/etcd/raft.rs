//! Terms and elections: who takes whom for the leader, and who can make the others agree.
//!
//! A member that hears no leader for an election timeout (and a random part of a second one) asks for votes. A leader without a
//! quorum resigns after the same time; until then, and for as long as it is frozen, it is a leader for itself and for those that
//! hear only it.

use std::collections::VecDeque;

use super::api::{Call, Output, Request};
use super::lessor::Lessor;
use super::{Etcd, Links, Point};
use crate::clock::{MS, Time};

/// Between two heartbeats, and the beat of all of raft's clocks.
const TICK: Time = 100 * MS;

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member<K, V> {
    /// Its process runs.
    pub(super) up: bool,
    /// Its process is stopped by a signal.
    pub(super) frozen: bool,
    /// The newest term it has heard of.
    pub(super) term: u64,
    /// Whom it takes for the leader of that term: maybe itself.
    pub(super) leader: Option<usize>,
    /// Since when it knows of none.
    pub(super) leaderless: Option<Time>,
    /// What it has applied: its answers are as of this.
    pub(super) applied: Point,
    /// What it has in its log; it can be elected by those that have no more.
    pub(super) logged: u64,
    /// Since when it hears no leader.
    silent: Option<Time>,
    /// When it asks for votes or, as a leader without a quorum, resigns.
    campaign: Time,
    /// A leader: it has no quorum.
    lonely: bool,
    /// A deposed leader, just thawed: it finds out then.
    pub(super) asleep: Time,
    /// When the leader it knows was elected, as far as it knows.
    pub(super) elected: Time,
    /// A leader's count of leases.
    pub(super) lessor: Option<Lessor>,
    /// It applies what it hears so much later.
    pub(super) lag: Time,
    /// What it is yet to apply.
    pub(super) late: VecDeque<(Time, Point)>,
    /// What came while it was frozen.
    pub(super) inbox: Vec<(Call, Request<K, V>)>,
    /// Looked for expired leases last.
    pub(super) swept: Time,
}

impl<K, V> Member<K, V> {
    pub(super) fn new() -> Self {
        Self {
            up: true,
            frozen: false,
            term: 1,
            leader: None,
            leaderless: None,
            applied: Point::default(),
            logged: 0,
            silent: None,
            campaign: Time::MAX,
            lonely: false,
            asleep: 0,
            elected: 0,
            lessor: None,
            lag: 0,
            late: VecDeque::new(),
            inbox: Vec::new(),
            swept: 0,
        }
    }

    /// It does something.
    pub(super) fn live(&self) -> bool {
        self.up && !self.frozen
    }

    pub(super) fn next_deadline(&self) -> Time {
        let sweep = self
            .lessor
            .as_ref()
            .map_or(Time::MAX, |lessor| lessor.next_sweep(self.swept + 1));
        let late = self.late.front().map_or(Time::MAX, |(at, _)| *at);
        let wakes = if self.asleep == 0 { Time::MAX } else { self.asleep };
        self.campaign.min(sweep).min(late).min(wakes)
    }
}

impl<K: Ord + Clone, V: Clone + PartialOrd> Etcd<K, V> {
    /// Says who reaches whom from now on.
    pub fn set_links(&mut self, now: Time, links: Links, out: &mut Vec<Output<K, V>>) {
        if self.links != links {
            self.tick(now, out);
            self.links = links;
            self.refresh(now, out);
        }
    }

    /// The member's process is killed. Its connections break; nothing is said.
    pub fn stop(&mut self, now: Time, member: usize, out: &mut Vec<Output<K, V>>) {
        self.tick(now, out);
        let gone = &mut self.members[member];
        *gone = Member {
            up: false,
            term: gone.term,
            applied: gone.applied,
            logged: gone.logged,
            lag: gone.lag,
            ..Member::new()
        };
        self.forget_waiting(member);
        self.watchers.retain(|watcher| watcher.member != member);
        self.refresh(now, out);
    }

    /// The member's process is started again, with what it had.
    pub fn start(&mut self, now: Time, member: usize, out: &mut Vec<Output<K, V>>) {
        self.tick(now, out);
        if self.members[member].up {
            return;
        }
        self.members[member].up = true;
        self.members[member].leaderless = Some(now);
        self.fall_silent(now, member);
        if self.members.len() == 1 {
            // etcd knows that it need not wait for others.
            self.members[member].campaign = now + TICK + self.rng.below(TICK);
        }
        self.refresh(now, out);
    }

    /// SIGSTOP: the member does nothing, and what reaches it waits.
    pub fn freeze(&mut self, now: Time, member: usize, out: &mut Vec<Output<K, V>>) {
        self.tick(now, out);
        self.members[member].frozen = self.members[member].up;
        self.refresh(now, out);
    }

    /// SIGCONT. A leader that others have replaced meanwhile needs a moment to find out, in which it answers what has waited.
    pub fn thaw(&mut self, now: Time, member: usize, out: &mut Vec<Output<K, V>>) {
        if !self.members[member].frozen {
            return;
        }
        self.tick(now, out);
        let term = self.members[member].term;
        let deposed = self.leads(member) && self.members.iter().any(|other| term < other.term);
        let (least, most) = self.settings.awakening;
        let moment = self.rng.range(least, most);
        let thawed = &mut self.members[member];
        thawed.frozen = false;
        thawed.asleep = if deposed { now + moment } else { 0 };
        thawed.swept = now;
        let armed = thawed.campaign != Time::MAX;
        if armed {
            let again = self.election_timeout();
            self.members[member].campaign = now + again;
        }
        if deposed {
            self.revoke_late(now, member);
        }
        let waited = std::mem::take(&mut self.members[member].inbox);
        for (call, request) in waited {
            self.admit(now, member, call, request, out);
        }
        self.refresh(now, out);
    }

    /// The member applies what it hears so much later, from now on.
    pub fn lag(&mut self, member: usize, lag: Time) {
        self.members[member].lag = lag;
    }

    /// Everything that is due: elections, leases, requests that have waited for too long, watches.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Output<K, V>>) {
        if now < self.due {
            return;
        }
        let mut upset = false;
        for member in 0..self.members.len() {
            if !self.members[member].live() {
                continue;
            }
            while let Some((at, point)) = self.members[member].late.front().copied()
                && at <= now
            {
                self.members[member].late.pop_front();
                self.members[member].applied = point.max(self.members[member].applied);
                upset = true;
            }
            if self.members[member].asleep != 0 && self.members[member].asleep <= now {
                self.members[member].asleep = 0;
                upset = true;
            }
            if self.members[member].campaign <= now {
                upset = true;
                self.campaign(now, member, out);
            }
            let sweep = self.members[member].next_deadline();
            if sweep <= now {
                self.members[member].swept = now;
                self.sweep(now, member, out);
            }
        }
        if upset {
            self.refresh(now, out);
        }
        self.give_up(now, out);
        self.tick_watches(now, out);
        self.reschedule();
    }

    /// The member takes itself for the leader.
    pub(super) fn leads(&self, member: usize) -> bool {
        self.members[member].leader == Some(member)
    }

    /// The member leads, and what is proposed to it is agreed.
    pub(super) fn commits(&self, member: usize) -> bool {
        let leader = &self.members[member];
        leader.live() && self.leads(member) && !leader.lonely && leader.asleep == 0
    }

    /// Messages go both ways, and both do something.
    pub(super) fn together(&self, a: usize, b: usize) -> bool {
        self.members[a].live() && self.members[b].live() && self.links.up(a, b) && self.links.up(b, a)
    }

    /// What has come to be agreed reaches whoever hears the leader.
    pub(super) fn spread(&mut self, now: Time, leader: usize) {
        let point = self.committed;
        for member in 0..self.members.len() {
            let hears = member == leader
                || self.members[member].live()
                    && self.links.up(leader, member)
                    && self.members[member].leader == Some(leader);
            if hears {
                self.advance(now, member, point);
            }
        }
    }

    fn advance(&mut self, now: Time, member: usize, point: Point) {
        let member = &mut self.members[member];
        member.logged = member.logged.max(point.index);
        if member.lag == 0 && member.late.is_empty() {
            member.applied = member.applied.max(point);
        } else if member.applied < point {
            member.late.push_back((now + member.lag, point));
        }
    }

    fn set_leader(&mut self, now: Time, member: usize, leader: Option<usize>) {
        let changed = self.members[member].leader != leader;
        let member = &mut self.members[member];
        member.leader = leader;
        if leader.is_none() {
            member.leaderless.get_or_insert(now);
        } else {
            member.leaderless = None;
            if changed {
                member.elected = now;
            }
        }
    }

    fn election_timeout(&mut self) -> Time {
        let once = self.settings.election;
        once + self.rng.below(once)
    }

    fn fall_silent(&mut self, now: Time, member: usize) {
        if self.members[member].silent.is_none() {
            let wait = self.election_timeout();
            self.members[member].silent = Some(now);
            self.members[member].campaign = now + wait;
        }
    }

    fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Draws the consequences of who runs and who reaches whom, until nothing more follows.
    pub(super) fn refresh(&mut self, now: Time, out: &mut Vec<Output<K, V>>) {
        for _ in 0..=2 * self.members.len() {
            let mut changed = false;
            for member in 0..self.members.len() {
                changed |= self.members[member].live() && self.listen(now, member);
            }
            if !changed {
                break;
            }
        }
        self.settle(now, out);
        self.pump(now, out);
        self.reschedule();
    }

    /// What one member makes of whom it hears. Says whether that may concern others.
    fn listen(&mut self, now: Time, member: usize) -> bool {
        let heard = (0..self.members.len())
            .filter(|other| *other != member && self.members[*other].live() && self.leads(*other))
            .filter(|other| self.links.up(*other, member))
            .max_by_key(|other| self.members[*other].term);
        let own = self.members[member].term;
        if let Some(leader) = heard
            && own <= self.members[leader].term
            && !(self.leads(member) && self.members[leader].term == own)
        {
            if now < self.members[member].asleep {
                return false;
            }
            if self.leads(member) {
                self.demote(now, member);
            }
            let changed = self.members[member].leader != Some(leader);
            let (term, point) = (self.members[leader].term, self.members[leader].applied);
            let follower = &mut self.members[member];
            follower.term = term;
            follower.silent = None;
            follower.campaign = Time::MAX;
            self.set_leader(now, member, Some(leader));
            if self.members[member].applied < point && self.members[member].late.is_empty() {
                self.advance(now, member, point);
            }
            return changed;
        }
        if let Some(leader) = heard
            && !self.leads(member)
            && self.together(leader, member)
        {
            // It comes back with a newer term, after having asked in vain for votes: the leader gives way.
            self.demote(now, leader);
            self.members[leader].term = own;
            self.set_leader(now, leader, None);
            self.members[leader].silent = None;
            self.fall_silent(now, leader);
            return true;
        }
        if !self.leads(member) {
            self.fall_silent(now, member);
            return false;
        }
        let term = self.members[member].term;
        let others = (0..self.members.len()).filter(|other| *other != member);
        let with = others.filter(|other| self.together(member, *other) && self.members[*other].term <= term);
        let lonely = with.count() + 1 < self.quorum();
        let was = std::mem::replace(&mut self.members[member].lonely, lonely);
        if lonely && self.members[member].campaign == Time::MAX {
            let wait = self.election_timeout();
            self.members[member].campaign = now + wait;
        } else if !lonely {
            self.members[member].campaign = Time::MAX;
        }
        was && !lonely
    }

    /// The leader is one no longer: what was proposed to it is lost, and it counts no leases.
    fn demote(&mut self, now: Time, member: usize) {
        self.members[member].lessor = None;
        self.members[member].lonely = false;
        self.members[member].asleep = 0;
        self.lose_proposals(member);
        self.set_leader(now, member, None);
    }

    /// The member has heard no leader, or led without a quorum, for an election timeout.
    fn campaign(&mut self, now: Time, member: usize, out: &mut Vec<Output<K, V>>) {
        let wait = self.election_timeout();
        if self.leads(member) {
            self.demote(now, member);
            self.members[member].silent = Some(now);
            self.members[member].campaign = now + wait;
            return;
        }
        let mut votes = 1;
        let mut term = self.members[member].term;
        let logged = self.members[member].logged;
        for other in 0..self.members.len() {
            if other == member || !self.together(member, other) || self.loyal(now, other) {
                continue;
            }
            term = term.max(self.members[other].term);
            votes += usize::from(self.members[other].logged <= logged);
        }
        let wins = self.quorum() <= votes;
        self.members[member].campaign = now + wait;
        self.set_leader(now, member, None);
        if !wins && self.settings.pre_vote {
            return;
        }
        let term = if wins { term } else { self.members[member].term } + 1;
        self.members[member].term = term;
        for other in 0..self.members.len() {
            if self.together(member, other) && !self.loyal(now, other) && other != member {
                self.members[other].term = term.max(self.members[other].term);
                self.set_leader(now, other, None);
            }
        }
        if wins {
            self.elect(now, member, out);
        }
    }

    /// The member has heard a leader within an election timeout (or is one): it does not listen to who asks for votes.
    fn loyal(&self, now: Time, member: usize) -> bool {
        let voter = &self.members[member];
        let since = voter.silent.map_or(0, |since| now.saturating_sub(since));
        voter.leader.is_some() && (self.leads(member) || since < self.settings.election)
    }

    /// The member is elected: an entry of the new term is agreed, and all leases live anew.
    pub(super) fn elect(&mut self, now: Time, member: usize, out: &mut Vec<Output<K, V>>) {
        let leases = self.store.leases.iter().map(|(id, lease)| (*id, lease.ttl));
        let lessor = Lessor::promoted(now, leases, self.settings.election);
        let elected = &mut self.members[member];
        elected.term = elected.term.max(self.committed.term + 1);
        elected.lessor = Some(lessor);
        elected.lonely = false;
        elected.silent = None;
        elected.campaign = Time::MAX;
        elected.swept = now;
        self.committed.index += 1;
        self.committed.term = elected.term;
        self.set_leader(now, member, Some(member));
        self.spread(now, member);
        self.refresh(now, out);
    }

    /// A person makes `to` the leader, or whoever is next where that cannot be.
    pub(super) fn move_leader(&mut self, now: Time, from: usize, to: usize, out: &mut Vec<Output<K, V>>) {
        if from == to || !self.together(from, to) {
            return;
        }
        let term = self.members[from].term;
        self.demote(now, from);
        self.members[to].term = term + 1;
        self.elect(now, to, out);
    }

    /// Leases that a leader left behind takes for expired when it thaws: its revocations go out by way of the new leader (B-095).
    fn revoke_late(&mut self, now: Time, member: usize) {
        if !self.settings.late_revokes {
            return;
        }
        let overdue = self.members[member]
            .lessor
            .as_ref()
            .map(|lessor| lessor.overdue(now));
        for id in overdue.into_iter().flatten() {
            self.wait_in_inbox(member, Request::Revoke(id));
        }
    }

    /// The leader looks for leases that have expired.
    fn sweep(&mut self, now: Time, member: usize, out: &mut Vec<Output<K, V>>) {
        if !self.commits(member) {
            return;
        }
        let overdue = self.members[member]
            .lessor
            .as_ref()
            .map(|lessor| lessor.overdue(now));
        let mut any = false;
        for id in overdue.into_iter().flatten() {
            self.expire(now, member, id);
            any = true;
        }
        if any {
            self.settle(now, out);
            self.pump(now, out);
        }
    }
}
