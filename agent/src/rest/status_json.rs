//! The status document of `/patroni` and of every health path: keys and their order as Patroni writes them, then ours.

use serde_json::{Map, Value, json};
use surus_core::types::MonoTime;
use surus_core::view::{Server, ServerRole};

use super::PATRONI_VERSION;
use super::health::right_remaining;
use super::state::{NodeStatus, ServerDetail};
use super::time_text;
use crate::dcs::mode::Synchronous;

/// The document. `scheduled_restart` is what `/restart` keeps.
pub(super) fn status_json(status: &NodeStatus, now: MonoTime, scheduled_restart: Option<Value>) -> Value {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| {
        document.insert(key.to_owned(), value);
    };
    put("state", status.state_word(now).into());
    if let Some((server, detail)) = status.server(now) {
        if let Some(start) = detail.postmaster_start_time {
            put("postmaster_start_time", time_text::plain(start).into());
        }
        put("role", status.role_word(now).into());
        put("server_version", server.version.into());
        put("xlog", xlog(server, detail));
        if let Some(replication_state) = status.replication_state(now) {
            put("replication_state", replication_state.into());
        }
        match status.sync_standby(now) {
            Synchronous::On if !server.is_primary() => put("sync_standby", true.into()),
            Synchronous::Quorum if !server.is_primary() => put("quorum_standby", true.into()),
            _ => {}
        }
        if server.timeline.0 != 0 {
            put("timeline", server.timeline.0.into());
        }
        if !detail.walsenders.is_empty() {
            put("replication", replication(detail));
        }
    } else {
        put("role", status.role_word(now).into());
    }

    if status.pause {
        put("pause", true.into());
    }
    if status
        .fresh_cluster(now)
        .is_none_or(|cluster| cluster.leader().is_none())
    {
        put("cluster_unlocked", true.into());
    }
    if status.failsafe_active {
        put("failsafe_mode_is_active", true.into());
    }
    put(
        "dcs_last_seen",
        status.dcs_last_seen.map_or(0, |seen| seen.as_secs()).into(),
    );
    if !status.tags.published.is_empty() {
        put("tags", Value::Object(status.tags.published.clone()));
    }
    if let Some(system_id) = status.system_id() {
        put("database_system_identifier", system_id.to_string().into());
    }
    if let Some(reasons) = pending_restart(status) {
        put("pending_restart", true.into());
        put("pending_restart_reason", reasons);
    }
    put(
        "patroni",
        json!({"version": PATRONI_VERSION, "scope": &*status.scope, "name": &*status.name}),
    );
    if let Some(scheduled) = scheduled_restart {
        put("scheduled_restart", scheduled);
    }
    if status.watchdog_failed {
        put("watchdog_failed", true.into());
    }
    put("surus", surus(status, now));
    Value::Object(document)
}

fn xlog(server: &Server, detail: &ServerDetail) -> Value {
    match server.role {
        ServerRole::Primary { written } => json!({"location": written.0}),
        ServerRole::Replica {
            received, replayed, ..
        } => json!({
            "received_location": received.unwrap_or(replayed).0,
            "replayed_location": replayed.0,
            "replayed_timestamp": detail.replayed_at.map(time_text::plain),
            "paused": detail.replay_paused,
        }),
    }
}

fn replication(detail: &ServerDetail) -> Value {
    let lines = detail.walsenders.iter().map(|sender| {
        json!({
            "usename": sender.usename,
            "application_name": sender.application_name,
            "client_addr": sender.client_addr,
            "state": sender.state,
            "sync_state": sender.sync_state,
            "sync_priority": sender.sync_priority,
        })
    });
    Value::Array(lines.collect())
}

fn pending_restart(status: &NodeStatus) -> Option<Value> {
    let pending = &status.postgres.as_ref()?.detail.pending_restart;
    if pending.is_empty() {
        return None;
    }
    let reasons = pending
        .iter()
        .map(|(name, (old, new))| (name.clone(), json!({"old_value": old, "new_value": new})));
    Some(Value::Object(reasons.collect()))
}

/// Our own account, which peers of our kind read in the race.
fn surus(status: &NodeStatus, now: MonoTime) -> Value {
    let mut own = Map::new();
    own.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    own.insert("can_take_lock".to_owned(), status.can_take_lock.into());
    if let Some(timeline) = status.stands {
        own.insert("timeline".to_owned(), timeline.0.into());
    }
    if let Some(remaining) = right_remaining(status, now) {
        own.insert("right_remaining".to_owned(), remaining.as_secs_f64().into());
    }
    if !status.last_rule.is_empty() {
        own.insert("rule".to_owned(), status.last_rule.into());
    }
    if let Some(progress) = &status.progress {
        own.insert(
            "progress".to_owned(),
            json!({"what": progress.what, "done": progress.done, "total": progress.total}),
        );
    }
    Value::Object(own)
}
