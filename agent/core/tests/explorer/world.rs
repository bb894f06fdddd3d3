//! What the explorer puts around the plan: members, the key, PostgreSQL's processes, and commits.
//!
//! Kept as small as the question allows. Members are numbers, and sets of them bits. Of commits only those matter that fewest members have,
//! of former settings those that fewest standbys acknowledge by. Who streams is not kept: it may be anybody at each step. Everything that
//! can happen at any time is an event, the answer to each write included.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use surus_core::sync::plan::{self, Present, Step, Target};
use surus_core::sync::target::{Candidate, target};
use surus_core::sync::{Mode, Names, Settings, SyncKey};
use surus_core::types::{Lsn, NodeName};

/// At most so many members.
const MEMBERS: u8 = 4;

/// A set of members.
type Set = u8;

/// `sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    leader: u8,
    voters: Set,
    quorum: u8,
}

/// `synchronous_standby_names`: so many of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Rule {
    any: bool,
    number: u8,
    of: Set,
}

const ALONE: Rule = Rule {
    any: false,
    number: 0,
    of: 0,
};

/// Sets of members of which none holds another: for each acknowledged commit who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Holders(u16);

/// Settings of which none allows all that another allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Rules(u64);

/// What a primary is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Life {
    /// It has taken the lock as a replica.
    Elected,
    /// It serves.
    Serves,
    /// It crashed and is to be started again in place.
    Crashed,
}

/// The leader and its PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Leader {
    who: u8,
    life: Life,
    /// One of its writes of the key was not answered.
    doubt: bool,
    /// What was set last.
    names: Rule,
    /// What the agent reads.
    seen: Rule,
    /// What some process may go by still.
    old: Rules,
    in_force: bool,
    confirmed: bool,
    /// Who has what was committed before the setting was in force, as long as it is not confirmed.
    marked: Set,
}

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct World {
    settings: u8,
    leader: Option<Leader>,
    key: Option<Key>,
    /// A write of the key that was not answered and may arrive, and by whom.
    pending: Option<(u8, Key)>,
    acknowledged: Holders,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A commit may be acknowledged that whoever is elected next need not have.
    NoMeeting,
    /// A member was elected that lacks an acknowledged commit.
    Lost,
}

/// One exploration: its bounds, and what the plan said so far.
pub(crate) struct Bounds {
    pub(crate) members: u8,
    /// Which a person may choose at any time.
    pub(crate) settings: Vec<Settings>,
    asked: RefCell<BTreeMap<Question, Answer>>,
}

/// What the plan is asked: settings, leader, key, doubt, what it sees, in force, confirmed, who streams.
type Question = (u8, u8, Option<Key>, bool, Rule, bool, bool, Set);

#[derive(Debug, Clone, Copy)]
enum Answer {
    Rest,
    Await,
    Key(Key),
    Names(Rule),
}

fn bits(set: Set) -> impl Iterator<Item = u8> {
    (0..MEMBERS).filter(move |bit| set & 1 << bit != 0)
}

/// All sets of `number` members of `of`.
fn choices(of: Set, number: u8) -> impl Iterator<Item = Set> {
    (0..=of).filter(move |chosen| chosen & !of == 0 && chosen.count_ones() == u32::from(number))
}

fn name(member: u8) -> NodeName {
    NodeName(char::from(b'a' + member).to_string())
}

fn number(name: &NodeName) -> u8 {
    name.0.as_bytes()[0] - b'a'
}

fn names(set: Set) -> BTreeSet<NodeName> {
    bits(set).map(name).collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a NodeName>) -> Set {
    names.into_iter().map(|name| 1 << number(name)).sum()
}

impl Key {
    fn told(self) -> SyncKey {
        SyncKey {
            leader: name(self.leader),
            voters: names(self.voters),
            quorum: self.quorum.into(),
        }
    }

    fn of(key: &SyncKey) -> Self {
        Self {
            leader: number(&key.leader),
            voters: set(&key.voters),
            quorum: key.quorum as u8,
        }
    }
}

impl Rule {
    fn told(self) -> Names {
        Names::some(self.any, self.number.into(), names(self.of))
    }

