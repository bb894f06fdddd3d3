//! The turmoil world plays a [`Story`](surus_scenarios::Story), as the fast world does: the same steps, judged by the same witness.
//!
//! `host`, `postgres`, `net`, `etcd`: the faults; `still`: what stands still; `trap`: those that wait; `operator`: what people do; `target`: who is meant; `judge`: what holds. What this world
//! cannot do it says, so that a story with such a step waits instead of passing.

mod etcd;
mod host;
mod judge;
mod net;
mod operator;
mod postgres;
mod still;
mod target;
mod trap;

use surus_scenarios::{Expectation, Fault, Load, Nanos, Operator, Taken, Trap, Verdict, World as Stage};

use super::world::World;
use crate::record::Seen;

pub(super) use still::Still;
pub(super) use trap::{Armed, Traps};

/// It had no effect, and why.
fn void(why: &str) -> Taken {
    Taken::Void(why.to_owned())
}

/// This world cannot do it.
fn unable(why: &str) -> Taken {
    Taken::Unable(why.to_owned())
}

/// Nobody is meant.
fn nobody() -> Taken {
    void("nobody is meant by that now")
}

impl World {
    fn begin_step(&mut self, text: String) {
        self.steps += 1;
        let step = self.steps;
        let text = text.into();
        self.see(None, Seen::StepBegan { step, text });
    }

    /// Of a story that was made from a seed, what this world cannot do is left out.
    fn leniently(&self, taken: Taken) -> Taken {
        match taken {
            Taken::Unable(why) if self.lenient => Taken::Void(why),
            taken => taken,
        }
    }

    /// The present step is over after `span`, and `end` undoes it.
    fn lasts(&mut self, span: Nanos, end: impl FnOnce(&mut Self) + 'static) {
        let step = self.steps;
        self.after(span.0, move |world| {
            end(world);
            world.see(None, Seen::StepEnded { step });
        });
    }
}

impl Stage for World {
    fn now(&self) -> Nanos {
        Nanos(self.time())
    }

    fn run_until(&mut self, time: Nanos) {
        self.run(time.0);
    }

    fn strike(&mut self, fault: &Fault) -> Taken {
        self.begin_step(fault.to_string());
        let taken = match fault {
            Fault::Host(fault) => self.host_fault(fault),
            Fault::Postgres(fault) => self.postgres_fault(fault),
            Fault::Net(fault) => self.net_fault(fault),
            Fault::Etcd(fault) => self.etcd_fault(fault),
        };
        self.leniently(taken)
    }

    fn operate(&mut self, act: &Operator) -> Taken {
        self.begin_step(act.to_string());
        let taken = self.operator_act(act);
        self.leniently(taken)
    }

    fn load(&mut self, load: &Load) -> Taken {
        self.begin_step(load.to_string());
        self.client_load(load)
    }

    fn trap(&mut self, trap: &Trap) -> Taken {
        self.begin_step(trap.to_string());
        self.set_trap(trap)
    }

    fn heal(&mut self) {
        self.heal_all();
    }

    fn judge(&mut self, expectation: &Expectation, since: Nanos) -> Verdict {
        match &self.unable {
            Some(why) => Verdict::Unable(why.clone()),
            None => self.verdict(expectation, since.0),
        }
    }

    fn violated(&self) -> Option<String> {
        self.violation()
    }

    fn has(&self, feature: &str) -> bool {
        // Both worlds stand on the same models.
        crate::fast::has(feature)
    }
}
