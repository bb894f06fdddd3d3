//! What clients do beyond their steady writes.

use crate::fault::Target;
use crate::text::{Name, Nanos, verbs};

verbs! {
    /// What clients do.
    Load "what clients do" {
        /// A client writes at another pace.
        Pace "pace" (
            /// Who.
            client: Name,
        ) {
            /// One transaction in this time; `forever` is none.
            every "every": Nanos,
        },
        /// A burst of WAL on the primary: a bulk load.
        Burst "burst" () {
            /// Bytes.
            bytes "bytes": u64,
        },
        /// A session that writes nothing and stays open, through the given member.
        Session "session" (
            /// Where.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
    }
}
