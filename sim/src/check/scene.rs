//! What stands at an instant: the fold of the record that all families look at. It judges nothing.

use std::collections::BTreeMap;

use surus_core::types::{Lsn, SystemId, Timeline};
use surus_core::view::Initialize;

use super::{Fact, name};
use crate::clock::Time;
use crate::record::{NodeIndex, Seen, Settings, Standing};

/// A server process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Process {
    /// None.
    #[default]
    Absent,
    /// It does not take connections yet.
    Starting {
        /// It will accept writes.
        as_primary: bool,
    },
    /// It takes connections.
    Up {
        /// And writes.
        primary: bool,
    },
}

/// A guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// None.
    #[default]
    Gone,
    /// Without a deadline.
    Idle,
    /// It kills at this time.
    Armed(Time),
}

/// A timeline that a person made by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByHand {
    /// Its number.
    pub timeline: Timeline,
    /// Where it left which.
    pub fork: (Timeline, Lsn),
    /// When.
    pub at: Time,
    /// Nothing on disk tells it from one of the cluster's: a leader had reserved that number, has done so since, or has made one of it in the same
    /// place. An agent that has not seen it begin takes the one for the other.
    pub hidden: bool,
}

/// What is known of one member.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// The server.
    pub process: Process,
    /// Since when it is that.
    pub since: Option<Fact>,
    /// When it was last a primary that accepts writes; the present, if it is one.
    pub primary_until: Option<Time>,
    /// A fast stop has cut the clients off.
    pub closing: bool,
    /// SIGSTOP, or it waits for ever.
    pub hung: bool,
    /// A person promoted it past its agent, which does not lead: what such a server does is that person's, and no client is let in.
    pub by_hand: bool,
    /// Its agent has said since then that clients may write to it.
    pub vouched: bool,
    /// The timeline that was made so, while its data is on it.
    pub made: Option<ByHand>,
    /// The last such timeline that it may have something of: of a member that it streamed from, or was cloned from.
    pub given: Option<ByHand>,
    /// What it had when that was last told.
    pub standing: Option<Standing>,
    /// Whom its walreceiver streams from.
    pub streams: Option<NodeIndex>,
    /// It was told that the WAL it needs has been removed, and has not streamed since.
    pub stranded: bool,
    /// The guard.
    pub guard: Guard,
    /// Since when it is that.
    pub guard_since: Option<Fact>,
    /// The right to be primary ends here, by the best that was confirmed.
    pub right: Time,
    /// What gave it.
    pub right_by: Option<Fact>,
    /// An agent runs.
    pub agent: bool,
    /// Since when.
    pub agent_since: Time,
    /// SIGSTOP to the agent.
    pub frozen: bool,
    /// When the agent last went on after it had stood still.
    pub woke: Option<Time>,
    /// When the whole host last went on after it had stood still.
    pub thawed: Option<Time>,
    /// The host stands still.
    pub host_frozen: bool,
    /// What its agent obeys.
    pub settings: Option<Settings>,
    /// Since when that is a pause.
    pub paused: Option<Time>,
}

impl Member {
    /// The whole host stood still and went on a moment ago: what waited in its sockets is being acknowledged, and the guard's kill is
    /// under way.
    #[must_use]
    pub fn just_thawed(&self, at: Time) -> bool {
        self.thawed
            .is_some_and(|thawed| at <= thawed + super::fence::KILL)
    }

    /// Its data is taken for the cluster's, and is what a person made by hand: see [`ByHand::hidden`].
    #[must_use]
    pub fn mistaken(&self) -> bool {
        self.made.is_some_and(|made| made.hidden)
    }

    /// So is what it was given of such a timeline, before its number was the cluster's as well perhaps: it has that one's first record, and no
    /// upstream's log continues it.
    fn misled(&self) -> bool {
        let on = |made: ByHand| {
            self.standing
                .is_some_and(|standing| standing.timeline == made.timeline)
        };
        self.mistaken() || self.given.is_some_and(|given| given.hidden && on(given))
    }

