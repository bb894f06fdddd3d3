//! Orders under way: at most one in each lane.

use crate::action::{Action, Lane, Order};
use crate::types::{ActionId, Generation, MonoTime};
use crate::zoo::{Flaw, lacks};

/// How many lanes there are.
const LANES: usize = Lane::Reply as usize + 1;

/// The orders under way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lanes {
    last: ActionId,
    /// By lane.
    busy: [Option<Outstanding>; LANES],
    /// By lane.
    resting: [Option<MonoTime>; LANES],
}

/// An order under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// Its number.
    pub id: ActionId,
    /// When it was given.
    pub since: MonoTime,
    /// What it is.
    pub order: Order,
}

impl Lanes {
    /// The order under way in `lane`.
    #[must_use]
    pub fn outstanding(&self, lane: Lane) -> Option<&Outstanding> {
        self.busy[lane as usize].as_ref()
    }

    /// Nothing is under way in `lane`, and it does not rest after a failure.
    #[must_use]
    pub fn idle(&self, lane: Lane) -> bool {
        self.busy[lane as usize].is_none() && self.resting[lane as usize].is_none()
    }

    /// Gives `order`, in place of what is under way in its lane: the executor abandons that.
    pub fn give(&mut self, now: MonoTime, generation: Generation, order: Order) -> Action {
        self.last.0 += 1;
        let id = self.last;
        let lane = order.lane();
        if lane != Lane::Reply {
            self.busy[lane as usize] = Some(Outstanding {
                id,
                since: now,
                order: order.clone(),
            });
        }
        Action {
            id,
            generation,
            order,
        }
    }

    /// Takes the completion `id`. `None`: nobody waits for it (any more).
    pub fn done(&mut self, id: ActionId) -> Option<Outstanding> {
        let known = |outstanding: &Outstanding| outstanding.id == id || lacks(Flaw::AnyCompletion);
        self.busy
            .iter_mut()
            .find(|lane| lane.as_ref().is_some_and(known))
            .and_then(Option::take)
    }

    /// Lets `lane` rest until `until`, so that what fails at once is not repeated without end.
    pub fn rest(&mut self, lane: Lane, until: MonoTime) {
        self.resting[lane as usize] = Some(until);
    }

    /// Wakes the lanes whose rest is over.
    pub fn refresh(&mut self, now: MonoTime) {
        for rest in &mut self.resting {
            *rest = rest.filter(|until| now < *until);
        }
    }

    /// When the next rest is over.
    #[must_use]
    pub fn next_refresh(&self) -> Option<MonoTime> {
        self.resting.iter().flatten().min().copied()
    }
}
