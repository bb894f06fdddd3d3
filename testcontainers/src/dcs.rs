//! etcd, asked through its JSON gateway: who holds the lock, what the keys say, and what operators and faults do to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use surus_ci::gateway::{self, Standing, number};

/// The port of etcd's clients.
pub const CLIENT: u16 = 2379;
/// How long one member may take to answer a question.
const LIMIT: Duration = Duration::from_millis(700);
/// And to write something: a busy disk takes its time, and what people and faults do must not be left undone for that.
const WRITE: Duration = Duration::from_secs(2);
/// How long a leader is waited for: elections take a second or so.
const ELECTION: Duration = Duration::from_secs(3);

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Key {
    /// Its value.
    pub value: String,
    /// The revision of its creation.
    pub created: u64,
    /// The lease that it hangs on, zero if none.
    pub lease: u64,
}

fn text(value: Option<&Value>) -> String {
    let encoded = value.and_then(Value::as_str).unwrap_or_default();
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The members, in the story's order.
#[derive(Debug, Clone)]
pub struct Etcd {
    members: Vec<Ipv4Addr>,
    /// Where the cluster's keys are.
    prefix: String,
}

impl Etcd {
    /// These members, and the cluster whose keys are below `prefix`.
    #[must_use]
    pub const fn new(members: Vec<Ipv4Addr>, prefix: String) -> Self {
        Self { members, prefix }
    }

    async fn post(
        &self,
        member: Ipv4Addr,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, String> {
        gateway::post(SocketAddrV4::new(member, CLIENT), path, body, limit).await
    }

    /// The first good answer of a member.
    async fn any(&self, path: &str, body: &Value, limit: Duration) -> Result<Value, String> {
        let mut last = "there is no member".to_owned();
        for member in &self.members {
            match self.post(*member, path, body, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// All keys of the cluster, without the prefix.
    ///
    /// # Errors
    /// No member has a quorum.
    pub async fn keys(&self) -> Result<BTreeMap<String, Key>, String> {
        let mut end = self.prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let body = json!({"key": STANDARD.encode(&self.prefix), "range_end": STANDARD.encode(end)});
        let answer = self.any("/v3/kv/range", &body, LIMIT).await?;
        let keys = answer.get("kvs").and_then(Value::as_array).into_iter().flatten();
        let keys = keys.map(|kv| {
            let name = text(kv.get("key"));
            let key = Key {
                value: text(kv.get("value")),
                created: number(kv.get("create_revision")),
                lease: number(kv.get("lease")),
            };
            (name.strip_prefix(&self.prefix).unwrap_or(&name).to_owned(), key)
        });
        Ok(keys.collect())
    }

    /// Writes a key of the cluster.
    ///
    /// # Errors
    /// No member did it, or it is not known.
    pub async fn put(&self, name: &str, value: &str) -> Result<(), String> {
        let key = format!("{}{name}", self.prefix);
        let body = json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)});
        self.any("/v3/kv/put", &body, WRITE).await.map(drop)
    }

    /// Deletes a key of the cluster, or all that begin so.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, name: &str, below: bool) -> Result<(), String> {
        let key = format!("{}{name}", self.prefix).into_bytes();
        let mut body = json!({"key": STANDARD.encode(&key)});
        if below {
            let mut end = key;
            if let Some(last) = end.last_mut() {
                *last += 1;
            }
            body["range_end"] = json!(STANDARD.encode(end));
        }
        self.any("/v3/kv/deleterange", &body, WRITE).await.map(drop)
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn revoke(&self, lease: u64) -> Result<(), String> {
        self.any("/v3/lease/revoke", &json!({"ID": lease.to_string()}), WRITE)
            .await
            .map(drop)
    }

    /// Compacts the history up to now.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn compact(&self) -> Result<(), String> {
        let answer = self
            .any("/v3/kv/range", &json!({"key": STANDARD.encode("x")}), WRITE)
            .await?;
        let revision = number(answer.get("header").and_then(|header| header.get("revision")));
        let body = json!({"revision": revision.to_string()});
        self.any("/v3/kv/compaction", &body, WRITE).await.map(drop)
    }

    /// Sets the NOSPACE alarm, or takes it away.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn alarm(&self, set: bool) -> Result<(), String> {
        let action = if set { "ACTIVATE" } else { "DEACTIVATE" };
        for member in 0..self.members.len() {
            let Some(standing) = self.standing(member).await else {
                continue;
            };
            let body = json!({"action": action, "memberID": standing.id.to_string(), "alarm": "NOSPACE"});
            self.any("/v3/maintenance/alarm", &body, WRITE).await?;
            if set {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What a member says of itself; `None` if it does not answer.
    pub async fn standing(&self, member: usize) -> Option<Standing> {
        let address = *self.members.get(member)?;
        gateway::standing(SocketAddrV4::new(address, CLIENT), LIMIT).await
    }

    /// The leader's place among the members. An election that is under way is waited for.
    pub async fn leader(&self) -> Option<usize> {
        let asked = async {
            loop {
                if let Some(leader) = self.leading().await {
                    return leader;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(ELECTION, asked).await.ok()
    }

    async fn leading(&self) -> Option<usize> {
        for member in 0..self.members.len() {
            if self
                .standing(member)
                .await
                .is_some_and(|standing| standing.leads())
            {
                return Some(member);
            }
        }
        None
    }

    /// Hands the lead to another member.
    ///
    /// # Errors
    /// There is no leader or nobody to hand it to, or it is refused.
    pub async fn hand_over(&self) -> Result<(), String> {
        let leader = self.leader().await.ok_or("etcd has no leader")?;
        for member in (0..self.members.len()).filter(|member| *member != leader) {
            if let Some(standing) = self.standing(member).await {
                let body = json!({"targetID": standing.id.to_string()});
                let path = "/v3/maintenance/transfer-leadership";
                let limit = Duration::from_secs(5);
                return self
                    .post(self.members[leader], path, &body, limit)
                    .await
                    .map(drop);
            }
        }
        Err("no other member answers".to_owned())
    }

    /// Every member is there and they have a leader.
    pub async fn healthy(&self) -> bool {
        for member in 0..self.members.len() {
            if self
                .standing(member)
                .await
                .is_none_or(|standing| standing.leader == 0)
            {
                return false;
            }
        }
        true
    }
}
