//! The names of what must never happen, and the finding that it did.

use std::fmt;

use crate::clock::Time;
use crate::record::NodeIndex;

macro_rules! invariants {
    ($($variant:ident = $title:literal $words:literal,)*) => {
        /// An invariant. `S` are about safety, `C` about what clients see, `L` about liveness; the last is what a story alone expects.
        #[expect(missing_docs, reason = "each says itself what it is")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Invariant { $($variant,)* }

        impl Invariant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its code: `S1`.
            #[must_use]
            pub fn code(self) -> &'static str { match self { $(Self::$variant => stringify!($variant),)* } }

            /// Its name in two words.
            #[must_use]
            pub fn title(self) -> &'static str { match self { $(Self::$variant => $title,)* } }

            /// What it demands, in a sentence.
            #[must_use]
            pub fn words(self) -> &'static str { match self { $(Self::$variant => $words,)* } }
        }
    };
}

invariants! {
    S1 = "single writer" "Once a timeline has acknowledged a write, no older one acknowledges any; and no timeline is written by two nodes.",
    S2 = "acknowledged durability" "With synchronous replication, each commit that a client was told of exists on every later primary.",
    S3 = "bounded loss" "Without it, a failover loses at most maximum_lag_on_failover and what was written since the last published position.",
    S4 = "lease discipline" "A server acknowledges writes only within its right, counted from when the renewal that gave it was sent.",
    S5 = "eligibility" "Who takes the lock satisfied the rules on lag, timeline, tags and synchronous state at that instant.",
    S6 = "timeline order" "A promotion makes a timeline above all that ever were; no number is used for two histories.",
    S7 = "sync intersection" "Whoever may elect a primary includes somebody who holds each acknowledged commit.",
    S8 = "last good copy" "No data is discarded automatically that holds acknowledged writes which exist nowhere else.",
    S9 = "routing truth" "A health endpoint says primary only while the lock is held and PostgreSQL accepts writes.",
    S10 = "slot safety" "Slots kept for members do not lose WAL, go backwards or pin it for ever.",
    S11 = "identity" "The cluster's identity never changes, and no second cluster is created beside it.",
    S12 = "totality" "No input makes an agent panic, ask to be woken in the past, or step without end.",
    S13 = "fence cover" "While a server can acknowledge writes, a guard holds a deadline for it that has not passed.",
    C1 = "client history" "What clients were answered could have come from one register, losses that are allowed apart.",
    L1 = "failover" "With a quorum of etcd and a fit candidate, a dead primary is replaced within the bound.",
    L2 = "no needless demotion" "Faults shorter than the tolerance neither move nor restart a healthy primary.",
    L3 = "convergence" "After the last fault all members stream from one primary within the bound, without human help.",
    L4 = "write availability" "Synchronous mode that may degrade does so; commits never hang for ever.",
    Story = "the story" "What a story expects holds.",
}

impl Invariant {
    /// The one with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|invariant| invariant.code() == code)
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// What must not happen and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it breaks.
    pub invariant: Invariant,
    /// What happened, with names and figures.
    pub text: String,
    /// When it was seen.
    pub at: Time,
    /// Where, if at a node.
    pub node: Option<NodeIndex>,
    /// The facts that clash, by the serial numbers of their entries, oldest first.
    pub facts: Vec<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}
