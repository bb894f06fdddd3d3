//! The cluster as people and load balancers read it, computed from the keys alone.
//!
//! One reading of the keys ([`Topology::of`]) feeds the REST API's `/cluster` ([`cluster_json`]) and the tables of
//! the command line, so that the two cannot disagree. Nothing here decides anything: a record that cannot be read is
//! shown as far as it can be, never guessed at.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use surus_core::types::Lsn;

use crate::dcs::mode::{self, Synchronous, is_set, truthy};
use crate::dcs::snapshot::RawCluster;

/// The cluster at one revision of the store.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Topology {
    /// The members, by name.
    pub members: Vec<Member>,
    /// Who holds the leader key, with or without a member record.
    pub leader: Option<String>,
    /// The `initialize` key: the system identifier, empty while a bootstrap runs, absent before it.
    pub initialize: Option<String>,
    /// The dynamic configuration switches automatic action off.
    pub paused: bool,
    /// `synchronous_mode` is `on` or `quorum`.
    pub synchronous: bool,
    /// The cluster follows another one.
    pub standby_cluster: bool,
    /// A switchover that waits for its time.
    pub scheduled: Option<ScheduledSwitchover>,
    /// The dynamic configuration; null if there is none or it is no JSON.
    pub config: Value,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// `leader`, `standby_leader`, `promoted`, `sync_standby`, `quorum_standby` or `replica`.
    pub role: String,
    /// The state of PostgreSQL, or of its replication.
    pub state: String,
    /// Address of the REST API.
    pub api_url: Option<String>,
    /// Host of PostgreSQL.
    pub host: Option<String>,
    /// Port of PostgreSQL.
    pub port: Option<u16>,
    /// Its timeline.
    pub timeline: Option<u64>,
    /// Received WAL; `None` for the leader.
    pub received: Option<Position>,
    /// Replayed WAL; `None` for the leader.
    pub replayed: Option<Position>,
    /// The further of both, which is all that old agents publish; `None` for the leader.
    pub position: Option<Position>,
    /// The record as the member wrote it.
    pub record: Map<String, Value>,
}

/// A replica's place in the WAL, and how far it is behind the leader's last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Not published.
    Unknown,
    /// Published.
    At {
        /// The place.
        lsn: Lsn,
        /// Bytes behind; zero when ahead of what the `status` key says.
        lag: u64,
    },
}

/// The `failover` key when it has a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScheduledSwitchover {
    /// When, as written.
    pub at: String,
    /// The leader it is meant for.
    pub from: Option<String>,
    /// The candidate.
    pub to: Option<String>,
}

impl Topology {
    /// Reads the keys.
    #[must_use]
    pub fn of(raw: &RawCluster) -> Self {
        let config = raw.json("config").unwrap_or(Value::Null);
        let leader = raw
            .text("leader")
            .filter(|name| !name.is_empty())
            .map(str::to_owned);
        let sync_role = match Synchronous::of(&config) {
            Synchronous::Quorum => Some("quorum_standby"),
            Synchronous::On => Some("sync_standby"),
            Synchronous::Off => None,
        };
        let standby_cluster = mode::follows_another(&config);
        let synchronous = sync_role.filter(|_| !standby_cluster);
        let standbys = mode::sync_standbys(raw);
        let written = last_written(raw, leader.as_deref());
        let members = raw
            .members()
            .map(|(name, record)| {
                let is_leader = leader.as_deref() == Some(name);
                let role = if is_leader && standby_cluster {
                    "standby_leader"
                } else if is_leader && record.get("role").and_then(Value::as_str) == Some("promoted") {
                    "promoted"
                } else if is_leader {
                    "leader"
                } else {
                    synchronous
                        .filter(|_| standbys.contains(name))
                        .unwrap_or("replica")
                };
                member(name, role, is_leader, &record, written)
            })
            .collect();
        Self {
            members,
            leader,
            initialize: raw.text("initialize").map(str::to_owned),
            paused: config.get("pause").is_some_and(truthy),
            synchronous: synchronous.is_some(),
            standby_cluster,
            scheduled: scheduled(raw),
            config,
        }
    }

