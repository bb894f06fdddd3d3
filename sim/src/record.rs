//! The record of a run: everything that happens in a world is one [`Seen`], and every world tells it to one [`Recorder`].
//!
//! ```text
//!   fast world ──┐                               ┌─ hash       same seed, same bytes
//!                ├─ (time, node, Seen) ─ Recorder ┼─ Checker    what must never happen
//!   turmoil ─────┘                               ├─ Coverage   which rules, guards and faults have fired
//!                                                ├─ Witness    what a story's expectations ask about
//!                                                └─ entries    kept if asked: replay, report
//! ```
//!
//! What the checks rest on are facts read from the models: a lock that etcd gave, a server that wrote, a guard's deadline. What agents
//! say of themselves ([`Seen::Decided`], orders) is there for people. Times inside a `Seen` are the world's, never a node's clock.
//! Nothing is formatted unless somebody keeps it: the hash is over the values, and [`Entry`] prints a line.
use std::hash::{Hash, Hasher};

use surus_core::types::NodeName;

use crate::check::Checker;
use crate::clock::Time;
use crate::coverage::Coverage;
use crate::witness::Witness;

mod deed;
mod line;
mod seen;

pub use deed::Deed;
pub use seen::{End, Fate, Gate, LeaseEnd, NodeIndex, OrderEnd, Rebuild, RightBy, Seen, Settings, Standing};

/// A [`Seen`] with its time and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Time,
    /// At which node, if at one.
    pub node: Option<NodeIndex>,
    /// What.
    pub seen: Seen,
    /// Counts the entries of a run, messages excepted, from zero; a message has the number of the next entry.
    pub serial: u64,
    /// The serial number of the entry that led to it, where that is known.
    pub cause: Option<u64>,
}

/// What a recorder keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Keep {
    /// The hash.
    #[default]
    Hash,
    /// All but the messages.
    Facts,
    /// All.
    Messages,
}

/// Takes what happens: hashes it, checks it, counts it and keeps it.
#[derive(Debug)]
pub struct Recorder {
    /// What must never happen.
    pub checker: Checker,
    /// What has fired.
    pub coverage: Coverage,
    /// What stories ask about.
    pub witness: Witness,
    names: Vec<NodeName>,
    keep: Keep,
    entries: Vec<Entry>,
    hash: Mixer,
    serial: u64,
    cause: Option<u64>,
}

impl Recorder {
    /// A record of a world with these members.
    #[must_use]
    pub fn new(names: Vec<NodeName>, keep: Keep) -> Self {
        Self {
            checker: Checker::default(),
            coverage: Coverage::default(),
            witness: Witness::default(),
            names,
            keep,
            entries: Vec::new(),
            hash: Mixer::default(),
            serial: 0,
            cause: None,
        }
    }

    /// Something happened.
    pub fn see(&mut self, at: Time, node: Option<NodeIndex>, seen: Seen) {
        if !seen.is_detail() {
            (at, node, &seen).hash(&mut self.hash);
            self.checker.see(at, node, &seen);
            self.coverage.see(&seen);
            self.witness.see(at, node, &seen);
        }
        let (serial, cause) = (self.serial, self.cause);
        if !seen.is_detail() {
            self.serial += 1;
            self.cause = Some(serial);
        }
        if self.keep == Keep::Messages || self.keep == Keep::Facts && !seen.is_detail() {
            self.entries.push(Entry {
                at,
                node,
                seen,
                serial,
                cause,
            });
        }
    }

    /// The entry that what happens now is an effect of: the last one, or what [`Self::resume`] was told since.
    #[must_use]
    pub fn cause(&self) -> Option<u64> {
        self.cause
    }

    /// What happens from here on is an effect of that entry. A world that puts an event off remembers [`Self::cause`] with it, and says
    /// so here when the event's time has come.
    pub fn resume(&mut self, cause: Option<u64>) {
        self.cause = cause;
    }

    /// The serial number of the last entry.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.serial.checked_sub(1)
    }

    /// Somebody wants [`Seen::Message`]s; otherwise a world need not make them.
    #[must_use]
    pub fn wants_messages(&self) -> bool {
        self.keep == Keep::Messages
    }

    /// What was kept.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Gives away what was kept.
    #[must_use]
    pub fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// What was kept, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.line(&self.names)).collect()
    }

    /// The members' names.
    #[must_use]
    pub fn names(&self) -> &[NodeName] {
        &self.names
    }

    /// The hash of all that happened, messages excepted: two runs are the same if their hashes are.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }
}

/// A hash that is the same in every process and on every little-endian machine: rotate, xor, multiply, a word at a time.
#[derive(Debug, Clone, Copy)]
struct Mixer(u64);

impl Default for Mixer {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Mixer {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }

    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_i64(&mut self, value: i64) {
        self.word(value.cast_unsigned());
    }

    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.word(value.cast_unsigned() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Place;

    #[test]
    fn the_hash_sees_time_place_and_value_and_no_detail() {
        let hash = |entries: &[(Time, Option<usize>, Seen)]| {
            let mut recorder = Recorder::new(vec!["n1".into(), "n2".into()], Keep::Hash);
            for (at, node, seen) in entries {
                recorder.see(*at, *node, seen.clone());
            }
            recorder.hash()
        };
        let one = hash(&[(5, Some(0), Seen::AgentBegan)]);
        assert_eq!(one, hash(&[(5, Some(0), Seen::AgentBegan)]));
        assert_ne!(one, hash(&[(6, Some(0), Seen::AgentBegan)]));
        assert_ne!(one, hash(&[(5, Some(1), Seen::AgentBegan)]));
        assert_ne!(one, hash(&[(5, Some(0), Seen::AgentDied)]));
        let message = Seen::Message {
            from: Place::Node(0),
            to: Place::Etcd(0),
            arrives: None,
            what: "renew",
        };
        assert_eq!(one, hash(&[(5, Some(0), Seen::AgentBegan), (7, None, message)]));
    }
}
