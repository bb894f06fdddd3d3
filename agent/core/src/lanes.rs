//! Orders under way: at most one in each lane.

use std::collections::BTreeMap;

use crate::action::{Action, Lane, Order};
use crate::types::{ActionId, Generation, MonoTime};
use crate::zoo::{Flaw, lacks};

/// The orders under way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lanes {
    last: ActionId,
    busy: BTreeMap<Lane, Outstanding>,
    resting: BTreeMap<Lane, MonoTime>,
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
        self.busy.get(&lane)
    }

    /// Nothing is under way in `lane`, and it does not rest after a failure.
    #[must_use]
    pub fn idle(&self, lane: Lane) -> bool {
        !self.busy.contains_key(&lane) && !self.resting.contains_key(&lane)
    }

    /// Gives `order`, in place of what is under way in its lane: the executor abandons that.
    pub fn give(&mut self, now: MonoTime, generation: Generation, order: Order) -> Action {
        self.last.0 += 1;
        let id = self.last;
        let lane = order.lane();
        if lane != Lane::Reply {
            self.busy.insert(
                lane,
                Outstanding {
                    id,
                    since: now,
                    order: order.clone(),
                },
            );
        }
        Action {
            id,
            generation,
            order,
        }
    }

    /// Takes the completion `id`. `None`: nobody waits for it (any more).
    pub fn done(&mut self, id: ActionId) -> Option<Outstanding> {
        let lane = self
            .busy
            .iter()
            .find(|(_, outstanding)| outstanding.id == id || lacks(Flaw::AnyCompletion))
            .map(|(lane, _)| *lane)?;
        self.busy.remove(&lane)
    }

    /// Lets `lane` rest until `until`, so that what fails at once is not repeated without end.
    pub fn rest(&mut self, lane: Lane, until: MonoTime) {
        self.resting.insert(lane, until);
    }

    /// Wakes the lanes whose rest is over.
    pub fn refresh(&mut self, now: MonoTime) {
        self.resting.retain(|_, until| now < *until);
    }

    /// When the next rest is over.
    #[must_use]
    pub fn next_refresh(&self) -> Option<MonoTime> {
        self.resting.values().min().copied()
    }
}
