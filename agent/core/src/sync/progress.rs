//! What the leader knows of what its PostgreSQL does by now.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Names;
use crate::types::{Lsn, MonoTime, NodeName};
use crate::view::Server;

/// How far the setting has come into force, and who has fallen silent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// What was set, and when it was in force in every process.
    set: Option<(Names, MonoTime)>,
    /// Whatever was acknowledged by an older rule ends here.
    mark: Option<Lsn>,
    /// Enough standbys have what was acknowledged by an older rule.
    confirmed: bool,
    /// Standbys that have not got everything, how far they were and since when.
    behind: BTreeMap<String, (Lsn, MonoTime)>,
}

impl Progress {
    /// The setting may have changed, or PostgreSQL was started anew.
    pub fn forget(&mut self) {
        self.set = None;
        self.mark = None;
        self.confirmed = false;
    }

    /// The order to set `names` ended well at `now`: every process waits by them.
    pub fn set(&mut self, names: Names, now: MonoTime) {
        self.forget();
        self.set = Some((names, now));
    }

    /// Takes in a look at the primary that began at `at`.
    pub fn observe(&mut self, server: &Server, at: MonoTime) {
        let written = server.position();
        self.behind.retain(|name, _| {
            server
                .standbys
                .get(name)
                .is_some_and(|standby| standby.position < written)
        });
        for (name, standby) in &server.standbys {
            let known = self
                .behind
                .get(name)
                .is_some_and(|(position, _)| *position == standby.position);
            if standby.position < written && !known {
                self.behind.insert(name.clone(), (standby.position, at));
            }
        }
        let Some((names, since)) = self.set.as_ref().filter(|(_, since)| *since <= at) else {
            return;
        };
        if *names != server.synchronous {
            // A look of that very instant may be the one before.
            if *since < at {
                self.forget();
            }
            return;
        }
        let mark = *self.mark.get_or_insert(written);
        self.confirmed |= match names {
            Names::Alone | Names::Foreign(_) => false,
            Names::Some(some) => {
                let have = |name: &&NodeName| {
                    let standby = server.standbys.get(name.as_str());
                    standby.is_some_and(|standby| standby.streaming && mark <= standby.position)
                };
                some.number <= some.of.iter().filter(have).count()
            }
        };
    }

    /// What was set has not been looked at since.
    #[must_use]
    pub fn unseen(&self, names: &Names) -> bool {
        self.set.as_ref().is_some_and(|(set, _)| set != names)
    }

    /// The setting that the server shows is in force in every process.
    #[must_use]
    pub fn in_force(&self, names: &Names) -> bool {
        self.set.as_ref().is_some_and(|(set, _)| set == names)
    }

    /// And as many standbys as it demands have what was committed before.
    #[must_use]
    pub fn confirmed(&self, names: &Names) -> bool {
        self.confirmed && self.in_force(names)
    }

    /// This standby has been behind without moving for longer than `patience`.
    #[must_use]
    pub fn stalled(&self, name: &str, now: MonoTime, patience: Duration) -> bool {
        self.behind
            .get(name)
            .is_some_and(|(_, since)| patience <= now.since(*since))
    }
}
