//! The fast world plays a [`Story`](surus_scenarios::Story): it is built of the story's shape, and each step is a call of this trait.
//!
//! - [`host`], [`postgres`], [`net`], [`etcd`]: the faults; [`operator`]: what people do; [`trap`]: faults that wait for an act
//! - [`target`]: who is meant by `leader`, `candidate`, …; [`judge`]: what holds
//!
//! What this world cannot do it says ([`Taken::Unable`]), so that a story with such a step waits instead of passing.

mod etcd;
mod host;
mod judge;
mod net;
mod operator;
mod postgres;
mod target;
mod trap;

use surus_scenarios::{
    Expectation, Fault, Load, Nanos, Operator, Strike, Taken, Trap, Verdict, World as Stage,
};

use crate::clock::Time;
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::record::Seen;

pub use etcd::{Befalls, Mishap};
pub use postgres::{Mend, Trouble};
pub(crate) use trap::Armed;

impl World {
    /// A step begins; what it says of itself goes to the record.
    fn begin_step(&mut self, text: String) {
        self.steps += 1;
        let step = self.steps;
        let text = text.into();
        self.see(None, Seen::StepBegan { step, text });
    }

    /// The present step is over after `span`, which the record shall tell.
    pub(crate) fn lasts(&mut self, span: Nanos) {
        if span != Nanos::FOREVER {
            let step = self.steps;
            self.after(span.0, Event::StepOver(step));
        }
    }

    /// The time at which something that begins now and lasts `span` is over.
    pub(crate) fn until(&self, span: Nanos) -> Time {
        self.now.saturating_add(span.0)
    }

    /// A trap has sprung at a member.
    pub(crate) fn sprung(&mut self, strike: &Strike, here: usize) {
        self.here = Some(here);
        // What is void here and now is void: nobody counts on a trap's effect.
        let _ = match strike {
            Strike::Fault(fault) => self.strike(fault),
            Strike::Operator(act) => self.operate(act),
        };
        self.here = None;
    }
}

/// It had no effect, and why.
pub(crate) fn void(why: &str) -> Taken {
    Taken::Void(why.to_owned())
}

/// This world cannot do it.
pub(crate) fn unable(why: &str) -> Taken {
    Taken::Unable(why.to_owned())
}

impl Stage for World {
    fn now(&self) -> Nanos {
        Nanos(self.now)
    }

    fn run_until(&mut self, time: Nanos) {
        Self::run_until(self, time.0);
    }

    fn strike(&mut self, fault: &Fault) -> Taken {
        self.record.resume(None);
        self.begin_step(fault.to_string());
        let taken = match fault {
            Fault::Host(fault) => self.host_fault(fault),
            Fault::Postgres(fault) => self.postgres_fault(fault),
            Fault::Net(fault) => self.net_fault(fault),
            Fault::Etcd(fault) => self.etcd_fault(fault),
        };
        self.etcd_links();
        taken
    }

    fn operate(&mut self, act: &Operator) -> Taken {
        self.record.resume(None);
        self.begin_step(act.to_string());
        self.operator_act(act)
    }

    fn load(&mut self, load: &Load) -> Taken {
        self.record.resume(None);
        self.begin_step(load.to_string());
        self.client_load(load)
    }

    fn trap(&mut self, trap: &Trap) -> Taken {
        self.record.resume(None);
        self.begin_step(trap.to_string());
        self.traps.push(Armed::new(trap.clone()));
        Taken::Done
    }

    fn heal(&mut self) {
        self.record.resume(None);
        Self::heal(self);
    }

    fn judge(&mut self, expectation: &Expectation, since: Nanos) -> Verdict {
        self.verdict(expectation, since.0)
    }

    fn violated(&self) -> Option<String> {
        self.record.checker.violation.as_ref().map(ToString::to_string)
    }

    fn has(&self, feature: &str) -> bool {
        has(feature)
    }
}

/// The simulated worlds have what a story requires.
#[must_use]
pub fn has(feature: &str) -> bool {
    FEATURES.contains(&feature)
}

/// What stories can require of the simulated worlds.
const FEATURES: &[&str] = &[
    "clients",
    "routers",
    "histories",
    "pause",
    "traps",
    "clocks",
    "synchronous_mode",
    "disk_faults",
    "stuck_backends",
    "backend_crashes",
    "stalled_receivers",
    "refused_connections",
    "rogue_standbys",
    "etcd_auth",
];
