//! What the explorer puts around the rights: members, the key, `status`, and orders on their way.
//!
//! Kept as small as the question allows. Of a revision only this matters: whether it is still the present one, for what has been overtaken
//! never is again. Of members only what each sees of the others, so that which of them is which does not matter. Time goes in steps of a second.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use surus_core::config::Config;
use surus_core::lease::{ForeignRight, Lease};
use surus_core::types::{Generation, LeaseId, MonoTime, NodeName, Revision, SystemId};
use surus_core::view::{ClusterView, Initialize, LeaderKey, Status};

/// At most so many members.
const MEMBERS: usize = 4;

/// At most so many orders that nobody waits for any more are on their way.
const STRAYS: usize = 2;

const STEP: u64 = 1000;

/// The present, for the core.
const NOW: MonoTime = MonoTime::from_millis(1_000_000);

/// What this explorer does in the place of the agent and of etcd, and can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A right counts from when its order was sent.
    SentCounts,
    /// The lock is taken only if `status` has not changed since the view.
    AcquireCompares,
    /// The lock is given back only if `status` has not changed.
    ReleaseCompares,
    /// Who gives the lock back does not write any more, whatever comes of it.
    ReleaseBinds,
    /// Nobody gives the lock back who may write.
    StopsFirst,
    /// Nobody asks for the lock while the old right may run.
    TakerWaits,
}

impl Rule {
    pub(crate) const ALL: [Self; 6] = [
        Self::SentCounts,
        Self::AcquireCompares,
        Self::ReleaseCompares,
        Self::ReleaseBinds,
        Self::StopsFirst,
        Self::TakerWaits,
    ];
}

/// One exploration.
pub(crate) struct Bounds {
    members: usize,
    /// The ttl, in steps.
    ttl: u8,
    /// So many orders that nobody waits for any more can be on their way of each.
    strays: usize,
    /// So many orders can be waited for at a time, of all.
    orders: usize,
    without: Option<Rule>,
    foreign: RefCell<BTreeMap<Question, u8>>,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            members,
            ttl,
            strays,
            orders,
            ..
        } = self;
        write!(
            f,
            "{members} members, a ttl of {ttl} s, {orders} orders at a time, {strays} late ones of each"
        )
    }
}

/// What a member saw before and how long another's right lasts by that, what it sees now, and whether the last leader says that it has stopped.
type Question = (Option<View>, u8, View, bool);

impl Bounds {
    pub(crate) fn new(members: usize, ttl: u8, strays: usize) -> Self {
        Self {
            members,
            ttl,
            strays,
            orders: members,
            without: None,
            foreign: RefCell::default(),
        }
    }

    /// No more than so many orders are waited for at a time.
    pub(crate) fn orders(self, orders: usize) -> Self {
        Self { orders, ..self }
    }

    pub(crate) fn without(self, rule: Rule) -> Self {
        Self {
            without: Some(rule),
            ..self
        }
    }

    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// etcd carries out such an order only if `status` has not changed, where nobody waits for it.
    fn compares(&self, kind: Kind) -> bool {
        match kind {
            Kind::Acquire => self.has(Rule::AcquireCompares),
            Kind::Release => self.has(Rule::ReleaseCompares),
            Kind::Renew => true,
        }
    }

    fn ttl(&self) -> Duration {
        span(self.ttl)
    }

    /// How long a member's own right lasts that would last for `right`, once an order from `sent` steps ago is confirmed: as the core has it.
    fn right(&self, right: u8, sent: u8) -> u8 {
        let mut lease = Lease::inherited(after(right), Generation(0));
        lease.confirm(self.ttl(), NOW.minus(span(sent)), LeaseId(1), true);
        steps(lease.left(NOW))
    }

