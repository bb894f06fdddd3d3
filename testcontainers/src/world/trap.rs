//! Faults that wait: for a fact (the lock is lost or taken, a server was promoted, stopped or started), or for an order of an agent.
//!
//! A fact is seen within a tenth of a second, an order sooner (`orders`), and then the trap springs.

use surus_scenarios::{Strike, Taken, Target, Trap, Trigger, World as _};

use super::{World, orders, unable};
use crate::seen::Fact;
use surus_ci::lock;

/// The fact that a trigger waits for, and the member at which it came true, if it is one's.
fn meets(when: Trigger, fact: Fact) -> Option<Option<usize>> {
    match (when, fact) {
        (Trigger::LockLost, Fact::LockLost) => Some(None),
        (Trigger::LockTaken, Fact::LockTaken(member))
        | (Trigger::Promoted, Fact::Promoted(member))
        | (Trigger::Stopped, Fact::Stopped(member))
        | (Trigger::Started, Fact::Started(member)) => Some(Some(member)),
        (when, Fact::Ordered(member, order)) if order.meets(when) => Some(Some(member)),
        _ => None,
    }
}

impl World {
    pub(super) fn set_trap(&mut self, trap: &Trap) -> Taken {
        match trap.when {
            Trigger::LockLost
            | Trigger::LockTaken
            | Trigger::Promoted
            | Trigger::Stopped
            | Trigger::Started => {}
            when if orders::known(when) => {}
            other => return unable(format!("`{other}` is not seen from outside an agent")),
        }
        self.traps.push(trap.clone());
        Taken::Done
    }

    /// What agents have ordered since the last turn is a fact, if the story has a trap that waits for an order.
    fn overhear(&mut self) {
        for (member, tail) in self.tails.iter_mut().enumerate() {
            let heard = tail.orders();
            if !heard.is_empty() {
                let facts = heard.into_iter().map(|order| Fact::Ordered(member, order));
                lock(&self.seen).facts.extend(facts);
            }
        }
    }

    /// Springs the traps whose fact has come true.
    pub(super) fn spring(&mut self) {
        self.overhear();
        let facts = std::mem::take(&mut lock(&self.seen).facts);
        for fact in facts {
            let mut index = 0;
            while let Some(trap) = self.traps.get(index).cloned() {
                let Some(here) = meets(trap.when, fact) else {
                    index += 1;
                    continue;
                };
                if trap.on != Target::Any && here.is_some() && self.member_at(&trap.on) != here {
                    index += 1;
                    continue;
                }
                if trap.skip != 0 {
                    self.traps[index].skip -= 1;
                    index += 1;
                    continue;
                }
                self.traps.remove(index);
                self.tell(format!("the trap springs: {trap}"));
                let at = lock(&self.seen).clock.now().plus(trap.after);
                self.sprung.push((at, trap.strike, here));
            }
        }
        let now = lock(&self.seen).clock.now();
        let (ready, later) = std::mem::take(&mut self.sprung)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.sprung = later;
        let ready: Vec<(_, Strike, _)> = ready;
        for (_, strike, here) in ready {
            self.strikes(&strike, here);
        }
    }

    fn strikes(&mut self, strike: &Strike, here: Option<usize>) {
        self.here = here;
        // What is void here and now is void: nobody counts on a trap's effect.
        let taken = match strike {
            Strike::Fault(fault) => self.strike(fault),
            Strike::Operator(act) => self.operate(act),
        };
        if let Taken::Unable(why) = taken {
            self.broken.get_or_insert(format!("a trap's `{strike}`: {why}"));
        }
        self.here = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_met_by_its_own_fact() {
        assert_eq!(meets(Trigger::Promoted, Fact::Promoted(2)), Some(Some(2)));
        assert_eq!(meets(Trigger::LockLost, Fact::LockLost), Some(None));
        assert_eq!(meets(Trigger::LockLost, Fact::LockTaken(1)), None);
        assert_eq!(meets(Trigger::Started, Fact::Stopped(1)), None);
    }
}
