//! What a world must be able to do to play a story.

use crate::expect::Expectation;
use crate::fault::Fault;
use crate::load::Load;
use crate::operator::Operator;
use crate::text::Nanos;
use crate::trap::Trap;

/// How a world took a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It happened.
    Done,
    /// It has no effect here and now, and why: nobody leads, or what it would hit is down already.
    Void(String),
    /// This world cannot do that, and why. A story with such a step waits.
    Unable(String),
}

/// What a world says to an expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not hold now but may yet; what is seen instead.
    NotYet(String),
    /// It cannot hold any more; what was seen.
    Broken(String),
    /// This world cannot tell, and why.
    Unable(String),
}

/// A world: simulated in one queue, simulated with the real agent, or made of containers.
pub trait World {
    /// The time now, since the world began.
    fn now(&self) -> Nanos;

    /// Lets time pass until then.
    fn run_until(&mut self, time: Nanos);

    /// Something goes wrong now.
    fn strike(&mut self, fault: &Fault) -> Taken;

    /// A person does something now.
    fn operate(&mut self, act: &Operator) -> Taken;

    /// Clients do something from now on.
    fn load(&mut self, load: &Load) -> Taken;

    /// A fault waits from now on.
    fn trap(&mut self, trap: &Trap) -> Taken;

    /// All faults end, traps are taken away, whoever is down comes up.
    fn heal(&mut self);

    /// Judges an expectation by what has happened since `since`.
    fn judge(&mut self, expectation: &Expectation, since: Nanos) -> Verdict;

    /// An invariant that is always checked was broken: what was seen. The story ends there.
    fn violated(&self) -> Option<String>;

    /// It has what a story requires, such as `synchronous_mode`.
    fn has(&self, feature: &str) -> bool;
}