    /// The member of this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The member that holds the leader key, if it has a record.
    #[must_use]
    pub fn leader_member(&self) -> Option<&Member> {
        self.member(self.leader.as_deref()?)
    }

    /// Members that have a REST API, the leader first: the order in which to ask for something any of them can do.
    pub fn leader_first(&self) -> impl Iterator<Item = &Member> {
        let is_leader = |member: &&Member| Some(&member.name) == self.leader.as_ref();
        let rest = self.members.iter().filter(move |member| !is_leader(member));
        self.leader_member()
            .into_iter()
            .chain(rest)
            .filter(|member| member.api_url.is_some())
    }

    /// Whether addresses have to be shown with their ports: one is not 5432, or two members share a host.
    #[must_use]
    pub fn shows_ports(&self) -> bool {
        let mut hosts = BTreeMap::new();
        for member in &self.members {
            if let Some(host) = &member.host {
                *hosts.entry(host).or_insert(0) += 1;
            }
        }
        self.members
            .iter()
            .any(|member| member.port.is_some_and(|port| port != 5432))
            || hosts.values().any(|members| *members > 1)
    }
}

impl Member {
    /// A part of the record that the leader race and operators look at, such as `tags` or `pending_restart`.
    #[must_use]
    pub fn published(&self, key: &str) -> Option<&Value> {
        self.record.get(key).filter(|value| is_set(value))
    }

    /// A tag, if it is set to something.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&Value> {
        self.record.get("tags")?.get(name).filter(|value| is_set(value))
    }

    /// The tag that forbids its election.
    #[must_use]
    pub fn nofailover(&self) -> bool {
        match (
            self.tag("nofailover"),
            self.record
                .get("tags")
                .and_then(|tags| tags.get("failover_priority")),
        ) {
            (Some(value), _) => truthy(value),
            (None, Some(priority)) => priority.as_i64().is_some_and(|priority| priority <= 0),
            (None, None) => false,
        }
    }

    /// It has acknowledged the pause.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.record.get("pause") == Some(&Value::Bool(true))
    }
}

/// The answer of `GET /cluster`, read from the keys.
#[must_use]
pub fn cluster_json(raw: &RawCluster, scope: &str) -> Value {
    let topology = Topology::of(raw);
    let mut cluster = Map::new();
    let members = topology
        .members
        .iter()
        .map(|member| Value::Object(member_json(member)))
        .collect();
    cluster.insert("members".into(), Value::Array(members));
    if topology.paused {
        cluster.insert("pause".into(), Value::Bool(true));
    }
    if let Some(scheduled) = topology.scheduled {
        let mut switchover = Map::new();
        switchover.insert("at".into(), scheduled.at.into());
        for (key, name) in [("from", scheduled.from), ("to", scheduled.to)] {
            if let Some(name) = name {
                switchover.insert(key.into(), name.into());
            }
        }
        cluster.insert("scheduled_switchover".into(), Value::Object(switchover));
    }
    cluster.insert("scope".into(), scope.into());
    Value::Object(cluster)
}

fn member_json(member: &Member) -> Map<String, Value> {
    let mut json = Map::new();
    json.insert("name".into(), member.name.as_str().into());
    json.insert("role".into(), member.role.as_str().into());
    json.insert("state".into(), member.state.as_str().into());
    json.insert("api_url".into(), json!(member.api_url));
    if let Some(host) = &member.host {
        json.insert("host".into(), host.as_str().into());
        if let Some(port) = member.port {
            json.insert("port".into(), port.into());
        }
    }
    for key in [
        "timeline",
        "pending_restart",
        "pending_restart_reason",
        "scheduled_restart",
        "tags",
    ] {
        if let Some(value) = member.record.get(key) {
            json.insert(key.into(), value.clone());
        }
    }
    let positions = [
        ("receive_", member.received),
        ("replay_", member.replayed),
        ("", member.position),
    ];
    for (kind, position) in positions {
        let (lag, lsn) = match position {
            None => continue,
            Some(Position::Unknown) => (json!("unknown"), json!("unknown")),
            Some(Position::At { lsn, lag }) => (json!(lag), json!(lsn.to_string())),
        };
        json.insert(format!("{kind}lag"), lag);
        json.insert(format!("{kind}lsn"), lsn);
    }
    json
}

