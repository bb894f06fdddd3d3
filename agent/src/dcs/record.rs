//! The values that this node writes to its keys, in the form that Patroni's members, `patronictl` and confd templates read.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use surus_core::action::{MemberRecord, StatusRecord};
use surus_core::sync::SyncKey;
use surus_core::types::NodeName;
use surus_core::view::HistoryLine;

/// The Patroni version that members are told: other members switch features by it.
pub const PATRONI_VERSION: &str = "4.1.5";

/// The part of a member's key that the core does not decide.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemberFacts {
    /// `postgres://host:port/db`, without credentials.
    pub conn_url: String,
    /// Address of the REST API, ending in `/patroni`.
    pub api_url: String,
    /// Address of a connection pooler in front of PostgreSQL.
    pub proxy_url: Option<String>,
    /// Tags to publish (contract 3.9: false ones left out).
    pub tags: Map<String, Value>,
    /// Some setting needs a restart.
    pub pending_restart: bool,
    /// Which, as Patroni words it: `{"max_connections":{"old_value":"100","new_value":"101"}}`.
    pub pending_restart_reason: Map<String, Value>,
    /// A restart that is due later, as Patroni words it.
    pub scheduled_restart: Option<Value>,
}

/// The value of `members/<name>`: compact JSON, with the keys in Patroni's order and ours at the end.
#[must_use]
pub fn member_json(record: &MemberRecord, facts: &MemberFacts) -> String {
    let mut member = Map::new();
    let mut put = |key: &str, value: Value| {
        member.insert(key.to_owned(), value);
    };
    put("conn_url", json!(facts.conn_url));
    put("api_url", json!(facts.api_url));
    put("state", json!(record.state));
    put("role", json!(record.role));
    put("version", json!(PATRONI_VERSION));
    if let Some(proxy_url) = &facts.proxy_url {
        put("proxy_url", json!(proxy_url));
    }
    if let Some(done) = record.checkpoint_after_promote {
        put("checkpoint_after_promote", json!(done));
    }
    let mut tags = facts.tags.clone();
    if record.nosync {
        tags.insert("nosync".to_owned(), json!(true));
        tags.insert("sync_priority".to_owned(), json!(0));
    }
    if !tags.is_empty() {
        put("tags", Value::Object(tags));
    }
    if facts.pending_restart {
        put("pending_restart", json!(true));
        if !facts.pending_restart_reason.is_empty() {
            put(
                "pending_restart_reason",
                Value::Object(facts.pending_restart_reason.clone()),
            );
        }
    }
    if let Some(position) = record.position {
        put("xlog_location", json!(position.0));
    }
    if let Some(replayed) = record.replayed {
        put("replay_lsn", json!(replayed.0));
        // What a walreceiver has got is never behind what is replayed, so of a streaming replica the position is what it received.
        if let Some(position) = record.position.filter(|_| record.streaming) {
            put("receive_lsn", json!(position.0));
        }
    }
    if record.streaming {
        put("replication_state", json!("streaming"));
    }
    if let Some(timeline) = record.timeline {
        put("timeline", json!(timeline.0));
    }
    if let Some(restart) = &facts.scheduled_restart {
        put("scheduled_restart", restart.clone());
    }
    if record.pause {
        put("pause", json!(true));
    }
    put("surus", json!(env!("CARGO_PKG_VERSION")));
    Value::Object(member).to_string()
}

/// The value of `status`. What is ours stands under `surus`, where Patroni does not look: the ttl in seconds that the leader's
/// right is counted with, its timeline and the way to it, its name once it has stopped cleanly and given the lock back, and its name while its primary
/// runs without a deadline in a pause.
pub(super) fn status_json(status: &StatusRecord, name: &str) -> String {
    let mut value = Map::new();
    value.insert("optime".to_owned(), json!(status.optime.0));
    if !status.slots.is_empty() {
        let slots: Map<String, Value> = status
            .slots
            .iter()
            .map(|(slot, at)| (slot.clone(), json!(at.0)))
            .collect();
        value.insert("slots".to_owned(), Value::Object(slots));
    }
    if !status.retain_slots.is_empty() {
        value.insert("retain_slots".to_owned(), json!(status.retain_slots));
    }
    let mut ours = Map::new();
    ours.insert("ttl".to_owned(), json!(status.ttl.as_secs_f64()));
    if let Some(timeline) = status.timeline {
        ours.insert("timeline".to_owned(), json!(timeline.0));
    }
    if !status.forks.is_empty() {
        let forks: Vec<Value> = status
            .forks
            .iter()
            .map(|fork| json!([fork.from.0, fork.at.0]))
            .collect();
        ours.insert("forks".to_owned(), Value::Array(forks));
    }
    if let Some(next) = status.next {
        ours.insert("next".to_owned(), json!(next.0));
    }
    if status.vacated {
        ours.insert("vacated".to_owned(), json!(name));
    }
    if status.unfenced {
        ours.insert("unfenced".to_owned(), json!(name));
    }
    value.insert("surus".to_owned(), Value::Object(ours));
    Value::Object(value).to_string()
}

/// The value of `history`.
pub(super) fn history_json(lines: &[HistoryLine]) -> String {
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| {
            let mut row = vec![json!(line.timeline.0), json!(line.switch.0), json!(line.reason)];
            if line.at.is_some() || line.leader.is_some() {
                row.push(json!(line.at.as_deref().unwrap_or_default()));
            }
            if let Some(leader) = &line.leader {
                row.push(json!(leader));
            }
            Value::Array(row)
        })
        .collect();
    Value::Array(lines).to_string()
}

