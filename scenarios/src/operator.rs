//! What people do.

use crate::fault::Target;
use crate::text::{Name, Nanos, verbs};

verbs! {
    /// What a person does.
    Operator "what a person does" {
        /// A switchover.
        Switchover "switchover" () {
            /// To whom; else whoever is fit.
            to "to": Option<Target> = None,
        },
        /// A manual failover: it overrules what a switchover obeys.
        Failover "failover" () {
            /// To whom.
            to "to": Target,
        },
        /// Takes back a switchover or failover that has not happened.
        CancelFailover "cancel-failover" () {},
        /// Restarts PostgreSQL through the agent.
        Restart "restart" (
            /// Whose.
            node: Target,
        ) {},
        /// Rebuilds a member through its agent.
        Reinit "reinit" (
            /// Whom.
            node: Target,
        ) {
            /// Also if something is under way there.
            force "force": bool = false,
            /// From the leader, not from a replica.
            from_leader "from-leader": bool = false,
        },
        /// Pauses the cluster. Each member hears of it in its own time.
        Pause "pause" () {
            /// And resumes it after this.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Ends a pause.
        Resume "resume" () {},
        /// Changes a setting of the whole cluster, in Patroni's words.
        Set "set" (
            /// Its name.
            key: Name,
            /// Its value, as written.
            value: Name,
        ) {},
        /// Changes a setting of the whole cluster by `PATCH /config` at a member's REST API.
        Patch "patch-config" (
            /// Whose API.
            node: Target,
            /// Its name, with a dot between the levels.
            key: Name,
            /// Its value, as written.
            value: Name,
        ) {},
        /// Changes a member's tag.
        Tag "tag" (
            /// Whose.
            node: Target,
            /// Its name.
            key: Name,
            /// Its value, as written.
            value: Name,
        ) {},
        /// Promotes PostgreSQL by hand (pg_ctl promote), past the agent.
        PromoteByHand "promote-by-hand" (
            /// Whose.
            node: Target,
        ) {},
        /// Stops PostgreSQL by hand, past the agent.
        StopByHand "stop-by-hand" (
            /// Whose.
            node: Target,
        ) {},
        /// Starts PostgreSQL by hand, past agent and guard.
        StartByHand "start-by-hand" (
            /// Whose.
            node: Target,
        ) {},
        /// Resets a setting of PostgreSQL by hand (ALTER SYSTEM RESET and a reload).
        ResetSetting "reset-setting" (
            /// Where.
            node: Target,
            /// Which.
            name: Name,
        ) {},
        /// Reloads the agent's configuration.
        Reload "reload" (
            /// Whose.
            node: Target,
        ) {},
    }
}