    /// How long another's right may last: as the core has it.
    fn foreign(&self, question: Question) -> u8 {
        *self.foreign.borrow_mut().entry(question).or_insert_with(|| {
            let (seen, foreign, present, vacated) = question;
            let (mut config, me) = (Config::new(ME.into()), NodeName::from(ME));
            config.ttl = self.ttl();
            let mut right = ForeignRight::default();
            if let Some(seen) = seen {
                right.observe(&config, &me, &view(seen, false), NOW);
                right.until = after(foreign);
            }
            right.observe(&config, &me, &view(present, vacated), NOW);
            if right.may_run(NOW) {
                steps(right.until.since(NOW))
            } else {
                0
            }
        })
    }
}

const ME: &str = "me";
const OTHER: &str = "other";

/// Whose key a member saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Whose {
    Nobody,
    Mine,
    Others,
}

/// What a member saw last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct View {
    whose: Whose,
    /// It is the `status` that stands. Then so is the key, if there still is one, for whoever takes it writes `status`.
    status: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Acquire,
    Renew,
    Release,
}

/// An order about the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Order {
    kind: Kind,
    /// The `status` that its member knew is the one that stands.
    status: bool,
    /// So many steps ago, the length of a right at most.
    sent: u8,
    /// It was carried out, and the answer is on its way.
    done: bool,
}

/// A member. Where it matters to a test what a field is worth to the core, the core is asked; times are steps from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Member {
    /// Its own right lasts so much longer.
    right: u8,
    /// Its PostgreSQL may write, as long as the right lasts: the guard ends it then.
    primary: bool,
    held: bool,
    /// It has asked for the lock to be given back, and does not know what came of it.
    releasing: bool,
    /// Another's right may last so much longer.
    foreign: u8,
    view: Option<View>,
    /// The `status` that it wrote or saw last is the one that stands.
    knows: bool,
    order: Option<Order>,
    /// It holds the key.
    holder: bool,
    /// Orders of its that nobody waits for.
    strays: [Option<(Kind, bool)>; STRAYS],
}

const NEW: Member = Member {
    right: 0,
    primary: false,
    held: false,
    releasing: false,
    foreign: 0,
    view: None,
    knows: false,
    order: None,
    holder: false,
    strays: [None; STRAYS],
};

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct World {
    members: [Member; MEMBERS],
    /// The `status` that stands says that the last leader has stopped.
    vacated: bool,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Time,
    KeyVanishes,
    Reads,
    Sends,
    Arrives,
    Hears,
    GivesUpWaiting,
    StrayArrives,
    Crashes,
}

fn steps(left: Duration) -> u8 {
    u8::try_from(left.as_millis().div_ceil(u128::from(STEP))).unwrap_or(u8::MAX)
}

fn span(steps: u8) -> Duration {
    Duration::from_millis(u64::from(steps) * STEP)
}

fn after(steps: u8) -> MonoTime {
    NOW.plus(span(steps))
}

/// A view as the core gets it: what stands has the higher revisions.
fn view(View { whose, status }: View, vacated: bool) -> ClusterView {
    let leader = |name: &str| LeaderKey {
        name: name.into(),
        lease: Some(LeaseId(1)),
        created: Revision(if status { 3 } else { 1 }),
    };
    ClusterView {
        initialize: Some(Initialize::Done(SystemId(1))),
        leader: match whose {
            Whose::Nobody => None,
            Whose::Mine => Some(leader(ME)),
            Whose::Others => Some(leader(OTHER)),
        },
        status: Some(Arc::new(Status {
            vacated: vacated.then(|| OTHER.into()),
            ..Status::default()
        })),
        status_revision: Revision(if status { 4 } else { 2 }),
        ..ClusterView::default()
    }
}

impl World {
    /// A cluster whose last leader has stopped: nobody knows anything yet.
    pub(crate) fn new() -> Self {
        Self {
            members: [NEW; MEMBERS],
            vacated: true,
        }
    }

    /// How many may write.
    pub(crate) fn primaries(&self) -> usize {
        self.members.iter().filter(|member| member.primary).count()
    }