    /// What it has of this timeline is what a person made by hand, there or on a member that it had it from, whatever the cluster has of that
    /// number.
    #[must_use]
    pub fn by_hand_on(&self, timeline: Timeline) -> Option<ByHand> {
        let mut any = [self.made, self.given].into_iter().flatten();
        any.find(|made| made.timeline == timeline)
    }

    /// It accepts writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.process == Process::Up { primary: true } && !self.closing
    }
}

/// What stands at an instant.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    /// The members.
    pub members: Vec<Member>,
    /// Who holds the lock, and the entry that gave it.
    pub holder: Option<(NodeIndex, Fact)>,
    /// Since when nobody does.
    pub leaderless: Option<Time>,
    /// The primary that `status` says runs without a deadline.
    pub unfenced: Option<NodeIndex>,
    /// Whose primary a person let others overrule, by a manual failover that named another, while it ran without a deadline or could live by
    /// grants that did not need the other's; what it writes is that person's.
    pub overruled: Option<NodeIndex>,
    /// It was overruled for want of a deadline: with one it is fenced again.
    deadline_fences: bool,
    /// Who held the lock last.
    last_holder: Option<NodeIndex>,
    /// The last `status`: its position and who wrote it when.
    pub status: Option<(Lsn, Fact)>,
    /// The timeline of that position.
    pub lived: Option<Timeline>,
    /// The timeline that was reserved last.
    pub reserved: Option<Timeline>,
    /// The members on the failsafe list.
    pub failsafe: Option<Vec<NodeIndex>>,
    /// A person's wish: (the leader it is meant for, who shall take over).
    pub failover: Option<(Option<NodeIndex>, Option<NodeIndex>)>,
    /// Who wrote the `sync` key last, and is its leader.
    pub sync_leader: Option<NodeIndex>,
    /// Who took the lock by a person's word since the promotion before the last one: whoever does may lose it again before it is promoted.
    by_word: Vec<NodeIndex>,
    /// Somebody was promoted since the lock was taken.
    promoted: bool,
    /// Where the cluster's timelines began.
    forks: BTreeMap<Timeline, (Timeline, Lsn)>,
    /// What a person made by hand last and has become the cluster's since: who leads with it, and what it had then.
    pub adopted: Option<(NodeIndex, Standing, (Timeline, Lsn))>,
    /// The cluster's identity.
    pub identity: Option<SystemId>,
    /// All faults are over.
    pub healed: Option<Time>,
    /// etcd has a leader.
    pub quorum: bool,
}