fn member(name: &str, role: &str, is_leader: bool, record: &Value, written: Lsn) -> Member {
    let text = |key: &str| {
        record
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let running = matches!(text("state"), Some("running" | "streaming"));
    let replicating = text("replication_state").filter(|_| role != "leader" && running);
    let address = text("conn_url").and_then(host_and_port);
    let place = |key: &str| {
        (!is_leader).then(
            || match record.get(key).and_then(Value::as_u64).filter(|lsn| *lsn > 0) {
                None => Position::Unknown,
                Some(lsn) => Position::At {
                    lsn: Lsn(lsn),
                    lag: written.ahead_of(Lsn(lsn)),
                },
            },
        )
    };
    Member {
        name: name.to_owned(),
        role: role.to_owned(),
        state: replicating
            .or_else(|| text("state"))
            .unwrap_or_default()
            .to_owned(),
        api_url: text("api_url").map(str::to_owned),
        port: address.as_ref().and_then(|(_, port)| *port),
        host: address.map(|(host, _)| host),
        timeline: record.get("timeline").and_then(Value::as_u64),
        received: place("receive_lsn"),
        replayed: place("replay_lsn"),
        position: place("xlog_location"),
        record: record.as_object().cloned().unwrap_or_default(),
    }
}

/// Host and port of `postgres://user:password@host:port/db?options`; an IPv6 address loses its brackets.
pub(crate) fn host_and_port(url: &str) -> Option<(String, Option<u16>)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let address = authority
        .rsplit_once('@')
        .map_or(authority, |(_, address)| address);
    let (host, port) = match address.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    (!host.is_empty()).then(|| (host.to_owned(), port.and_then(|port| port.parse().ok())))
}

/// The leader's last word on its own position: in `status`, or in its record if that is newer.
fn last_written(raw: &RawCluster, leader: Option<&str>) -> Lsn {
    let status = raw.json("status").and_then(|status| match status {
        Value::Object(status) => status.get("optime").and_then(Value::as_u64),
        other => other.as_u64(),
    });
    let status = status.or_else(|| raw.text("optime/leader")?.trim().parse().ok());
    let record = leader.and_then(|name| {
        raw.json(&format!("members/{name}"))?
            .get("xlog_location")?
            .as_u64()
    });
    Lsn(status.max(record).unwrap_or(0))
}

