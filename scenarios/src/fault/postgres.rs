//! Faults of PostgreSQL, its data directory and its disk.

use super::Target;
use crate::text::{Name, Nanos, verbs, words};

words! {
    /// A step of PostgreSQL that can be slow or fail.
    Step "a step: start, stop, promote, rewind, basebackup, checkpoint, replay, archive or probe" {
        /// A start, until it answers.
        Start "start",
        /// A fast stop.
        Stop "stop",
        /// A promotion.
        Promote "promote",
        /// pg_rewind.
        Rewind "rewind",
        /// pg_basebackup.
        BaseBackup "basebackup",
        /// A checkpoint.
        Checkpoint "checkpoint",
        /// Replay of received WAL.
        Replay "replay",
        /// archive_command: a fast stop waits for it.
        Archive "archive",
        /// The agent's look at PostgreSQL.
        Probe "probe",
    }
}

verbs! {
    /// With PostgreSQL or its disk.
    PostgresFault "a fault of PostgreSQL" {
        /// SIGKILL to the postmaster and its backends.
        KillPostgres "kill-postgres" (
            /// Whose.
            node: Target,
        ) {},
        /// SIGSTOP to PostgreSQL, all of its processes.
        FreezePostgres "freeze-postgres" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// A backend dies of a signal: PostgreSQL cuts all sessions and recovers from the crash by itself.
        CrashBackend "crash-backend" (
            /// Whose.
            node: Target,
        ) {},
        /// A backend that a fast stop cannot end.
        StickBackend "stick-backend" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// A step takes longer than usual.
        Slow "slow" (
            /// Whose.
            node: Target,
            /// Which.
            step: Step,
        ) {
            /// By this.
            by "by": Nanos,
            /// The next so many; zero is all until healed.
            count "count": u64 = 1,
        },
        /// A step fails.
        Fail "fail" (
            /// Whose.
            node: Target,
            /// Which.
            step: Step,
        ) {
            /// The next so many; zero is all until healed.
            count "count": u64 = 1,
        },
        /// The disk takes no more bytes: PostgreSQL stops with a panic at the next write of WAL and cannot start.
        DiskFull "disk-full" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Each flush to the disk takes longer.
        DiskSlow "disk-slow" (
            /// Whose.
            node: Target,
        ) {
            /// By this.
            by "by": Nanos,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Reads and writes of the data directory give EIO.
        DiskError "disk-error" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The data directory is not there: its filesystem is not mounted.
        DirGone "dir-gone" (
            /// Whose.
            node: Target,
        ) {
            /// How long; for good, it is lost with all that is in it.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The replica stays connected but receives nothing.
        StallReceiver "stall-receiver" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// New connections are refused: too many clients.
        RefuseConnections "refuse-connections" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Something that is no member streams WAL under this `application_name`.
        RogueStandby "rogue-standby" (
            /// From whom.
            node: Target,
        ) {
            /// What it calls itself.
            name "name": Name,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// A replication slot disappears.
        DropSlot "drop-slot" (
            /// Where.
            node: Target,
        ) {
            /// The member whose slot it is.
            member "member": Target,
        },
        /// The history file of a timeline is missing where this member fetches it: the archive lags behind.
        LoseHistory "lose-history" (
            /// Who misses it.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
    }
}