impl Scene {
    /// A cluster of so many members, of which nothing has been seen.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self {
            members: vec![Member::default(); nodes],
            leaderless: Some(0),
            quorum: true,
            ..Self::default()
        }
    }

    /// A member; one that nothing was said of is as if it had not begun.
    #[must_use]
    pub fn member(&self, node: NodeIndex) -> Option<&Member> {
        self.members.get(node)
    }

    /// The node holds the lock.
    #[must_use]
    pub fn leads(&self, node: NodeIndex) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == node)
    }

    /// The node's server was promoted by hand, past its agent: see [`Member::by_hand`].
    #[must_use]
    pub fn by_hand(&self, node: NodeIndex) -> bool {
        self.member(node).is_some_and(|member| member.by_hand)
    }

    /// A person named `node` in a manual failover, whatever it costs.
    #[must_use]
    pub fn forced(&self, node: NodeIndex) -> bool {
        self.failover == Some((None, Some(node)))
    }

    /// The last published position is of another timeline than this one, whose reign was over before it published any.
    #[must_use]
    pub fn unpublished(&self, node: NodeIndex, timeline: Timeline) -> bool {
        let made = self.members.get(node).and_then(|member| member.made);
        if made.is_some_and(|made| made.timeline == timeline) {
            return false;
        }
        let last = self.reserved.is_some_and(|next| next <= timeline);
        last && self.lived.is_some_and(|lived| lived < timeline)
    }

    /// If `node` is promoted now, it is by the word of a person, who has given up what it lacks.
    #[must_use]
    pub fn by_word(&self, node: NodeIndex) -> bool {
        self.by_word.contains(&node)
    }

    /// A timeline begins on a disk: a person's, or the cluster's.
    fn fold_fork(&mut self, node: NodeIndex, at: Time, fork: (Timeline, Lsn), timeline: Timeline) {
        let twin = |made: &ByHand| made.timeline == timeline && made.fork == fork;
        let Some(member) = self.members.get_mut(node) else {
            return;
        };
        if member.by_hand {
            let hidden = Some(timeline) <= self.reserved || self.forks.get(&timeline) == Some(&fork);
            member.made = Some(ByHand {
                timeline,
                fork,
                at,
                hidden,
            });
        } else {
            self.forks.insert(timeline, fork);
            let made = self
                .members
                .iter_mut()
                .map(|member| [&mut member.made, &mut member.given]);
            for made in made.flatten().flatten().filter(|made| twin(made)) {
                made.hidden = true;
            }
        }
    }

    /// Takes in an entry.
    pub fn fold(&mut self, fact: Fact, seen: &Seen) {
        self.fold_cluster(fact, seen);
        if let (
            Seen::Forked {
                from,
                switch,
                standing,
            },
            Some(node),
        ) = (seen, fact.node)
        {
            self.fold_fork(node, fact.at, (*from, *switch), standing.timeline);
        }
        let Some(node) = fact.node else { return };
        if self.members.len() <= node {
            self.members.resize(node + 1, Member::default());
        }
        let member = &mut self.members[node];
        if member.is_primary() {
            member.primary_until = Some(fact.at);
        }
        member.fold(fact, seen);
        if let (Seen::AgentBegan, Some(made)) = (seen, &mut member.made) {
            // A leader has reserved that number since, and what came of that is not published.
            let next = self.lived < Some(made.timeline) && Some(made.timeline) <= self.reserved;
            made.hidden |= next;
        }
        if let Seen::Streaming { upstream, .. } | Seen::Rebuilt { source: upstream, .. } = seen {
            // What it is given may be of that timeline.
            let theirs = self.members.get(*upstream);
            let made = theirs.and_then(|upstream| upstream.made);
            let given = made.or_else(|| theirs?.given);
            let member = &mut self.members[node];
            member.made = member.made.or(made.filter(|made| made.hidden));
            // What has not come as far as that timeline has nothing of it.
            let reached = |made: &ByHand| {
                member
                    .standing
                    .is_some_and(|standing| made.timeline <= standing.timeline)
            };
            member.given = given.or(member.given.filter(reached));
        }
        let led = self.leads(node);
        let member = &mut self.members[node];
        let fenced = matches!(member.guard, Guard::Armed(until) if fact.at < until) && fact.at < member.right;
        let by_hand = member.by_hand || member.made.is_some() && member.is_primary();
        // A number below the one that was reserved for its leader is never the cluster's. Who takes the lock in the instant of the promotion, or
        // before its timeline begins, has not seen it yet.
        let made = |made: ByHand| self.reserved <= Some(made.timeline);
        let counts = member.vouched || member.made.is_some_and(made);
        if by_hand && led && counts && (fenced || self.unfenced == Some(node)) {
            member.by_hand = false;
            let made = member.made.take().filter(|_| member.is_primary());
            self.adopted = made
                .zip(member.standing)
                .map(|(made, standing)| (node, standing, made.fork));
        }
        let armed = self.deadline_fences && matches!(member.guard, Guard::Armed(_));
        // As long as its right runs, its agent starts it again in place.
        let fenced = armed || member.process == Process::Absent && member.right < fact.at;
        if self.overruled == Some(node) && fenced {
            self.overruled = None;
        }
    }

    /// A person made this node the leader, whoever may still be there.
    fn overrule(&mut self, node: NodeIndex) {
        let unlisted = self.failsafe.as_ref().is_some_and(|list| !list.contains(&node));
        let granted = self.last_holder.filter(|_| unlisted);
        if let Some(other) = self.unfenced.or(granted).filter(|other| *other != node) {
            self.overruled = Some(other);
            self.deadline_fences = self.unfenced.is_some();
        }
    }

    fn fold_cluster(&mut self, fact: Fact, seen: &Seen) {
        match (seen, fact.node) {
            (Seen::LockTaken { .. }, Some(node)) => {
                if std::mem::take(&mut self.promoted) {
                    // Whom the `sync` key names as the last leader goes on from what it had by that word.
                    let last = self.sync_leader;
                    self.by_word.retain(|node| Some(*node) == last);
                }
                if self.forced(node) {
                    self.overrule(node);
                    self.by_word.push(node);
                }
                self.last_holder = Some(node);
                self.holder = Some((node, fact));
                self.leaderless = None;
            }
            (Seen::Promoted { .. }, Some(node)) => {
                self.promoted |= !self.by_hand(node);
            }
            (Seen::LockReleased { .. } | Seen::LockLost { .. }, _) => {
                self.holder = None;
                self.leaderless.get_or_insert(fact.at);
            }
            (
                Seen::StatusWritten {
                    optime,
                    timeline,
                    next,
                    unfenced,
                    ..
                },
                Some(node),
            ) => {
                self.status = Some((*optime, fact));
                (self.lived, self.reserved) = (*timeline, *next);
                self.unfenced = unfenced.then_some(node);
            }
            (
                Seen::InitializeWritten {
                    to: Some(Initialize::Done(id)),
                },
                _,
            ) => self.identity = Some(*id),
            (Seen::FailsafeWritten { list }, _) => self.failsafe = Some(list.clone()),
            (Seen::FailoverWritten { leader, candidate }, _) => self.failover = Some((*leader, *candidate)),
            (Seen::FailoverCleared, _) => self.failover = None,
            (Seen::SyncWritten { .. }, by) => self.sync_leader = by,
            (Seen::EtcdLeader { member, .. }, _) => self.quorum = member.is_some(),
            (Seen::Healed, _) => self.healed = Some(fact.at),
            _ => {}
        }
    }

    /// Why not all is well yet: the holder of the lock accepts writes, and everybody else streams from it, directly or through
    /// others. `None`: all is well.
    ///
    /// Not asked of a member whose agent has ended because its data belongs to another cluster, nor of one that needs WAL which its upstream
    /// has removed, and who streams from it: these are for a person (`surus reinit`); nor of who is to lead where that is (`surus failover`).
    #[must_use]
    pub fn unconverged(&self) -> Option<String> {
        let Some((leader, _)) = self.holder else {
            return (!self.led_astray()).then(|| "nobody holds the lock".to_owned());
        };
        let first = &self.members[leader];
        if !first.is_primary() {
            return Some(format!(
                "{} holds the lock and does not accept writes",
                name(leader)
            ));
        }
        for (node, member) in self.members.iter().enumerate() {
            let foreign = match (member.standing, first.standing) {
                (Some(own), Some(theirs)) => own.system_id != theirs.system_id,
                _ => false,
            };
            if !member.agent {
                if foreign {
                    continue;
                }
                return Some(format!("{} has no agent", name(node)));
            }
            if node != leader && !member.stranded && !member.misled() && !self.behind(node, leader) {
                return Some(format!("{} does not stream from {}", name(node), name(leader)));
            }
        }
        None
    }

    /// Nobody may lead but by a person's word: the `sync` key names one whom such a word made the leader, whose reign came to nothing, and whom
    /// a person has promoted past its agent since.
    #[must_use]
    pub fn led_astray(&self) -> bool {
        let named = self.sync_leader.filter(|node| self.by_word(*node));
        let member = named.and_then(|node| self.member(node));
        member.is_some_and(|member| member.made.is_some())
    }

    /// The member streams from `leader`, through whomever, or from one that needs WAL which is gone.
    fn behind(&self, mut node: NodeIndex, leader: NodeIndex) -> bool {
        for _ in 0..self.members.len() {
            let member = &self.members[node];
            let replica = member.process == Process::Up { primary: false };
            let Some(upstream) = member.streams.filter(|_| replica) else {
                return false;
            };
            let above = &self.members[upstream];
            if !matches!(above.process, Process::Up { .. }) {
                return false;
            }
            if upstream == leader || above.stranded || above.misled() {
                return true;
            }
            node = upstream;
        }
        false
    }
}

