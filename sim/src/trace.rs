//! What happened, one line each, and a hash of all lines: two runs are the same if their hashes are.

use std::fmt;

use crate::clock::Time;

/// The record of a run.
#[derive(Debug, Clone)]
pub struct Trace {
    keep: bool,
    lines: Vec<String>,
    hash: u64,
}

impl Trace {
    /// A record that keeps its lines, or only their hash.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        Self {
            keep,
            lines: Vec::new(),
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a line.
    pub fn line(&mut self, now: Time, who: &str, what: fmt::Arguments<'_>) {
        let text = format!("{:>10.4} {who:<5} {what}", now as f64 / 1e9);
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.keep {
            self.lines.push(text);
        }
    }

    /// The lines kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The hash of all lines.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
