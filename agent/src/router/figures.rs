//! What a router counts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::table::{Door, Refusal};

/// Upper bounds, in milliseconds, of the classes that waiting times are counted in.
pub(super) const CLASSES: [u64; 10] = [10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000];

/// Counters since the start.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    doors: BTreeMap<Door, AtDoor>,
    /// Sessions that a member took.
    pub opened: BTreeMap<(Door, String), u64>,
    /// Attempts that a member did not take.
    pub failed: BTreeMap<(Door, String), u64>,
}

/// Counters of a door.
#[derive(Debug, Clone, Default)]
pub struct AtDoor {
    /// Clients that came with a request for a session.
    pub accepted: u64,
    /// Clients that were sent away.
    pub refused: BTreeMap<Refusal, u64>,
    /// Sessions that were ended because their server was deposed.
    pub reset: u64,
    /// Clients that left while they waited.
    pub gave_up: u64,
    /// Waiting times of those who had to wait.
    pub held: Waits,
}

/// A histogram of waiting times.
#[derive(Debug, Clone, Default)]
pub struct Waits {
    /// How many fell into each class of [`CLASSES`], those above them all left out.
    pub classes: [u64; CLASSES.len()],
    /// How many there were.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

impl Waits {
    pub(super) fn add(&mut self, wait: Duration) {
        if let Some(class) = CLASSES
            .iter()
            .position(|bound| wait <= Duration::from_millis(*bound))
        {
            self.classes[class] += 1;
        }
        self.count += 1;
        self.sum += wait;
    }
}

impl Figures {
    /// The counters of a door, to be counted up.
    pub(super) fn door(&mut self, door: Door) -> &mut AtDoor {
        self.doors.entry(door).or_default()
    }

    /// The counters of a door.
    #[must_use]
    pub fn at(&self, door: Door) -> AtDoor {
        self.doors.get(&door).cloned().unwrap_or_default()
    }
}
