//! What has been seen of the servers and of etcd, and what follows from it: roles, reigns, and two primaries at once.
//!
//! Nothing here is an agent's own word. A server is asked over a connection of its own whether it takes writes. The answer is true of
//! some instant between question and answer, so a *reign* is what is certain: from its first answer to its last question. Two reigns
//! of different members that overlap are two primaries, proven.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use surus_scenarios::{Nanos, Role};

use crate::dcs::Key;
use crate::world::Ordered;

/// An answer older than this says nothing of now.
const FRESH: Nanos = Nanos::ms(1500);

/// How long a server that a person has promoted may take writes, from the command on.
const BY_HAND: Nanos = Nanos::secs(3);

/// The world's time. It can be set while nothing happens.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    ahead: Duration,
}

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            began: crate::clock::now(),
            ahead: Duration::ZERO,
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.at(crate::clock::now())
    }

    /// The time of an instant.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Nanos {
        let since = instant.saturating_duration_since(self.began) + self.ahead;
        Nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The instant of a time.
    #[must_use]
    pub fn instant(&self, time: Nanos) -> Instant {
        self.began + Duration::from_nanos(time.0).saturating_sub(self.ahead)
    }

    /// Makes it `time` now.
    fn set(&mut self, time: Nanos) {
        self.began = crate::clock::now();
        self.ahead = Duration::from_nanos(time.0);
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// It takes writes.
    pub primary: bool,
    /// The timeline it writes or receives; zero if it does neither.
    pub timeline: u32,
    /// How far it is: written if primary, else received or replayed, whichever is more.
    pub position: u64,
    /// It streams, and from there.
    pub upstream: Option<Ipv4Addr>,
    /// When its postmaster started, as text.
    pub start: String,
}

/// A member's server, as last seen.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// The last answer, and when it came.
    answer: Option<(Nanos, Answer)>,
    /// It was refused, or told to wait, after the last answer.
    refused: bool,
    /// Where it was at times; the newest last.
    positions: VecDeque<(Nanos, u64)>,
}

/// A time during which a member certainly took writes, on one timeline and without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// Who.
    pub member: usize,
    /// On which timeline.
    pub timeline: u32,
    /// From the first answer on.
    pub from: Nanos,
    /// To the last question.
    pub to: Nanos,
    /// When its postmaster started, as text.
    start: String,
}

/// Something that a trap can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The leader key is gone.
    LockLost,
    /// This member has it.
    LockTaken(usize),
    /// This member's server was a replica and takes writes.
    Promoted(usize),
    /// This member's server took writes and answers no more.
    Stopped(usize),
    /// This member's server answers again.
    Started(usize),
    /// This member's agent has given an order.
    Ordered(usize, Ordered),
}

/// All that has been seen.
#[derive(Debug)]
pub struct Seen {
    /// The world's time.
    pub clock: Clock,
    names: Vec<String>,
    servers: Vec<Server>,
    /// In the order in which they began.
    pub reigns: Vec<Reign>,
    /// Who holds the leader key.
    pub leader: Option<usize>,
    /// Who held it last, and who before.
    pub leaders: (Option<usize>, Option<usize>),
    /// The keys of the cluster when they were last read.
    pub keys: BTreeMap<String, Key>,
    /// Hosts, or guards, that stood still, and until when: the instant after is what the lease cannot cover.
    pub thawed: Vec<(usize, Nanos)>,
    /// Servers that a person has promoted past their agents, and when: nothing can prevent that, and the agent must end it at once.
    pub by_hand: Vec<(usize, Nanos)>,
    /// What traps wait for; taken by whoever looks.
    pub facts: Vec<Fact>,
    /// The story of the run.
    pub lines: Vec<(Nanos, String)>,
    /// Two primaries.
    pub violation: Option<String>,
}

