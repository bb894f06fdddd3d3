//! From the cluster's keys to facts: total, whatever the keys hold.
//!
//! Patroni, `patronictl`, scripts and people write these keys too. A value that cannot be read counts as absent or empty, as
//! Patroni reads it, with two exceptions on the safe side: a `failsafe` entry that is no address stays an entry (nobody will
//! answer there, so nobody can grant for it), and a `scheduled_at` that is no time is a request that is never carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use surus_core::sync::SyncKey;
use surus_core::types::{LeaseId, Lsn, NodeName, Revision, SystemId, Term, Timeline};
use surus_core::view::{
    ClusterView, Due, FailoverKey, Fork, HistoryLine, Initialize, LeaderKey, Member, Status,
};

use super::snapshot::{RawCluster, Snapshot};

/// A scheduled request that was missed by less than this is still carried out, even where one and a half rounds are less:
/// a short loss of etcd must not swallow it. It is what one and a half rounds are with Patroni's default `loop_wait`.
const LEAST_GRACE: Duration = Duration::from_secs(15);

/// The facts in `raw`. `wall` is the wall clock, as time since 1970; only the schedule of a failover is compared with it. What is as it was
/// `before` is not read again: a member of a busy cluster sees a key change ten times a second.
#[must_use]
pub fn view(raw: &RawCluster, wall: Duration, before: &Snapshot) -> ClusterView {
    let same = |key: &str| raw.keys.get(key) == before.raw.keys.get(key);
    let revision = |key: &str| raw.keys.get(key).map(|key| Revision(key.mod_revision));
    ClusterView {
        revision: Revision(raw.revision),
        term: Term(raw.term),
        initialize: raw.text("initialize").map(initialize),
        config_revision: revision("config"),
        leader: raw.keys.get("leader").map(|key| LeaderKey {
            name: NodeName(key.value.clone()),
            lease: (key.lease != 0).then_some(LeaseId(key.lease)),
            created: Revision(key.create_revision),
        }),
        members: members(raw, before),
        status: if same("status") && same("optime/leader") {
            before.view.status.clone()
        } else {
            status(raw).map(Arc::new)
        },
        status_revision: revision("status").unwrap_or_default(),
        failover: failover(raw, wall),
        failover_revision: revision("failover").unwrap_or_default(),
        history: if same("history") {
            Arc::clone(&before.view.history)
        } else {
            let lines = raw.json("history");
            lines.map(|lines| Arc::new(history(&lines))).unwrap_or_default()
        },
        failsafe: if same("failsafe") {
            before.view.failsafe.clone()
        } else {
            raw.json("failsafe").as_ref().and_then(failsafe).map(Arc::new)
        },
        failsafe_revision: revision("failsafe").unwrap_or_default(),
        sync: if same("sync") {
            before.view.sync.clone()
        } else {
            raw.json("sync").as_ref().and_then(sync).map(Arc::new)
        },
        sync_revision: revision("sync").unwrap_or_default(),
    }
}

fn members(raw: &RawCluster, before: &Snapshot) -> BTreeMap<NodeName, Arc<Member>> {
    let read = |(key, name): (&str, &str)| {
        let name = NodeName::from(name);
        if raw.keys.get(key) == before.raw.keys.get(key) {
            let known = Arc::clone(before.view.members.get(&name)?);
            return Some((name, known));
        }
        let record = raw.json(key).filter(Value::is_object)?;
        Some((name, Arc::new(member(&record))))
    };
    raw.member_keys().filter_map(read).collect()
}

fn initialize(text: &str) -> Initialize {
    match text.trim() {
        "" => Initialize::InProgress,
        text => text
            .parse()
            .map_or(Initialize::Garbage, |id| Initialize::Done(SystemId(id))),
    }
}