    /// Tells of everything that can happen next.
    pub(crate) fn next(&self, bounds: &Bounds, mut tell: impl FnMut(Doing, Self)) {
        let mut tell = |doing, mut world: Self| {
            for member in &mut world.members[..bounds.members] {
                member.settle(bounds);
            }
            world.members[..bounds.members].sort_unstable();
            tell(doing, world);
        };
        tell(Doing::Time, self.later(bounds));
        if self.members.iter().any(|member| member.holder) {
            let mut world = *self;
            world.change_key(None);
            tell(Doing::KeyVanishes, world);
        }
        for index in 0..bounds.members {
            self.next_of(bounds, index, &mut tell);
        }
    }

    fn next_of(&self, bounds: &Bounds, index: usize, tell: &mut impl FnMut(Doing, Self)) {
        let member = &self.members[index];
        tell(
            Doing::Reads,
            self.with(index, |world, member| world.reads(bounds, member)),
        );
        let orders = self.members.iter().flat_map(|member| member.order).count();
        for kind in [Kind::Acquire, Kind::Renew, Kind::Release] {
            if orders < bounds.orders && member.may_send(bounds, kind) {
                tell(
                    Doing::Sends,
                    self.with(index, |_, member| member.send(bounds, kind)),
                );
            }
        }
        if let Some(order) = member.order {
            if !order.done {
                let mut world = *self;
                let done = world.carry_out(bounds, index, order.kind, order.status, true);
                world.members[index].answered(done);
                tell(Doing::Arrives, world);
            } else {
                tell(Doing::Hears, self.with(index, |_, member| member.hear(bounds)));
            }
            tell(
                Doing::GivesUpWaiting,
                self.with(index, |_, member| member.wait_no_more(bounds)),
            );
        }
        for stray in 0..STRAYS {
            if let Some((kind, status)) = member.strays[stray] {
                let mut world = *self;
                world.members[index].strays[stray] = None;
                world.carry_out(bounds, index, kind, status, false);
                tell(Doing::StrayArrives, world);
            }
        }
        tell(Doing::Crashes, self.with(index, |_, member| member.crash(bounds)));
    }

    fn with(&self, index: usize, change: impl FnOnce(&Self, &mut Member)) -> Self {
        let mut world = *self;
        change(self, &mut world.members[index]);
        world
    }

    fn later(&self, bounds: &Bounds) -> Self {
        let mut world = *self;
        for member in &mut world.members[..bounds.members] {
            member.right = member.right.saturating_sub(1);
            member.primary &= 0 < member.right;
            member.foreign = member.foreign.saturating_sub(1);
            if let Some(order) = &mut member.order {
                let counts = order.kind != Kind::Release;
                order.sent = (order.sent + u8::from(counts)).min(bounds.ttl);
            }
        }
        world
    }

    /// The member reads what stands.
    fn reads(&self, bounds: &Bounds, member: &mut Member) {
        let holder = self.members.iter().any(|member| member.holder);
        let whose = match (member.holder, holder) {
            (true, _) => Whose::Mine,
            (false, true) => Whose::Others,
            (false, false) => Whose::Nobody,
        };
        let present = View { whose, status: true };
        member.foreign = bounds.foreign((member.view, member.foreign, present, self.vacated));
        member.view = Some(present);
        member.knows = true;
        if whose != Whose::Mine {
            member.lose_lock();
        }
    }

    /// The key is now this member's, or nobody's.
    fn change_key(&mut self, holder: Option<usize>) {
        for (index, member) in self.members.iter_mut().enumerate() {
            member.holder = Some(index) == holder;
        }
    }

    fn change_status(&mut self, vacated: bool) {
        self.vacated = vacated;
        for member in &mut self.members {
            member.knows = false;
            if let Some(view) = &mut member.view {
                view.status = false;
            }
            if let Some(order) = &mut member.order {
                order.status = false;
            }
            for (_, status) in member.strays.iter_mut().flatten() {
                *status = false;
            }
        }
    }

