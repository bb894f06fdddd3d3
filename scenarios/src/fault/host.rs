//! Faults of processes, hosts and clocks.

use super::Target;
use crate::text::{Nanos, verbs};

verbs! {
    /// With a process, a host or a clock.
    HostFault "a fault of a process, host or clock" {
        /// SIGKILL to the agent; its supervisor starts it again after `back`.
        KillAgent "kill-agent" (
            /// Whose.
            node: Target,
        ) {
            /// Until it is started again.
            back "back": Nanos = Nanos::FOREVER,
        },
        /// SIGTERM to the agent, an orderly end that releases the lock; started again after `back`.
        StopAgent "stop-agent" (
            /// Whose.
            node: Target,
        ) {
            /// From its end until it is started again.
            back "back": Nanos = Nanos::FOREVER,
        },
        /// SIGSTOP to the agent; guard and PostgreSQL go on.
        FreezeAgent "freeze-agent" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The agent is starved: each of its steps comes late.
        SlowAgent "slow-agent" (
            /// Whose.
            node: Target,
        ) {
            /// By up to this.
            by "by": Nanos,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// SIGKILL to the guard; the kernel then kills its PostgreSQL.
        KillGuard "kill-guard" (
            /// Whose.
            node: Target,
        ) {},
        /// SIGSTOP to the guard.
        FreezeGuard "freeze-guard" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The whole host stands still, with all its processes; its clock goes on.
        PauseHost "pause-host" (
            /// Which.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The host loses power: what was not flushed is gone. An etcd member on it too.
        PowerLoss "power-loss" (
            /// Which.
            node: Target,
        ) {
            /// Until it has power again.
            back "back": Nanos = Nanos::FOREVER,
        },
        /// The host has power again, if it had none.
        PowerOn "power-on" (
            /// Which.
            node: Target,
        ) {},
        /// The host's monotonic clock runs fast by this many parts per million, slow if negative.
        ClockDrift "clock-drift" (
            /// Which.
            node: Target,
        ) {
            /// Parts per million.
            ppm "ppm": i64,
        },
        /// The host's wall clock jumps by this many milliseconds, back if negative. Its monotonic clock does not.
        ClockJump "clock-jump" (
            /// Which.
            node: Target,
        ) {
            /// Milliseconds.
            ms "ms": i64,
        },
    }
}
