//! The guard: the process that is PostgreSQL's parent and kills it at a deadline of its own clock.

use surus_core::types::{Generation, MonoTime};

/// A guard that lives.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Kill then; `None`: never.
    pub deadline: Option<MonoTime>,
    /// The youngest reign it has heard of.
    pub generation: Generation,
    /// Names the timer of this deadline, so that those of old ones are known; unique in the world.
    pub version: u64,
}

impl Guard {
    /// Takes a deadline from a reign, unless a younger one has spoken.
    pub fn set(&mut self, generation: Generation, deadline: Option<MonoTime>) -> bool {
        if generation < self.generation {
            return false;
        }
        self.generation = generation;
        self.deadline = deadline.filter(|deadline| *deadline != MonoTime::NEVER);
        true
    }
}