impl Member {
    fn become_(&mut self, process: Process, standing: Option<Standing>, fact: Fact) {
        if process == Process::Absent || matches!(process, Process::Starting { .. }) {
            self.closing = false;
            self.hung = false;
            self.by_hand = false;
            self.streams = None;
        }
        if process == (Process::Up { primary: true }) {
            self.streams = None;
            self.primary_until = Some(fact.at);
        }
        self.process = process;
        self.since = Some(fact);
        self.standing = standing.or(self.standing);
    }

    fn fold(&mut self, fact: Fact, seen: &Seen) {
        match seen {
            Seen::Bootstrapped { system_id } => {
                self.standing = Some(Standing {
                    system_id: *system_id,
                    timeline: Timeline(1),
                    position: Lsn(0),
                });
            }
            Seen::Starting { as_primary, standing } => {
                let as_primary = *as_primary;
                self.become_(Process::Starting { as_primary }, Some(*standing), fact);
            }
            Seen::Up { primary, standing } => {
                let primary = *primary;
                self.become_(Process::Up { primary }, Some(*standing), fact);
            }
            Seen::PromotedByHand => {
                self.by_hand = true;
                self.vouched = false;
            }
            Seen::Health { primary: true, .. } => self.vouched = true,
            Seen::Promoted { standing, .. } => {
                if !self.by_hand {
                    self.made = None;
                }
                self.become_(Process::Up { primary: true }, Some(*standing), fact);
            }
            Seen::Ended { standing, .. } => self.become_(Process::Absent, *standing, fact),
            Seen::Closing => self.closing = true,
            Seen::Hung { hung } => self.hung = *hung,
            Seen::Streaming { upstream, standing } => {
                self.streams = Some(*upstream);
                self.stranded = false;
                self.standing = Some(*standing);
            }
            Seen::StreamLost { .. } => self.streams = None,
            Seen::WalMissing => self.stranded = true,
            Seen::Committed { standing, .. } => self.standing = Some(*standing),
            Seen::Rebuilt { standing, .. } => {
                self.standing = Some(*standing);
                (self.made, self.given) = (None, None);
                self.stranded = false;
            }
            Seen::DataBroken | Seen::DataGone { .. } => {
                (self.standing, self.made, self.given) = (None, None, None);
            }
            Seen::GuardBegan => (self.guard, self.guard_since) = (Guard::Idle, Some(fact)),
            Seen::Armed { until } => {
                // A deadline that is brought forward, to before this instant, binds from now on.
                let until = match self.guard {
                    Guard::Armed(before) if *until < fact.at => before.min(fact.at),
                    _ => *until,
                };
                (self.guard, self.guard_since) = (Guard::Armed(until), Some(fact));
            }
            Seen::Lifted => (self.guard, self.guard_since) = (Guard::Idle, Some(fact)),
            Seen::GuardDied => (self.guard, self.guard_since) = (Guard::Gone, Some(fact)),
            Seen::Power { on: false } => {
                (self.guard, self.guard_since) = (Guard::Gone, Some(fact));
                self.agent = false;
            }
            Seen::Right { until, .. } if self.right < *until => {
                self.right = *until;
                self.right_by = Some(fact);
            }
            Seen::AgentBegan => (self.agent, self.agent_since, self.frozen) = (true, fact.at, false),
            Seen::AgentDied | Seen::AgentEnded { .. } => self.agent = false,
            Seen::AgentFrozen { frozen } => {
                self.frozen = *frozen;
                self.woke = Some(fact.at);
            }
            Seen::HostFrozen { frozen } => {
                self.host_frozen = *frozen;
                self.woke = Some(fact.at);
                if !frozen {
                    self.thawed = Some(fact.at);
                }
            }
            Seen::Configured(settings) => {
                self.settings = Some(*settings);
                self.paused = settings.pause.then(|| self.paused.unwrap_or(fact.at));
            }
            _ => {}
        }
    }
}