    fn of(names: &Names) -> Self {
        match names {
            Names::Some(some) => Self {
                any: some.any,
                number: some.number as u8,
                of: set(&some.of),
            },
            Names::Alone | Names::Foreign(_) => ALONE,
        }
    }

    /// Whatever is acknowledged by this is by `other` as well.
    fn within(self, other: Self) -> bool {
        choices(self.of, self.number)
            .all(|by| choices(other.of, other.number).any(|enough| enough & !by == 0))
    }
}

impl Rules {
    fn iter(self) -> impl Iterator<Item = Rule> {
        (0..64).filter(move |bit| self.0 & 1 << bit != 0).map(|bit| Rule {
            any: true,
            number: bit >> MEMBERS,
            of: bit & ((1 << MEMBERS) - 1),
        })
    }

    fn with(self, rule: Rule) -> Self {
        if self.iter().any(|known| rule.within(known)) {
            return self;
        }
        let bit = |rule: Rule| 1u64 << (rule.number << MEMBERS | rule.of);
        let kept = self.iter().filter(|known| !known.within(rule)).map(bit);
        Self(kept.sum::<u64>() | bit(rule))
    }
}

impl Holders {
    fn iter(self) -> impl Iterator<Item = Set> {
        (0..16).filter(move |set| self.0 & 1 << set != 0)
    }

    fn with(self, holders: Set) -> Self {
        if self.iter().any(|fewer| fewer & !holders == 0) {
            return self;
        }
        let kept = self.iter().filter(|more| holders & !more != 0);
        Self(kept.map(|set| 1u16 << set).sum::<u16>() | 1 << holders)
    }

    /// These have everything.
    fn spread(self, to: Set) -> Self {
        self.iter().fold(Self(0), |all, holders| all.with(holders | to))
    }
}

impl Leader {
    fn elected(who: u8, doubt: bool) -> Self {
        Self {
            who,
            life: Life::Elected,
            doubt,
            names: ALONE,
            seen: ALONE,
            old: Rules(0),
            in_force: false,
            confirmed: false,
            marked: 0,
        }
    }

    /// Nothing is known of what PostgreSQL does.
    fn forgets(&mut self) {
        self.in_force = false;
        self.confirmed = false;
        self.marked = 0;
    }

    fn has(&mut self, standbys: Set) {
        if self.in_force && !self.confirmed && self.seen.number != 0 {
            self.marked |= standbys;
        }
    }

    /// What commits may return by.
    fn rules(&self) -> impl Iterator<Item = Rule> {
        self.old.iter().chain([self.names])
    }
}

impl Bounds {
    pub(crate) fn new(members: u8, settings: Vec<Settings>) -> Self {
        Self {
            members,
            settings,
            asked: RefCell::default(),
        }
    }

    fn all(&self) -> Set {
        (1 << self.members) - 1
    }

    /// The plan's word.
    fn ask(&self, question: Question) -> Answer {
        if let Some(answer) = self.asked.borrow().get(&question) {
            return *answer;
        }
        let (settings, who, key, doubt, seen, in_force, confirmed, streaming) = question;
        let (me, key, names) = (name(who), key.map(Key::told), seen.told());
        let demanded = u32::from(seen.number);
        let present = Present {
            me: &me,
            key: key.as_ref(),
            doubt,
            names: &names,
            in_force,
            confirmed,
            confirmable: demanded != 0 && demanded <= (seen.of & streaming).count_ones(),
        };
        let answer = match plan::next(
            &present,
            &self.wanted(settings, &me, key.as_ref(), &names, streaming),
        ) {
            Step::Rest => Answer::Rest,
            Step::Await => Answer::Await,
            Step::Key(key) => Answer::Key(Key::of(&key)),
            Step::Names(names) => Answer::Names(Rule::of(&names)),
        };
        self.asked.borrow_mut().insert(question, answer);
        answer
    }

