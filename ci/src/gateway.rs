//! etcd's JSON gateway: one request, one answer; a watch; and what a member says of itself.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http;

/// A member of etcd and what it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub id: u64,
    /// The number of the leader as it knows it, zero if none.
    pub leader: u64,
}

impl Standing {
    /// It is the leader.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leader != 0 && self.leader == self.id
    }
}

/// Posts to the member at `at`.
///
/// # Errors
/// What went wrong, with the address: no answer within `limit`, another status than 200, or no JSON.
pub async fn post(at: SocketAddrV4, path: &str, body: &Value, limit: Duration) -> Result<Value, String> {
    let answer = http::request(at, "POST", path, &body.to_string(), limit).await;
    let answer = answer.map_err(|error| format!("{at}{path}: {error}"))?;
    if answer.status != 200 {
        return Err(format!(
            "{at}{path}: {} {}",
            answer.status,
            answer.body.trim_end()
        ));
    }
    serde_json::from_str(&answer.body).map_err(|error| format!("{at}{path}: {error}"))
}

/// What the member at `at` says of itself; `None` if it does not answer.
pub async fn standing(at: SocketAddrV4, limit: Duration) -> Option<Standing> {
    let answer = post(at, "/v3/maintenance/status", &json!({}), limit).await.ok()?;
    Some(Standing {
        id: number(answer.get("header").and_then(|header| header.get("member_id"))),
        leader: number(answer.get("leader")),
    })
}

/// What etcd tells of a key from a revision on.
#[derive(Debug)]
pub struct Watch(http::Lines);

impl Watch {
    /// Watches `key` (in base64) from `revision` on, by the member at `at`, which has to answer within `limit`.
    ///
    /// # Errors
    /// What went wrong, with the address.
    pub async fn open(at: SocketAddrV4, key: &str, revision: u64, limit: Duration) -> Result<Self, String> {
        let body = json!({"create_request": {"key": key, "start_revision": revision.to_string()}});
        let lines = http::Lines::post(at, "/v3/watch", &body.to_string(), limit).await;
        lines.map(Self).map_err(|error| format!("{at}/v3/watch: {error}"))
    }

    /// The next events, however long they take; none in the answer that the watch stands.
    ///
    /// # Errors
    /// What ended the watch.
    pub async fn next(&mut self) -> Result<Vec<Value>, String> {
        let line = self.0.next().await.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
        let result = answer["result"].take();
        if result.is_null() || result["canceled"] == json!(true) {
            return Err(format!("the watch has ended: {}", line.trim_end()));
        }
        Ok(result["events"].as_array().cloned().unwrap_or_default())
    }
}

/// A number of 64 bits, which the gateway writes as text; zero where there is none.
#[must_use]
pub fn number(value: Option<&Value>) -> u64 {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    text.parse().unwrap_or(0)
}
