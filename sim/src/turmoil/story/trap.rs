//! Traps: a fault that waits for an act of an agent, or for a fact.
//!
//! The [`Hub`] hears what happens, inside the run; what springs a trap stops the run at that instant, and the [`World`] strikes.

use std::sync::PoisonError;

use surus_scenarios::{Strike, Taken, Target, Trap, Trigger, World as _};

use super::super::halt;
use super::super::hub::Hub;
use super::super::world::World;
use crate::record::Seen;
use crate::trap::fits;

/// What traps wait for, and what has come.
#[derive(Debug, Default)]
pub(in super::super) struct Traps {
    /// What is waited for.
    wanted: Vec<Trigger>,
    /// What has happened of it, and where.
    come: Vec<(Trigger, usize)>,
}

/// A trap that waits.
#[derive(Debug, Clone)]
pub(in super::super) struct Armed {
    trap: Trap,
    skip: u64,
}

impl Hub {
    /// Looks whether something may spring a trap.
    pub(in super::super) fn listen(&self, host: usize, seen: &Seen) {
        let mut traps = self.traps.lock().unwrap_or_else(PoisonError::into_inner);
        let Traps { wanted, come } = &mut *traps;
        let before = come.len();
        let fitting = wanted.iter().filter(|when| fits(**when, seen));
        come.extend(fitting.map(|when| (*when, host)));
        if come.len() != before {
            halt::ask();
        }
    }
}

impl World {
    pub(super) fn set_trap(&mut self, trap: &Trap) -> Taken {
        let skip = trap.skip;
        let trap = trap.clone();
        self.traps.push(Armed { trap, skip });
        self.want();
        Taken::Done
    }

    /// Tells the hub what is waited for.
    fn want(&self) {
        let mut wanted: Vec<Trigger> = Vec::new();
        for armed in &self.traps {
            if !wanted.contains(&armed.trap.when) {
                wanted.push(armed.trap.when);
            }
        }
        let mut traps = self.hub.traps.lock().unwrap_or_else(PoisonError::into_inner);
        traps.wanted = wanted;
    }

    /// No trap waits any more.
    pub(super) fn clear_traps(&mut self) {
        self.traps.clear();
        *self.hub.traps.lock().unwrap_or_else(PoisonError::into_inner) = Traps::default();
    }

    /// Strikes where a trap has sprung since this was last asked.
    pub(in super::super) fn spring(&mut self) {
        if self.traps.is_empty() {
            return;
        }
        let come = {
            let mut traps = self.hub.traps.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut traps.come)
        };
        for (when, host) in come {
            let mut index = 0;
            while index < self.traps.len() {
                let target = self.traps[index].trap.on.clone();
                let fitting = self.traps[index].trap.when == when
                    && (target == Target::Any || self.member_at(&target) == Some(host));
                let armed = &mut self.traps[index];
                if !fitting || armed.skip != 0 {
                    armed.skip -= u64::from(fitting);
                    index += 1;
                    continue;
                }
                let trap = self.traps.remove(index).trap;
                self.want();
                if trap.after.0 == 0 {
                    self.sprung(&trap.strike, host);
                } else {
                    self.after(trap.after.0, move |world| world.sprung(&trap.strike, host));
                }
            }
        }
    }

    fn sprung(&mut self, strike: &Strike, here: usize) {
        self.here = Some(here);
        let taken = match strike {
            Strike::Fault(fault) => self.strike(fault),
            Strike::Operator(act) => self.operate(act),
        };
        self.here = None;
        // What is void here and now is void: nobody counts on a trap's effect. But a story must not pass because of what cannot be done.
        if let Taken::Unable(why) = taken {
            self.unable.get_or_insert(why);
        }
    }
}