/// The value of `failsafe`.
pub(super) fn failsafe_json(members: &BTreeMap<NodeName, String>) -> String {
    let members: Map<String, Value> = members
        .iter()
        .map(|(name, url)| (name.0.clone(), json!(url)))
        .collect();
    Value::Object(members).to_string()
}

/// The value of `sync`.
pub(super) fn sync_json(key: &SyncKey) -> String {
    let voters: Vec<&str> = key.voters.iter().map(NodeName::as_str).collect();
    let voters = (!voters.is_empty()).then(|| voters.join(","));
    json!({"leader": key.leader, "quorum": key.quorum, "sync_standby": voters}).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use surus_core::types::{Lsn, Timeline};

    use super::*;

    #[test]
    fn a_member_is_written_in_patronis_order() {
        let mut record = MemberRecord {
            ttl: Duration::from_secs(5),
            lease: None,
            state: "running",
            role: "replica",
            position: Some(Lsn(100)),
            replayed: Some(Lsn(90)),
            timeline: Some(Timeline(3)),
            streaming: true,
            checkpoint_after_promote: None,
            pause: true,
            nosync: false,
        };
        let mut facts = MemberFacts {
            conn_url: "postgres://10.0.0.1:5432/postgres".into(),
            api_url: "http://10.0.0.1:8008/patroni".into(),
            proxy_url: Some("postgres://10.0.0.1:6432/postgres".into()),
            ..MemberFacts::default()
        };
        facts.tags.insert("clonefrom".into(), json!(true));
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            member_json(&record, &facts),
            format!(
                r#"{{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"replica","version":"4.1.5","proxy_url":"postgres://10.0.0.1:6432/postgres","tags":{{"clonefrom":true}},"xlog_location":100,"replay_lsn":90,"receive_lsn":100,"replication_state":"streaming","timeline":3,"pause":true,"surus":"{version}"}}"#
            )
        );
        record.role = "primary";
        record.replayed = None;
        record.streaming = false;
        record.pause = false;
        record.checkpoint_after_promote = Some(false);
        facts = MemberFacts {
            pending_restart: true,
            ..MemberFacts::default()
        };
        assert_eq!(
            member_json(&record, &facts),
            format!(
                r#"{{"conn_url":"","api_url":"","state":"running","role":"primary","version":"4.1.5","checkpoint_after_promote":false,"pending_restart":true,"xlog_location":100,"timeline":3,"surus":"{version}"}}"#
            )
        );
    }

    #[test]
    fn a_member_that_is_about_to_stop_is_no_synchronous_standby() {
        let record = MemberRecord {
            ttl: Duration::from_secs(5),
            lease: None,
            state: "running",
            role: "replica",
            position: None,
            replayed: None,
            timeline: None,
            streaming: false,
            checkpoint_after_promote: None,
            pause: false,
            nosync: true,
        };
        let mut facts = MemberFacts::default();
        facts.tags.insert("clonefrom".into(), json!(true));
        facts.tags.insert("sync_priority".into(), json!(3));
        let member: Value = serde_json::from_str(&member_json(&record, &facts)).unwrap();
        assert_eq!(
            member["tags"],
            json!({"clonefrom": true, "nosync": true, "sync_priority": 0})
        );
    }

    #[test]
    fn a_sync_key_names_its_standbys_in_order() {
        let mut key = SyncKey::alone("a".into());
        assert_eq!(
            sync_json(&key),
            r#"{"leader":"a","quorum":0,"sync_standby":null}"#
        );
        key.voters = ["c".into(), "b".into()].into();
        key.quorum = 1;
        assert_eq!(
            sync_json(&key),
            r#"{"leader":"a","quorum":1,"sync_standby":"b,c"}"#
        );
    }

    #[test]
    fn a_status_leaves_out_what_is_empty() {
        let mut status = StatusRecord {
            optime: Lsn(67_395_656),
            ttl: Duration::from_secs(5),
            ..StatusRecord::default()
        };
        assert_eq!(
            status_json(&status, "n1"),
            r#"{"optime":67395656,"surus":{"ttl":5.0}}"#
        );
        status.slots.insert("n2".into(), Lsn(7));
        status.retain_slots.insert("n3".into());
        status.timeline = Some(Timeline(3));
        status.vacated = true;
        assert_eq!(
            status_json(&status, "n1"),
            r#"{"optime":67395656,"slots":{"n2":7},"retain_slots":["n3"],"surus":{"ttl":5.0,"timeline":3,"vacated":"n1"}}"#
        );
    }

    #[test]
    fn history_lines_may_be_short() {
        let mut line = HistoryLine {
            timeline: Timeline(1),
            switch: Lsn(67_108_864),
            reason: "no recovery target specified".into(),
            at: None,
            leader: None,
        };
        assert_eq!(
            history_json(std::slice::from_ref(&line)),
            r#"[[1,67108864,"no recovery target specified"]]"#
        );
        line.leader = Some("b".into());
        line.at = Some("2026-11-20T10:00:00+00:00".into());
        assert_eq!(
            history_json(&[line]),
            r#"[[1,67108864,"no recovery target specified","2026-11-20T10:00:00+00:00","b"]]"#
        );
        assert_eq!(history_json(&[]), "[]");
    }
}