impl Seen {
    /// Of members with these names; the clock begins now.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self {
            clock: Clock::start(),
            servers: vec![Server::default(); names.len()],
            names,
            reigns: Vec::new(),
            leader: None,
            leaders: (None, None),
            keys: BTreeMap::new(),
            thawed: Vec::new(),
            by_hand: Vec::new(),
            facts: Vec::new(),
            lines: Vec::new(),
            violation: None,
        }
    }

    /// Makes it `time` now, whether the cluster took longer than that to come about or not. What was seen of it until now was just before.
    pub fn set_clock(&mut self, time: Nanos) {
        self.clock.set(time);
        for reign in &mut self.reigns {
            reign.from = reign.from.min(time);
            reign.to = reign.to.min(time);
        }
        for server in &mut self.servers {
            server.positions.clear();
            if let Some((at, _)) = &mut server.answer {
                *at = time;
            }
        }
    }

    /// Adds a line to the story of the run.
    pub fn tell(&mut self, line: impl Into<String>) {
        let now = self.clock.now();
        self.lines.push((now, line.into()));
    }

    /// A server answered a question that was asked at `asked`.
    pub fn answered(&mut self, member: usize, asked: Nanos, answer: Answer) {
        let now = self.clock.now();
        // The clock may have been set back since.
        let asked = asked.min(now);
        let server = &mut self.servers[member];
        let before = server.answer.as_ref().filter(|_| !server.refused);
        let changed = before.is_none_or(|(_, before)| {
            (before.primary, before.timeline, &before.start)
                != (answer.primary, answer.timeline, &answer.start)
        });
        if changed {
            let was = before.map(|(_, before)| before.primary);
            let role = if answer.primary { "primary" } else { "replica" };
            let line = format!("{} is {role}, timeline {}", self.names[member], answer.timeline);
            self.lines.push((now, line));
            if was.is_none() {
                self.facts.push(Fact::Started(member));
            }
            if was == Some(false) && answer.primary {
                self.facts.push(Fact::Promoted(member));
            }
        }
        if answer.primary {
            self.reigns(member, asked, now, &answer);
        }
        let server = &mut self.servers[member];
        server.refused = false;
        server.positions.push_back((now, answer.position));
        if server.positions.len() > 200 {
            server.positions.pop_front();
        }
        server.answer = Some((now, answer));
    }

    fn reigns(&mut self, member: usize, asked: Nanos, now: Nanos, answer: &Answer) {
        let known = self.reigns.iter_mut().find(|reign| {
            reign.member == member && reign.timeline == answer.timeline && reign.start == answer.start
        });
        match known {
            Some(reign) => reign.to = asked,
            None => self.reigns.push(Reign {
                member,
                timeline: answer.timeline,
                from: now,
                to: now,
                start: answer.start.clone(),
            }),
        }
        self.violation = self.violation.take().or_else(|| self.two());
    }

    /// Two reigns of different members that overlap.
    fn two(&self) -> Option<String> {
        for (index, one) in self.reigns.iter().enumerate() {
            for other in self.reigns[index + 1..]
                .iter()
                .filter(|other| other.member != one.member)
            {
                let (begins, ends) = (one.from.max(other.from), one.to.min(other.to));
                if ends <= begins || self.excused(one, begins) || self.excused(other, begins) {
                    continue;
                }
                let name = |reign: &Reign| format!("{} (TL {})", self.names[reign.member], reign.timeline);
                return Some(format!(
                    "{} and {} both took writes from {begins} to {ends}",
                    name(one),
                    name(other)
                ));
            }
        }
        None
    }

    /// The reign goes on after `begins` only in the instant after its host, or its guard, was thawed.
    /// Or it is one that a person has begun, and is soon over.
    fn excused(&self, reign: &Reign, begins: Nanos) -> bool {
        self.at_hand(reign.member, reign.from, reign.to)
            || self.thawed.iter().any(|(member, until)| {
                *member == reign.member && begins <= *until && reign.to <= until.plus(Nanos::ms(500))
            })
    }

    /// A person had promoted the server past its agent a moment before all of this time: what it took then is that person's.
    pub fn at_hand(&self, member: usize, from: Nanos, to: Nanos) -> bool {
        let mut by_hand = self.by_hand.iter();
        by_hand.any(|(promoted, at)| *promoted == member && *at <= from && to <= at.plus(BY_HAND))
    }

    /// A server cannot be asked. `refused`: it says so itself, it is not merely silent.
    pub fn silent(&mut self, member: usize, refused: bool, why: &str) {
        let now = self.clock.now();
        let server = &mut self.servers[member];
        if !refused || server.refused {
            return;
        }
        server.refused = true;
        if let Some((_, answer)) = &server.answer {
            if answer.primary {
                self.facts.push(Fact::Stopped(member));
            }
            let line = format!("{} lets nobody in: {why}", self.names[member]);
            self.lines.push((now, line));
        }
    }

    /// What the keys of the cluster are.
    pub fn keys(&mut self, keys: BTreeMap<String, Key>) {
        let index = |name: &str| self.names.iter().position(|known| known == name);
        let leader = keys.get("leader").and_then(|key| index(&key.value));
        let created = |keys: &BTreeMap<String, Key>| keys.get("leader").map(|key| key.created);
        let now = self.clock.now();
        if created(&keys) != created(&self.keys) {
            if self.keys.contains_key("leader") {
                self.facts.push(Fact::LockLost);
            }
            match leader {
                Some(member) => {
                    self.facts.push(Fact::LockTaken(member));
                    self.lines
                        .push((now, format!("{} takes the lock", self.names[member])));
                    if self.leaders.0 != Some(member) {
                        self.leaders = (Some(member), self.leaders.0);
                    }
                }
                None => self.lines.push((now, "nobody holds the lock".to_owned())),
            }
            self.leader = leader;
        }
        let told = ["config", "failover", "initialize", "history", "sync", "failsafe"];
        for name in told {
            let value = |keys: &BTreeMap<String, Key>| keys.get(name).map(|key| key.value.clone());
            let (was, is) = (value(&self.keys), value(&keys));
            if was != is {
                let is: String = is
                    .unwrap_or_else(|| "(none)".to_owned())
                    .chars()
                    .take(300)
                    .collect();
                self.lines.push((now, format!("key {name}: {is}")));
            }
        }
        self.keys = keys;
    }

    /// The last answer of a server, if it is not too old to say something of now.
    #[must_use]
    pub fn answer(&self, member: usize) -> Option<&Answer> {
        let server = self.servers.get(member)?;
        let (at, answer) = server.answer.as_ref().filter(|_| !server.refused)?;
        (self.clock.now() <= at.plus(FRESH)).then_some(answer)
    }

    /// What a member is; `None` if it is silent.
    #[must_use]
    pub fn role(&self, member: usize) -> Option<Role> {
        match self.answer(member) {
            Some(answer) if answer.primary => Some(Role::Primary),
            Some(_) => Some(Role::Replica),
            None => {
                let server = self.servers.get(member)?;
                (server.refused || server.answer.is_none()).then_some(Role::Down)
            }
        }
    }

    /// Those that take writes.
    #[must_use]
    pub fn primaries(&self) -> Vec<usize> {
        let all = 0..self.servers.len();
        all.filter(|member| self.role(*member) == Some(Role::Primary))
            .collect()
    }

    /// Those that run in recovery.
    #[must_use]
    pub fn replicas(&self) -> Vec<usize> {
        let all = 0..self.servers.len();
        all.filter(|member| self.role(*member) == Some(Role::Replica))
            .collect()
    }

    /// Where a member's server was at that time, or just before.
    fn position(&self, member: usize, time: Nanos) -> u64 {
        let positions = self.servers[member].positions.iter().rev();
        positions
            .filter(|(at, _)| *at <= time)
            .map(|(_, position)| *position)
            .next()
            .unwrap_or(0)
    }

    /// One primary with the lock, everybody else streams from it, directly or not, on its timeline, and has what it had a second ago.
    ///
    /// # Errors
    /// What is missing.
    pub fn healthy(&self, address: impl Fn(usize) -> Ipv4Addr) -> Result<usize, String> {
        let name = |member: usize| self.names[member].as_str();
        let leader = self.leader.ok_or("nobody holds the lock")?;
        let answer = self.answer(leader).filter(|answer| answer.primary);
        let answer = answer.ok_or_else(|| format!("{} holds the lock and takes no writes", name(leader)))?;
        let (timeline, wanted) = (
            answer.timeline,
            self.position(leader, self.clock.now().minus(Nanos::secs(1))),
        );
        for member in (0..self.names.len()).filter(|member| *member != leader) {
            let answer = self.answer(member);
            let answer = answer.ok_or_else(|| format!("{} does not answer", name(member)))?;
            if answer.primary {
                return Err(format!("{} takes writes, too", name(member)));
            }
            let upstream = answer.upstream.and_then(|upstream| {
                (0..self.names.len()).find(|other| *other != member && address(*other) == upstream)
            });
            if upstream.is_none() {
                return Err(format!("{} does not stream", name(member)));
            }
            if answer.timeline != timeline {
                return Err(format!(
                    "{} is on timeline {}, {} on {timeline}",
                    name(member),
                    answer.timeline,
                    name(leader)
                ));
            }
            if answer.position < wanted {
                return Err(format!(
                    "{} is {} bytes behind",
                    name(member),
                    wanted - answer.position
                ));
            }
        }
        Ok(leader)
    }

    /// The timelines that were written since a time, that of the first reign then left out.
    #[must_use]
    pub fn promotions(&self, since: Nanos) -> usize {
        let before = self.reigns.iter().filter(|reign| reign.from <= since);
        let known: BTreeSet<u32> = before.map(|reign| reign.timeline).collect();
        let after = self.reigns.iter().filter(|reign| since < reign.from);
        let new: BTreeSet<u32> = after
            .map(|reign| reign.timeline)
            .filter(|timeline| !known.contains(timeline))
            .collect();
        new.len()
    }

    /// A member's name.
    #[must_use]
    pub fn name(&self, member: usize) -> &str {
        &self.names[member]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen::new(vec!["n1".to_owned(), "n2".to_owned()])
    }

    fn answer(primary: bool, timeline: u32) -> Answer {
        Answer {
            primary,
            timeline,
            position: 100,
            upstream: None,
            start: "then".to_owned(),
        }
    }

    fn reign(member: usize, timeline: u32, from: u64, to: u64) -> Reign {
        Reign {
            member,
            timeline,
            from: Nanos::ms(from),
            to: Nanos::ms(to),
            start: String::new(),
        }
    }

    #[test]
    fn reigns_that_overlap_are_two_primaries_unless_the_older_one_just_woke() {
        let mut seen = seen();
        seen.reigns = vec![reign(0, 1, 0, 900), reign(1, 2, 901, 2000)];
        assert_eq!(seen.two(), None);
        seen.reigns[0].to = Nanos::ms(1200);
        assert!(
            seen.two()
                .is_some_and(|text| text.contains("n1 (TL 1) and n2 (TL 2)"))
        );
        seen.thawed.push((0, Nanos::ms(1100)));
        assert_eq!(seen.two(), None);
        seen.reigns[0].to = Nanos::ms(1700);
        assert!(seen.two().is_some(), "it went on for too long");
        seen.thawed = vec![(0, Nanos::ms(800))];
        seen.reigns[0].to = Nanos::ms(1200);
        assert!(seen.two().is_some(), "the other came only after it had woken");
    }

    #[test]
    fn what_a_person_promoted_is_excused_for_a_moment() {
        let mut seen = seen();
        seen.reigns = vec![reign(0, 1, 0, 9000), reign(1, 2, 5100, 6000)];
        assert!(seen.two().is_some());
        seen.by_hand.push((1, Nanos::ms(5000)));
        assert_eq!(seen.two(), None);
        seen.reigns[1].to = Nanos::ms(8100);
        assert!(seen.two().is_some(), "its agent did not end it");
        seen.reigns[1].to = Nanos::ms(6000);
        seen.by_hand = vec![(0, Nanos::ms(5000))];
        assert!(seen.two().is_some(), "it is another that was promoted");
    }

    #[test]
    fn a_promotion_is_a_timeline_that_was_not_there() {
        let mut seen = seen();
        seen.answered(0, Nanos::ZERO, answer(true, 1));
        let since = seen.clock.now();
        seen.answered(1, Nanos::ZERO, answer(false, 1));
        assert_eq!(seen.promotions(since), 0);
        assert_eq!(seen.replicas(), [1]);
        seen.facts.clear();
        seen.answered(1, since, answer(true, 2));
        assert_eq!(seen.promotions(since), 1);
        assert_eq!(seen.facts, [Fact::Promoted(1)]);
        assert_eq!(seen.role(0), Some(Role::Primary));
        seen.silent(0, false, "nothing comes");
        assert_eq!(
            seen.role(0),
            Some(Role::Primary),
            "silence alone says nothing yet"
        );
        seen.silent(0, true, "connection refused");
        assert_eq!(seen.role(0), Some(Role::Down));
    }

    #[test]
    fn a_cluster_that_took_long_to_come_about_is_no_reason_to_begin_late() {
        let mut seen = seen();
        seen.set_clock(Nanos::secs(40));
        let asked = seen.clock.now();
        assert!(Nanos::secs(40) <= asked);
        seen.answered(0, asked, answer(true, 1));
        seen.set_clock(Nanos::secs(18));
        assert!(Nanos::secs(18) <= seen.clock.now() && seen.clock.now() < Nanos::secs(23));
        assert_eq!(seen.reigns[0].from, Nanos::secs(18));
        assert_eq!(seen.role(0), Some(Role::Primary), "the answer is still fresh");
        seen.answered(0, asked, answer(true, 1));
        assert!(
            seen.reigns[0].to <= seen.clock.now(),
            "a question of before is not one of the future"
        );
        let then = Nanos::secs(30);
        assert_eq!(seen.clock.at(seen.clock.instant(then)), then);
    }
}
