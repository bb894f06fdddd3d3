//! What agents' cores order, read from their logs as they are written.
//!
//! A trap that waits for an order springs by it, within about two hundredths of a second: into the midst of what takes longer (a stop,
//! a promotion, a rewind, a clone), just after what does not. Nothing is judged by it: an agent's word decides when a fault strikes,
//! never whether an expectation holds.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use surus_scenarios::Trigger;

/// An order by its name in the log, the trigger that waits for it alone, and whether it changes PostgreSQL or who holds the lock.
const ORDERS: &[(&str, Option<Trigger>, bool)] = &[
    ("Acquire", Some(Trigger::Acquire), true),
    ("Renew", Some(Trigger::Renew), false),
    ("Release", Some(Trigger::Release), true),
    ("ReadCluster", Some(Trigger::Read), false),
    ("WriteMember", Some(Trigger::Member), false),
    ("WriteHistory", Some(Trigger::History), false),
    ("WriteFailsafe", Some(Trigger::WriteFailsafe), false),
    ("Probe", Some(Trigger::Probe), false),
    ("Bootstrap", Some(Trigger::Bootstrap), true),
    ("BaseBackup", Some(Trigger::BaseBackup), true),
    ("StartReplica", Some(Trigger::Start), true),
    ("StartPrimary", Some(Trigger::Start), true),
    ("Stop", Some(Trigger::Stop), true),
    ("Promote", Some(Trigger::Promote), true),
    ("Follow", Some(Trigger::Follow), true),
    ("CompareHistory", None, true),
    ("Rewind", Some(Trigger::Rewind), true),
    ("Restart", Some(Trigger::Restart), true),
    ("AdoptPostmaster", None, true),
    ("Checkpoint", Some(Trigger::Checkpoint), false),
    ("SetDeadline", Some(Trigger::Deadline), false),
    ("AskPeers", Some(Trigger::AskPeers), false),
    ("AskFailsafe", Some(Trigger::Failsafe), false),
];

/// An order that was seen, by its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordered(usize);

impl Ordered {
    /// The order in a line of an agent's log, if the line is about one.
    fn read(line: &str) -> Option<Self> {
        let (_, said) = line.split_once(" DEBUG: order id=")?;
        let (_, order) = said.split_once(" order=")?;
        let order = order.trim_start_matches('"');
        let name = order.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
        ORDERS.iter().position(|(known, ..)| *known == name).map(Self)
    }

    /// It is what the trigger waits for.
    pub(super) fn meets(self, when: Trigger) -> bool {
        let (_, own, matters) = ORDERS[self.0];
        own == Some(when) || (matters && when == Trigger::AnyAct)
    }
}

/// A trigger waits for an order.
pub(super) fn known(when: Trigger) -> bool {
    when == Trigger::AnyAct || ORDERS.iter().any(|(_, own, _)| *own == Some(when))
}

/// The log of one agent, read as it grows.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// A line that is not whole yet.
    rest: Vec<u8>,
}

impl Tail {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            rest: Vec::new(),
        }
    }

    /// The orders since the last call.
    pub(super) fn orders(&mut self) -> Vec<Ordered> {
        if self.file.is_none() {
            // Before the first start there is no log.
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            return Vec::new();
        };
        // What cannot be read now is read next time.
        let _ = file.read_to_end(&mut self.rest);
        let whole = self
            .rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        String::from_utf8_lossy(&lines)
            .lines()
            .filter_map(Ordered::read)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn orders_are_read_from_a_log_as_it_grows() {
        let path = std::env::temp_dir().join(format!("surus-orders-{}", std::process::id()));
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.orders(), []);
        let mut log = File::create(&path).expect("a file");
        let mut write = |text: &str| log.write_all(text.as_bytes()).expect("it is written");
        write("2026-11-20 10:00:00,123 DEBUG: order id=7 order=\"Promote { guard_until: Mono");
        assert_eq!(tail.orders(), [], "the line is not whole");
        write("Time(5) }\"\n2026-11-20 10:00:00,124 INFO: order id=8 order=Probe\n");
        let seen = tail.orders();
        assert!(matches!(&seen[..], [one] if one.meets(Trigger::Promote) && one.meets(Trigger::AnyAct)));
        write("2026-11-20 10:00:00,124 DEBUG: order id=9 order=Checkpoint\n");
        let seen = tail.orders();
        assert!(matches!(&seen[..], [one] if one.meets(Trigger::Checkpoint) && !one.meets(Trigger::AnyAct)));
        std::fs::remove_file(path).expect("it goes");
    }
}
