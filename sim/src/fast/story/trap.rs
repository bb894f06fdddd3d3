//! Traps: a fault that waits for an act of an agent, or for a fact.

use surus_scenarios::{Target, Trap};

use crate::fast::event::Event;
use crate::fast::world::World;
use crate::record::Seen;
use crate::trap::fits;

/// A trap that waits.
#[derive(Debug, Clone)]
pub(crate) struct Armed {
    trap: Trap,
    skip: u64,
}

impl Armed {
    pub(crate) fn new(trap: Trap) -> Self {
        let skip = trap.skip;
        Self { trap, skip }
    }
}

impl World {
    /// Looks whether something springs a trap; the fault comes as an event of its own, after what has left the node and before what
    /// the agent does next.
    pub(crate) fn spring(&mut self, node: usize, seen: &Seen) {
        let mut index = 0;
        while index < self.traps.len() {
            let armed = &self.traps[index];
            let here = match &armed.trap.on {
                Target::Any => true,
                target => {
                    let target = target.clone();
                    self.member_at(&target) == Some(node)
                }
            };
            let armed = &mut self.traps[index];
            if !here || !fits(armed.trap.when, seen) {
                index += 1;
                continue;
            }
            if armed.skip != 0 {
                armed.skip -= 1;
                index += 1;
                continue;
            }
            let trap = self.traps.remove(index).trap;
            self.after(trap.after.0, Event::Sprung(Box::new(trap.strike), node));
        }
    }
}