    fn wanted(
        &self,
        settings: u8,
        me: &NodeName,
        key: Option<&SyncKey>,
        seen: &Names,
        streaming: Set,
    ) -> Target {
        let candidate = |member| Candidate {
            name: name(member),
            position: Lsn(0),
            priority: 1,
            nofailover: false,
        };
        let candidates = bits(streaming).map(candidate).collect();
        target(
            &self.settings[usize::from(settings)],
            me,
            key,
            seen,
            Lsn(0),
            candidates,
        )
    }
}

impl World {
    /// Member 0 has just taken the lock of a new cluster.
    pub(crate) fn new() -> Self {
        Self {
            settings: 0,
            leader: Some(Leader::elected(0, true)),
            key: None,
            pending: None,
            acknowledged: Holders(0),
        }
    }

    /// Whether commits are acknowledged that whoever is elected next need not have.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        let (Some(leader), Some(key)) = (&self.leader, self.key) else {
            return Ok(());
        };
        let key = key.told();
        let meets = |rule: Rule| key.meets(&rule.told());
        if leader.life == Life::Serves && !leader.rules().all(meets) {
            return Err(Wrong::NoMeeting);
        }
        Ok(())
    }

    /// Tells all that can come next.
    pub(crate) fn next(&self, bounds: &Bounds, mut tell: impl FnMut(Result<Self, Wrong>)) {
        for settings in 0..bounds.settings.len() as u8 {
            tell(Ok(Self { settings, ..*self }));
        }
        let Some(leader) = &self.leader else {
            (0..bounds.members)
                .filter_map(|member| self.elect(bounds, member))
                .for_each(tell);
            return;
        };
        if let Some((who, key)) = self.pending
            && who == leader.who
        {
            tell(Ok(self.keyed(key)));
        }
        tell(Ok(Self {
            leader: None,
            ..*self
        }));
        tell(Ok(self.led(|leader| {
            // The agent is started anew.
            leader.doubt = true;
            leader.forgets();
        })));
        if leader.life == Life::Serves {
            tell(Ok(self.led(|leader| leader.life = Life::Crashed)));
            tell(Ok(self.led(|leader| leader.seen = leader.names)));
            let standbys = bounds.all() & !(1 << leader.who);
            for standby in bits(standbys) {
                tell(Ok(self.caught_up(1 << standby)));
            }
            for rule in leader.rules() {
                for by in choices(rule.of & standbys, rule.number) {
                    let mut world = self.caught_up(by);
                    world.acknowledged = world.acknowledged.with(by | 1 << leader.who);
                    tell(Ok(world));
                }
            }
        }
        for streaming in choices_of(bounds.all() & !(1 << leader.who)) {
            self.agent(bounds, leader, streaming, |world| tell(Ok(world)));
            if leader.life != Life::Serves {
                break;
            }
        }
    }

    fn led(&self, change: impl FnOnce(&mut Leader)) -> Self {
        let mut world = *self;
        if let Some(leader) = &mut world.leader {
            change(leader);
        }
        world
    }

    /// These have everything.
    fn caught_up(&self, standbys: Set) -> Self {
        Self {
            acknowledged: self.acknowledged.spread(standbys),
            ..self.led(|leader| leader.has(standbys))
        }
    }

    /// A write of the key arrives: others that were written on the same ground are void.
    fn keyed(&self, key: Key) -> Self {
        Self {
            key: Some(key),
            pending: None,
            ..*self
        }
    }

    /// `member` takes the free lock, if it may.
    fn elect(&self, bounds: &Bounds, member: u8) -> Option<Result<Self, Wrong>> {
        let lacks = |heard: Set| {
            self.acknowledged
                .iter()
                .any(|have| have & (heard | 1 << member) == 0)
        };
        let lost = match self.key {
            None => false,
            Some(key) if key.leader == member => lacks(0),
            Some(key) => {
                let named = key.voters & 1 << member != 0;
                if !named
                    && (bounds.settings[usize::from(self.settings)].mode != Mode::Quorum || key.voters == 0)
                {
                    return None;
                }
                // The worst that may happen: it has no more than those who were heard.
                let mut votes = choices(key.voters, key.quorum + 1).peekable();
                votes.peek()?;
                votes.any(lacks)
            }
        };
        let unanswered = self.pending.is_some_and(|(who, _)| who == member);
        Some(if lost {
            Err(Wrong::Lost)
        } else {
            Ok(Self {
                leader: Some(Leader::elected(member, unanswered)),
                acknowledged: self.acknowledged.spread(1 << member),
                ..*self
            })
        })
    }

    /// What the leader's agent does next while these stream, with everything that can become of it: what goes well comes last.
    fn agent(&self, bounds: &Bounds, leader: &Leader, streaming: Set, mut tell: impl FnMut(Self)) {
        let settings = &bounds.settings[usize::from(self.settings)];
        if leader.life != Life::Serves {
            let (me, key) = (name(leader.who), self.key.map(Key::told));
            let promotion = leader.life == Life::Elected;
            if let Some(key) = plan::before_writable(&me, key.as_ref(), leader.doubt) {
                return self.write(leader.who, Key::of(&key), tell);
            }
            let names = Rule::of(&settings.alone());
            return tell(self.led(|leader| {
                leader.life = Life::Serves;
                leader.names = names;
                leader.seen = names;
                // A replica's processes have whatever was set there before; nobody waits for it.
                leader.old = if promotion { Rules(0).with(ALONE) } else { Rules(0) };
                leader.forgets();
            }));
        }
        let have = (leader.marked & leader.seen.of & streaming).count_ones();
        let confirms = leader.in_force && leader.seen.number != 0 && u32::from(leader.seen.number) <= have;
        let looked = self.led(|leader| {
            leader.confirmed |= confirms;
            if leader.confirmed {
                leader.marked = 0;
            }
        });
        let confirmed = leader.confirmed || confirms;
        let question = (
            self.settings,
            leader.who,
            self.key,
            leader.doubt,
            leader.seen,
            leader.in_force,
            confirmed,
            streaming,
        );
        match bounds.ask(question) {
            Answer::Rest | Answer::Await => tell(looked),
            Answer::Key(key) => looked.write(leader.who, key, tell),
            Answer::Names(names) => {
                let begun = looked.led(|leader| {
                    leader.old = leader.old.with(leader.names);
                    leader.names = names;
                    leader.forgets();
                });
                tell(begun);
                tell(begun.led(|leader| {
                    leader.old = Rules(0);
                    leader.seen = names;
                    leader.in_force = true;
                }));
            }
        }
    }

    /// A write of the key: not answered and still on its way; done and not answered; done. Of several on their way one is enough, for each
    /// can be the one that arrives.
    fn write(&self, who: u8, key: Key, mut tell: impl FnMut(Self)) {
        let doubt = |world: Self, doubt| world.led(|leader| leader.doubt = doubt);
        let late = Self {
            pending: Some((who, key)),
            ..*self
        };
        tell(doubt(late, true));
        tell(doubt(self.keyed(key), true));
        tell(doubt(self.keyed(key), false));
    }

    /// The two sides, for counting.
    pub(crate) fn sides(&self) -> (Option<Key>, Option<Rule>) {
        (self.key, self.leader.as_ref().map(|leader| leader.names))
    }

    /// After so many steps the leader, undisturbed while these stream, is where its plan leads.
    pub(crate) fn settles(&self, bounds: &Bounds, streaming: Set) -> Option<u32> {
        let mut world = *self;
        for steps in 0..20 {
            let Some(leader) = world.leader else {
                return Some(0);
            };
            let standbys = streaming & !(1 << leader.who);
            let before = world.caught_up(standbys).led(|leader| leader.seen = leader.names);
            let leader = before.leader?;
            before.agent(bounds, &leader, standbys, |next| world = next);
            if world == before && leader.life == Life::Serves {
                let (me, seen) = (name(leader.who), leader.names.told());
                let key = world.key.map(Key::told);
                let wanted = bounds.wanted(self.settings, &me, key.as_ref(), &seen, standbys);
                let there = key == Some(wanted.key) && leader.names == Rule::of(&wanted.names);
                return there.then_some(steps);
            }
        }
        None
    }
}

/// All subsets.
fn choices_of(of: Set) -> impl Iterator<Item = Set> {
    (0..=of).filter(move |chosen| chosen & !of == 0)
}