    /// An order arrives at etcd; true: it is carried out.
    fn carry_out(&mut self, bounds: &Bounds, index: usize, kind: Kind, status: bool, awaited: bool) -> bool {
        let free = !self.members.iter().any(|member| member.holder);
        let mine = self.members[index].holder;
        // Who waits for a renewal takes for the former `status` what it is now.
        let current = status || !bounds.compares(kind) || awaited && kind == Kind::Renew;
        let done = current && if kind == Kind::Acquire { free } else { mine };
        if done {
            self.change_status(kind == Kind::Release);
            match kind {
                Kind::Acquire => self.change_key(Some(index)),
                Kind::Renew => {}
                Kind::Release => self.change_key(None),
            }
            // This is the `status` that the answer will tell of.
            for order in self.members[index].order.iter_mut().filter(|_| awaited) {
                order.status = true;
            }
        }
        done
    }
}

impl Member {
    /// Whoever may be promoted is, for that can only do harm; and what can make no difference any more is forgotten: a right that nothing hangs
    /// on, and orders that etcd will refuse.
    fn settle(&mut self, bounds: &Bounds) {
        let doomed = |kind, status: bool| !status && bounds.compares(kind);
        self.order = self
            .order
            .filter(|order| order.done || order.kind == Kind::Renew || !doomed(order.kind, order.status));
        for stray in &mut self.strays {
            *stray = stray.filter(|(kind, status)| !doomed(*kind, *status));
        }
        self.strays.sort_unstable();
        self.primary |= self.held && 0 < self.right && self.foreign == 0 && !self.releasing;
        if !self.held && !self.primary {
            self.right = 0;
        }
    }

    fn may_send(&self, bounds: &Bounds, kind: Kind) -> bool {
        let idle = self.order.is_none();
        let Some(view) = self.view.filter(|_| idle) else {
            return false;
        };
        match kind {
            // One that rests on what has been overtaken already shows no more than one that is overtaken on its way.
            Kind::Acquire => {
                let waited = self.foreign == 0 || !bounds.has(Rule::TakerWaits);
                view.whose == Whose::Nobody && view.status && !self.held && waited
            }
            Kind::Renew => !self.releasing && (self.held || view.whose == Whose::Mine),
            Kind::Release => self.held && self.knows,
        }
    }

    fn send(&mut self, bounds: &Bounds, kind: Kind) {
        self.order = Some(Order {
            kind,
            status: self.knows,
            sent: 0,
            done: false,
        });
        if kind == Kind::Release {
            self.primary &= !bounds.has(Rule::StopsFirst);
            self.releasing = bounds.has(Rule::ReleaseBinds);
        }
    }

    /// etcd has answered. That the lock is this member's it hears later: how much later matters. Whatever else it is, to hear of it at once
    /// shows all that it shows later, for who has not heard does nothing that one who has could not leave.
    fn answered(&mut self, done: bool) {
        let order = self
            .order
            .as_mut()
            .filter(|order| done && order.kind != Kind::Release);
        match order {
            Some(order) => order.done = true,
            None => {
                self.order = None;
                self.lose_lock();
            }
        }
    }

    /// The lock is this member's.
    fn hear(&mut self, bounds: &Bounds) {
        let Some(order) = self.order.take() else { return };
        let sent = if bounds.has(Rule::SentCounts) {
            order.sent
        } else {
            0
        };
        self.right = bounds.right(self.right, sent);
        self.held = true;
        self.knows = order.status;
    }

    fn lose_lock(&mut self) {
        (self.held, self.releasing) = (false, false);
    }

    /// What became of the order is not known; it may still arrive.
    fn wait_no_more(&mut self, bounds: &Bounds) {
        let Some(order) = self.order.take() else { return };
        let free = self.strays.iter().flatten().count() < bounds.strays;
        if !order.done && free {
            self.strays[0] = Some((order.kind, order.status));
        }
    }

    /// Another agent begins in its place. The server runs on as long as the guard lets it, and the agent asks the guard for how long.
    fn crash(&mut self, bounds: &Bounds) {
        self.wait_no_more(bounds);
        *self = Self {
            right: if self.primary { self.right } else { 0 },
            primary: self.primary,
            strays: self.strays,
            holder: self.holder,
            ..NEW
        };
    }
}
