//! The cluster as a router sees it: from the keys in etcd, whoever wrote them, to who leads, where everybody is and what they say of
//! themselves. Total, whatever the keys hold.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::settings::HostPort;
use crate::dcs::mode::truthy;
use crate::dcs::snapshot::Snapshot;
use crate::dcs::{STOPPING, number};
use crate::topology::host_and_port;

/// The cluster at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    /// Who holds the leader key.
    pub leader: Option<Leader>,
    /// The leader has said that it is about to stop: revision of that word.
    pub stopping: Option<i64>,
    /// The members by name.
    pub members: BTreeMap<String, Member>,
}

/// The holder of the leader key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// Revision at which the key was created: another one is another reign.
    pub reign: i64,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where clients connect.
    pub at: HostPort,
    /// Its role.
    pub role: Role,
    /// What its PostgreSQL does.
    pub state: State,
    /// It streams from its upstream.
    pub streaming: bool,
    /// It has not asked to be left out of load balancing.
    pub balanced: bool,
    /// Bytes of WAL that it has not replayed, as far as the keys tell; zero for a primary.
    pub lag: u64,
}

/// The role that a member says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It accepts writes.
    Primary,
    /// Anything else.
    Replica,
}

/// What a member says of its PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It serves queries.
    Running,
    /// It is to stop, but may be serving still.
    Stopping,
    /// It is down and will be back, or nobody knows.
    Restarting,
    /// It is down, and not about to come back.
    Down,
}

impl Cluster {
    /// Reads the keys. With `pooler` clients go to a member's `proxy_url` where it has one.
    #[must_use]
    pub fn read(snapshot: &Snapshot, pooler: bool) -> Self {
        let leader = snapshot.view.leader.as_ref().map(|key| Leader {
            name: key.name.as_str().to_owned(),
            reign: key.created.0,
        });
        let raw = &snapshot.raw;
        let records: Vec<(&str, Value)> = raw.members().collect();
        let end = records
            .iter()
            .filter(|(name, _)| leader.as_ref().is_some_and(|leader| leader.name == *name))
            .filter_map(|(_, record)| position(record, "xlog_location"))
            .chain(snapshot.view.status.as_ref().map(|status| status.optime.0))
            .max()
            .unwrap_or(0);
        let members = records
            .iter()
            .filter_map(|(name, record)| Some(((*name).to_owned(), member(record, end, pooler)?)))
            .collect();
        let stopping = raw.keys.get(STOPPING).filter(|key| {
            leader
                .as_ref()
                .is_some_and(|leader| key.value == leader.name && leader.reign < key.mod_revision)
        });
        Self {
            stopping: stopping.map(|key| key.mod_revision),
            leader,
            members,
        }
    }
}

fn member(record: &Value, end: u64, pooler: bool) -> Option<Member> {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
    let at = Some(text("proxy_url"))
        .filter(|_| pooler)
        .and_then(address)
        .or_else(|| address(text("conn_url")))?;
    let role = match text("role") {
        "primary" | "master" | "promoted" => Role::Primary,
        _ => Role::Replica,
    };
    let state = match text("state") {
        "running" | "streaming" | "in archive recovery" => State::Running,
        "stopping" => State::Stopping,
        "starting" | "restarting" | "crashed" | "unknown" | "" => State::Restarting,
        _ => State::Down,
    };
    let streaming = text("replication_state") == "streaming" || text("state") == "streaming";
    let replayed = position(record, "replay_lsn").or_else(|| position(record, "xlog_location"));
    Some(Member {
        at,
        role,
        state,
        streaming,
        balanced: !record
            .get("tags")
            .and_then(|tags| tags.get("noloadbalance"))
            .is_some_and(truthy),
        lag: match role {
            Role::Primary => 0,
            Role::Replica => end.saturating_sub(replayed.unwrap_or(0)),
        },
    })
}

/// Host and port of a `postgres://` URL.
fn address(url: &str) -> Option<HostPort> {
    let (host, port) = host_and_port(url)?;
    let port = port.unwrap_or(5432);
    Some(HostPort { host, port })
}

fn position(record: &Value, key: &str) -> Option<u64> {
    record.get(key).and_then(number)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dcs::snapshot::{RawCluster, RawKey};

    fn cluster(keys: &[(&str, &str, i64)]) -> Cluster {
        let raw = RawCluster {
            keys: keys
                .iter()
                .map(|(name, value, revision)| {
                    let key = RawKey {
                        value: (*value).to_owned(),
                        create_revision: *revision,
                        mod_revision: *revision,
                        lease: 1,
                    };
                    ((*name).to_owned(), key)
                })
                .collect(),
            revision: 100,
            term: 1,
        };
        let view = crate::dcs::parse::view(&raw, Duration::ZERO, &Snapshot::default());
        Cluster::read(&Snapshot { raw, view }, false)
    }

    #[test]
    fn members_of_surus_and_of_patroni_are_understood() {
        let found = cluster(&[
            ("leader", "n1", 5),
            ("status", r#"{"optime":5000}"#, 6),
            (
                "members/n1",
                r#"{"conn_url":"postgres://10.0.0.1:5433/postgres","state":"running","role":"primary","xlog_location":5200}"#,
                7,
            ),
            (
                "members/n2",
                r#"{"conn_url":"postgres://[fd00::2]:5432/postgres","state":"running","role":"replica","xlog_location":5200,"replay_lsn":5100,"replication_state":"streaming"}"#,
                8,
            ),
            (
                "members/n3",
                r#"{"conn_url":"postgres://u:p@n3.example/postgres","state":"streaming","role":"replica","xlog_location":"4200","tags":{"noloadbalance":true}}"#,
                9,
            ),
            ("members/n4", r#"{"state":"running"}"#, 10),
            ("members/n5", "no JSON", 11),
        ]);
        let leader = Leader {
            name: "n1".to_owned(),
            reign: 5,
        };
        assert_eq!(found.leader, Some(leader));
        assert_eq!(found.members.keys().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
        let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| found.members[name].clone());
        assert_eq!(
            (n1.at.to_string().as_str(), n1.role),
            ("10.0.0.1:5433", Role::Primary)
        );
        assert_eq!((n2.at.to_string().as_str(), n2.lag), ("[fd00::2]:5432", 100));
        assert!(n2.streaming && n2.balanced);
        assert_eq!((n3.at.to_string().as_str(), n3.lag), ("n3.example:5432", 1000));
        assert!(n3.streaming && !n3.balanced && n3.state == State::Running);
    }

    #[test]
    fn the_word_that_the_primary_stops_is_of_this_reign_or_void() {
        let with = |name, revision| {
            let keys = [("leader", "n1", 50), (STOPPING, name, revision)];
            cluster(&keys).stopping
        };
        assert_eq!(with("n1", 60), Some(60));
        assert_eq!(with("n1", 40), None);
        assert_eq!(with("n2", 60), None);
    }
}