fn member(record: &Value) -> Member {
    let text = |key: &str| {
        record
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let lsn = |key: &str| record.get(key).and_then(number).map(Lsn);
    let empty = Map::new();
    let tags = record.get("tags").and_then(Value::as_object).unwrap_or(&empty);
    let tag = |key: &str| tags.get(key).and_then(boolean);
    let (nofailover, failover_priority) = switch_and_priority(tags, "nofailover", "failover_priority");
    let (nosync, sync_priority) = switch_and_priority(tags, "nosync", "sync_priority");
    let conn_url = text("conn_url");
    // Old members carried the address of their REST API within the connection string.
    let (conn_url, embedded) = match conn_url.split_once("?application_name=") {
        Some((conn_url, api_url)) => (conn_url.to_owned(), Some(api_url.to_owned())),
        None => (conn_url, None),
    };
    let api_url = match text("api_url") {
        given if given.is_empty() => embedded.unwrap_or_default(),
        given => given,
    };
    Member {
        conn_url,
        api_url,
        state: text("state"),
        role: text("role"),
        position: lsn("xlog_location").or_else(|| lsn("receive_lsn").max(lsn("replay_lsn"))),
        timeline: record.get("timeline").and_then(timeline),
        checkpoint_after_promote: record.get("checkpoint_after_promote").and_then(boolean),
        nofailover,
        failover_priority,
        clonefrom: tag("clonefrom").unwrap_or(false),
        replicatefrom: tags
            .get("replicatefrom")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .map(NodeName::from),
        nostream: tag("nostream").unwrap_or(false),
        nosync,
        sync_priority,
        surus: record.get("surus").is_some(),
        pause: record.get("pause").and_then(boolean).unwrap_or(false),
    }
}

/// A tag that is on or off, and the number that says the same; the first wins over one that contradicts it.
fn switch_and_priority(tags: &Map<String, Value>, switch: &str, priority: &str) -> (bool, u32) {
    let number = tags.get(priority).and_then(integer);
    let off = tags
        .get(switch)
        .and_then(boolean)
        .unwrap_or_else(|| number.is_some_and(|number| number <= 0));
    let number = match number {
        Some(number) if number > 0 => u32::try_from(number).unwrap_or(u32::MAX),
        Some(_) if off => 0,
        _ => 1,
    };
    (off, number)
}

fn status(raw: &RawCluster) -> Option<Status> {
    let Some(text) = raw.text("status") else {
        // Written by Patroni before 2.1.
        let optime = raw.text("optime/leader")?.trim().parse().ok().map(Lsn)?;
        return Some(Status {
            optime,
            ..Status::default()
        });
    };
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    if let Some(optime) = number(&value).map(Lsn) {
        return Some(Status {
            optime,
            ..Status::default()
        });
    }
    let slots = value.get("slots").and_then(Value::as_object);
    let retain = value.get("retain_slots").and_then(Value::as_array);
    let ours = value.get("surus");
    let ours = |key: &str| ours.and_then(|ours| ours.get(key));
    let forks = ours("forks").and_then(Value::as_array);
    Some(Status {
        optime: value.get("optime").and_then(number).map(Lsn).unwrap_or_default(),
        slots: slots
            .into_iter()
            .flatten()
            .filter_map(|(slot, at)| Some((slot.clone(), Lsn(number(at)?))))
            .collect(),
        retain_slots: retain
            .into_iter()
            .flatten()
            .filter_map(|slot| slot.as_str().map(str::to_owned))
            .collect::<BTreeSet<_>>(),
        ttl: ours("ttl")
            .and_then(Value::as_f64)
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        timeline: ours("timeline").and_then(timeline),
        forks: forks.into_iter().flatten().filter_map(fork).collect(),
        next: ours("next").and_then(timeline),
        vacated: ours("vacated").and_then(Value::as_str).map(NodeName::from),
        unfenced: ours("unfenced").and_then(Value::as_str).map(NodeName::from),
    })
}

/// `[timeline, position]`.
fn fork(value: &Value) -> Option<Fork> {
    Some(Fork {
        from: value.get(0).and_then(timeline)?,
        at: value.get(1).and_then(number).map(Lsn)?,
    })
}

fn failover(raw: &RawCluster, wall: Duration) -> Option<FailoverKey> {
    let key = raw.keys.get("failover")?;
    let name = |text: &str| {
        Some(text.trim())
            .filter(|text| !text.is_empty())
            .map(NodeName::from)
    };
    let (leader, candidate, due) = match serde_json::from_str::<Value>(&key.value) {
        Ok(value) => {
            let field = |key: &str| value.get(key).and_then(Value::as_str).and_then(name);
            let due = match value.get("scheduled_at") {
                None | Some(Value::Null) => Due::Now,
                Some(Value::String(text)) if text.is_empty() => Due::Now,
                Some(at) => due(at, wall, grace(raw)),
            };
            (field("leader"), field("member"), due)
        }
        // The oldest form: `from:to`, either of which may be missing.
        Err(_) => {
            let (from, to) = key.value.split_once(':').unwrap_or((&key.value, ""));
            (name(from), name(to), Due::Now)
        }
    };
    (leader.is_some() || candidate.is_some()).then_some(FailoverKey {
        leader,
        candidate,
        due,
        revision: Revision(key.mod_revision),
    })
}

/// How long after its time a scheduled request is still carried out.
fn grace(raw: &RawCluster) -> Duration {
    let loop_wait = raw
        .json("config")
        .and_then(|config| config.get("loop_wait").and_then(number))
        .unwrap_or(0);
    let rounds = Duration::from_millis(loop_wait.min(3600) * 1500);
    rounds.max(LEAST_GRACE)
}

fn due(at: &Value, wall: Duration, grace: Duration) -> Due {
    let at: Option<jiff::Timestamp> = at.as_str().and_then(|text| text.trim().parse().ok());
    let now = i128::try_from(wall.as_nanos()).unwrap_or(i128::MAX);
    let Some(ahead) = at.map(|at| at.as_nanosecond() - now) else {
        return Due::Stale;
    };
    match u64::try_from(ahead) {
        Ok(0) => Due::Now,
        Ok(ahead) => Due::In(Duration::from_nanos(ahead)),
        Err(_) if ahead > 0 => Due::In(Duration::MAX),
        Err(_) if ahead.unsigned_abs() <= grace.as_nanos() => Due::Now,
        Err(_) => Due::Stale,
    }
}

fn history(lines: &Value) -> Vec<HistoryLine> {
    let line = |line: &Value| {
        let text = |at: usize| line.get(at).and_then(Value::as_str).map(str::to_owned);
        Some(HistoryLine {
            timeline: line.get(0).and_then(timeline)?,
            switch: Lsn(line.get(1).and_then(number)?),
            reason: text(2).unwrap_or_default(),
            at: text(3),
            leader: text(4),
        })
    };
    lines
        .as_array()
        .map(|lines| lines.iter().filter_map(line).collect())
        .unwrap_or_default()
}

fn failsafe(value: &Value) -> Option<BTreeMap<NodeName, String>> {
    let entry = |(name, url): (&String, &Value)| {
        let url = url.as_str().map_or_else(|| url.to_string(), str::to_owned);
        (NodeName(name.clone()), url)
    };
    value
        .as_object()
        .map(|members| members.iter().map(entry).collect())
}

/// Who may be elected; `None` for a key that names no leader.
fn sync(value: &Value) -> Option<SyncKey> {
    let leader = value.get("leader").and_then(Value::as_str)?;
    let quorum = value.get("quorum").and_then(number).unwrap_or(0);
    (!leader.is_empty()).then(|| SyncKey {
        leader: leader.into(),
        voters: super::mode::listed(value).map(NodeName::from).collect(),
        quorum: usize::try_from(quorum).unwrap_or(usize::MAX - 1),
    })
}

/// A number that is not negative, also as text.
pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The core adds one to timelines: the last 32-bit number is no timeline.
fn timeline(value: &Value) -> Option<Timeline> {
    let number = u32::try_from(number(value)?).ok()?;
    (1..u32::MAX).contains(&number).then_some(Timeline(number))
}

/// What Patroni takes for a truth value.
fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