fn scheduled(raw: &RawCluster) -> Option<ScheduledSwitchover> {
    let failover = raw.json("failover")?;
    let text = |key: &str| {
        failover
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    Some(ScheduledSwitchover {
        at: text("scheduled_at")?.to_owned(),
        from: text("leader").map(str::to_owned),
        to: text("member").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dcs::snapshot::RawKey;

    fn keys(pairs: &[(&str, &str)]) -> RawCluster {
        let key = |value: &str| RawKey {
            value: value.to_owned(),
            create_revision: 1,
            mod_revision: 1,
            lease: 0,
        };
        RawCluster {
            keys: pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), key(value)))
                .collect(),
            revision: 1,
            term: 1,
        }
    }

    #[test]
    fn cluster_json_has_the_shape_that_clients_read() {
        let raw = keys(&[
            ("initialize", "7710181664234940600"),
            ("leader", "nodea"),
            ("config", r#"{"pause":true,"ttl":30}"#),
            ("status", r#"{"optime":67109000,"slots":{}}"#),
            (
                "failover",
                r#"{"leader":"nodea","member":"nodeb","scheduled_at":"2026-11-24T10:33:00+00:00"}"#,
            ),
            (
                "members/nodea",
                r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"primary","tags":{"clonefrom":true},"xlog_location":67108960,"timeline":5}"#,
            ),
            (
                "members/nodeb",
                r#"{"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running","role":"replica","replication_state":"streaming","xlog_location":67108960,"receive_lsn":67108960,"replay_lsn":67109001,"timeline":5}"#,
            ),
            (
                "members/nodec",
                r#"{"conn_url":"postgres://[fd00::3]:5433/postgres","state":"stopped","role":"replica"}"#,
            ),
            ("members/broken", "not json"),
        ]);
        let expected = json!({"members": [
            {"name": "nodea", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni",
             "host": "10.0.0.1", "port": 5432, "timeline": 5, "tags": {"clonefrom": true}},
            {"name": "nodeb", "role": "replica", "state": "streaming", "api_url": "http://10.0.0.2:8008/patroni",
             "host": "10.0.0.2", "port": 5432, "timeline": 5,
             "receive_lag": 40, "receive_lsn": "0/4000060", "replay_lag": 0, "replay_lsn": "0/4000089",
             "lag": 40, "lsn": "0/4000060"},
            {"name": "nodec", "role": "replica", "state": "stopped", "api_url": null, "host": "fd00::3", "port": 5433,
             "receive_lag": "unknown", "receive_lsn": "unknown", "replay_lag": "unknown", "replay_lsn": "unknown",
             "lag": "unknown", "lsn": "unknown"}],
            "pause": true,
            "scheduled_switchover": {"at": "2026-11-24T10:33:00+00:00", "from": "nodea", "to": "nodeb"},
            "scope": "demo"});
        let got = cluster_json(&raw, "demo");
        assert_eq!(got, expected);
        // The order of the keys is part of what people see.
        assert_eq!(got.to_string(), expected.to_string());
    }

    #[test]
    fn roles_come_from_the_leader_key_the_mode_and_the_sync_key() {
        let record = r#"{"state":"running","role":"replica"}"#;
        let role_of_b = |config: &str, sync: &str| {
            let raw = keys(&[
                ("leader", "a"),
                ("config", config),
                ("sync", sync),
                ("members/a", record),
                ("members/b", record),
            ]);
            Topology::of(&raw).member("b").unwrap().role.clone()
        };
        let sync = r#"{"leader":"a","sync_standby":"b,c"}"#;
        assert_eq!(role_of_b("{}", sync), "replica");
        assert_eq!(role_of_b(r#"{"synchronous_mode":true}"#, sync), "sync_standby");
        assert_eq!(role_of_b(r#"{"synchronous_mode":"on"}"#, sync), "sync_standby");
        assert_eq!(
            role_of_b(r#"{"synchronous_mode":"quorum"}"#, sync),
            "quorum_standby"
        );
        assert_eq!(
            role_of_b(
                r#"{"synchronous_mode":true}"#,
                r#"{"leader":"a","sync_standby":null}"#
            ),
            "replica"
        );
        assert_eq!(
            role_of_b(
                r#"{"synchronous_mode":true,"standby_cluster":{"host":"x"}}"#,
                sync
            ),
            "replica"
        );

        let standby = keys(&[
            ("leader", "a"),
            ("config", r#"{"standby_cluster":{"host":"x"}}"#),
            ("members/a", record),
        ]);
        assert_eq!(Topology::of(&standby).members[0].role, "standby_leader");
    }

    #[test]
    fn addresses_lose_credentials_and_brackets() {
        let cases = [
            ("postgres://h:1/db", Some(("h", Some(1)))),
            ("postgres://u:p@h:1/db?x=http://y:2", Some(("h", Some(1)))),
            ("postgres://[::1]:5433/db", Some(("::1", Some(5433)))),
            ("postgres://h/db", Some(("h", None))),
            ("h:1", None),
            ("postgres:///db", None),
        ];
        for (url, expected) in cases {
            let expected = expected.map(|(host, port): (&str, Option<u16>)| (host.to_owned(), port));
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }
}
