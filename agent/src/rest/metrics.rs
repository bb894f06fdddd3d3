//! `/metrics`: Patroni's names in Patroni's order, then our own, in Prometheus' text format.

use std::fmt::Display;

use surus_core::types::{MonoTime, Timeline};
use surus_core::view::ServerRole;

use super::PATRONI_VERSION;
use super::health::right_remaining;
use super::state::{NodeStatus, STATES};
use crate::dcs::mode::Synchronous;
use crate::prometheus::Page;

/// The page.
pub(super) fn metrics(status: &NodeStatus, now: MonoTime) -> String {
    let mut page = Page::new(&[("scope", &status.scope), ("name", &status.name)]);
    let server = status.server(now);
    let detail = server.map(|(_, detail)| detail);
    let running = status.state_word(now) == "running";
    let role = status.role_word(now);
    let sync = status.sync_standby(now);
    let (written, received, replayed, paused) = match server.map(|(server, detail)| (server.role, detail)) {
        None => (0, 0, 0, false),
        Some((ServerRole::Primary { written }, _)) => (written.0, 0, 0, false),
        Some((
            ServerRole::Replica {
                received, replayed, ..
            },
            detail,
        )) => (
            0,
            received.unwrap_or(replayed).0,
            replayed.0,
            detail.replay_paused,
        ),
    };
    let seconds = |time: Option<std::time::Duration>| {
        time.map_or("0".to_owned(), |time| time.as_secs_f64().to_string())
    };
    let flag = |on: bool| if on { "1" } else { "0" }.to_owned();
    let replication = status.replication_state(now);
    let failsafe_member = status
        .cluster
        .as_ref()
        .and_then(|seen| seen.value.snapshot.view.failsafe.as_ref())
        .is_some_and(|members| members.keys().any(|member| member.as_str() == &*status.name));
    let unlocked = status
        .fresh_cluster(now)
        .is_none_or(|cluster| cluster.leader().is_none());
    let state = STATES.iter().position(|state| *state == status.state_word(now));
    let pending = status
        .postgres
        .as_ref()
        .is_some_and(|postgres| !postgres.detail.pending_restart.is_empty());

    page.gauge(
        "patroni_version",
        "Version of Patroni whose interfaces these are, without dots.",
        version(),
    );
    page.gauge(
        "patroni_postgres_running",
        "1 if PostgreSQL runs and answers.",
        flag(running),
    );
    page.gauge(
        "patroni_postmaster_start_time",
        "When PostgreSQL was started, in seconds since 1970.",
        seconds(detail.and_then(|detail| detail.postmaster_start_time)),
    );
    page.gauge(
        "patroni_primary",
        "1 if PostgreSQL accepts writes here.",
        flag(role == "primary"),
    );
    page.counter(
        "patroni_xlog_location",
        "Position that the primary has written, in bytes; 0 on a replica.",
        written,
    );
    page.gauge(
        "patroni_standby_leader",
        "1 if this node leads a standby cluster.",
        flag(role == "standby_leader"),
    );
    page.gauge(
        "patroni_replica",
        "1 if PostgreSQL is a replica here.",
        flag(role == "replica"),
    );
    page.gauge(
        "patroni_sync_standby",
        "1 if this node is a synchronous standby.",
        flag(sync == Synchronous::On),
    );
    page.gauge(
        "patroni_quorum_standby",
        "1 if this node is a quorum standby.",
        flag(sync == Synchronous::Quorum),
    );
    page.counter(
        "patroni_xlog_received_location",
        "Position that the replica has received, in bytes; 0 on a primary.",
        received,
    );
    page.counter(
        "patroni_xlog_replayed_location",
        "Position that the replica has replayed, in bytes; 0 on a primary.",
        replayed,
    );
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Commit time of the last replayed transaction, in seconds since 1970; 0 if none.",
        seconds(detail.and_then(|detail| detail.replayed_at)),
    );
    page.gauge("patroni_xlog_paused", "1 if replay is paused.", flag(paused));
    page.gauge(
        "patroni_postgres_streaming",
        "1 if the replica streams.",
        flag(replication == Some("streaming")),
    );
    page.gauge(
        "patroni_postgres_in_archive_recovery",
        "1 if the replica replays from the archive.",
        flag(replication == Some("in archive recovery")),
    );
    page.gauge(
        "patroni_postgres_server_version",
        "Version of PostgreSQL, such as 150018; 0 if it does not answer.",
        server.map_or(0, |(server, _)| server.version),
    );
    page.gauge(
        "patroni_cluster_unlocked",
        "1 if nobody is known to hold the leader lock.",
        flag(unlocked),
    );
    page.gauge(
        "patroni_failsafe_mode_is_active",
        "1 if the primary lives on its peers' grants.",
        flag(status.failsafe_active),
    );
    page.gauge(
        "patroni_failsafe_mode_enabled",
        "1 if failsafe mode is on.",
        flag(status.failsafe_mode),
    );
    page.gauge(
        "patroni_failsafe_member",
        "1 if this node is among those asked in failsafe mode.",
        flag(failsafe_member),
    );
    page.gauge(
        "patroni_postgres_timeline",
        "Timeline of PostgreSQL; 0 if it does not answer.",
        server.map_or(Timeline(0), |(server, _)| server.timeline),
    );
    page.gauge(
        "patroni_dcs_last_seen",
        "When the DCS last answered, in seconds since 1970.",
        status.dcs_last_seen.map_or(0, |seen| seen.as_secs()),
    );
    page.gauge(
        "patroni_pending_restart",
        "1 if a setting waits for a restart.",
        flag(pending),
    );
    page.gauge("patroni_is_paused", "1 in maintenance mode.", flag(status.pause));
    tell_state(
        &mut page,
        state.map_or("-1".to_owned(), |state| state.to_string()),
    );
    let priority = if status.tags.nofailover {
        0
    } else {
        status.tags.failover_priority
    };
    page.gauge(
        "patroni_failover_priority",
        "Preference in a failover; 0 for never.",
        priority,
    );

    page.gauge(
        "surus_lease_remaining_seconds",
        "How long the right to be primary still holds without another renewal; 0 without it.",
        right_remaining(status, now).map_or("0".to_owned(), |remaining| remaining.as_secs_f64().to_string()),
    );
    page.counter(
        "surus_decisions_total",
        "Decisions of the state machine since the agent started.",
        status.decisions,
    );
    page.info(
        "surus_last_rule",
        "The rule that fired last.",
        "rule",
        status.last_rule,
    );
    page.gauge(
        "surus_can_take_lock",
        "1 if this node could take the leader lock.",
        flag(status.can_take_lock),
    );
    if let Some(progress) = &status.progress {
        page.info(
            "surus_progress_work",
            "Long work on the data directory that is under way.",
            "work",
            progress.what,
        );
        page.gauge("surus_progress_done_bytes", "Bytes done of it.", progress.done);
        page.gauge(
            "surus_progress_total_bytes",
            "Bytes in all; 0 if not known.",
            progress.total.unwrap_or(0),
        );
    }
    page.text()
}

fn version() -> String {
    let mut parts = PATRONI_VERSION
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    format!("{:02}{:02}{:02}", next(), next(), next())
}

/// Metrics with one value each.
trait Simple {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display);
    fn counter(&mut self, name: &str, help: &str, value: impl Display);
    /// A text, as a label of the value 1.
    fn info(&mut self, name: &str, help: &str, label: &str, value: &str);
}

impl Simple for Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "gauge", help);
        self.value(&[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "counter", help);
        self.value(&[], value);
    }

    fn info(&mut self, name: &str, help: &str, label: &str, value: &str) {
        self.metric(name, "gauge", help);
        self.value(&[(label, value)], 1);
    }
}

/// The state as a number, with what the numbers mean.
fn tell_state(page: &mut Page, value: String) {
    let values: Vec<_> = STATES
        .iter()
        .enumerate()
        .map(|(index, state)| format!("{index}={state}"))
        .collect();
    let help = format!(
        "State of PostgreSQL as a number; -1 if unknown.\n# Values: {}",
        values.join(", ")
    );
    page.gauge("patroni_postgres_state", &help, value);
}
