//! A fault that strikes inside an act: at the moment when an agent begins it, or when something comes true.

use std::fmt;

use crate::fault::Target;
use crate::story::Strike;
use crate::text::{Args, Name, Nanos, ParseError, Text, Value as _, words};

words! {
    /// What a trap waits for.
    Trigger "an act such as promote, acquire or rewind, or a fact such as lock-lost" {
        /// The next act of any kind that matters.
        AnyAct "any-act",
        /// The order to promote.
        Promote "promote",
        /// The order to stop.
        Stop "stop",
        /// The order to start, as primary or replica.
        Start "start",
        /// The order to restart.
        Restart "restart",
        /// The order to follow another leader.
        Follow "follow",
        /// The order to rewind.
        Rewind "rewind",
        /// The order to clone.
        BaseBackup "basebackup",
        /// The order to create the cluster.
        Bootstrap "bootstrap",
        /// The order to take the lock.
        Acquire "acquire",
        /// The order to renew the lock.
        Renew "renew",
        /// The order to release the lock.
        Release "release",
        /// The order to read the cluster's keys.
        Read "read",
        /// The order to ask for failsafe grants.
        Failsafe "failsafe",
        /// The order to write the failsafe list.
        WriteFailsafe "write-failsafe",
        /// The order to write the history.
        History "history",
        /// The order to write the member's own key.
        Member "member",
        /// The order to checkpoint.
        Checkpoint "checkpoint",
        /// The order to look at PostgreSQL.
        Probe "probe",
        /// The order to ask the other members.
        AskPeers "ask-peers",
        /// The order to give the guard a deadline.
        Deadline "deadline",
        /// Fact: the leader key is gone.
        LockLost "lock-lost",
        /// Fact: the leader key is there again.
        LockTaken "lock-taken",
        /// Fact: the leader key was released.
        LockReleased "lock-released",
        /// Fact: a promotion is done.
        Promoted "promoted",
        /// Fact: a primary has stopped.
        Stopped "stopped",
        /// Fact: PostgreSQL here answers.
        Started "started",
        /// Fact: pg_rewind is done.
        Rewound "rewound",
        /// Fact: a clone is done.
        Cloned "cloned",
        /// Fact: a member promised a failsafe grant.
        Granted "granted",
    }
}

/// A fault that waits: `when promote on=n2 do kill-agent here`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// For what.
    pub when: Trigger,
    /// At which member; [`Target::Any`] for whichever comes first.
    pub on: Target,
    /// So many are let pass first.
    pub skip: u64,
    /// So long after it; zero is at once, between the order and what is done about it.
    pub after: Nanos,
    /// What strikes.
    pub strike: Strike,
}

/// The word between a trap and its fault.
const DO: &str = "do";

impl Trap {
    /// Reads what follows `when`.
    pub(crate) fn read(mut args: Args) -> Result<Self, ParseError> {
        let mut act = args
            .split_off(DO)
            .ok_or_else(|| args.missing("`do` and what shall happen then"))?;
        let when = args.position("an act")?;
        let on = args.key("on")?.unwrap_or(Target::Any);
        let skip = args.key("skip")?.unwrap_or(0);
        let after = args.key("after")?.unwrap_or(Nanos::ZERO);
        args.finish(&["on", "skip", "after"])?;
        let strike = Strike::read(&mut act)?;
        Ok(Self {
            when,
            on,
            skip,
            after,
            strike,
        })
    }

    /// Calls `visit` with each name in it.
    pub fn names(&self, visit: &mut dyn FnMut(&Name)) {
        self.on.names(visit);
        match &self.strike {
            Strike::Fault(fault) => fault.names(visit),
            Strike::Operator(act) => act.names(visit),
        }
    }

    #[cfg(test)]
    pub(crate) fn sample(dice: &mut crate::text::Dice) -> Self {
        Self {
            when: Trigger::sample(dice),
            on: Target::sample(dice),
            skip: dice.below(3),
            after: Nanos::sample(dice),
            strike: Strike::sample(dice),
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "when {}", self.when)?;
        if self.on != Target::Any {
            write!(f, " on={}", Text(&self.on))?;
        }
        if self.skip != 0 {
            write!(f, " skip={}", self.skip)?;
        }
        if self.after != Nanos::ZERO {
            write!(f, " after={}", self.after)?;
        }
        write!(f, " {DO} {}", self.strike)
    }
}
