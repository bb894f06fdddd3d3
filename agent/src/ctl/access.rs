//! What the commands need of the world: the cluster's keys, the members' REST API, and time.
//!
//! One trait, so that every command runs unchanged against a cluster made of plain values in tests. It blocks: a
//! command does one thing after another, and its waiting is what the operator waits for.

use std::time::Duration;

use serde_json::Value;

use crate::ctl::failure::Failure;
use crate::dcs::snapshot::RawCluster;

/// The world as a command sees it.
pub trait ClusterAccess {
    /// Reads all keys of a cluster, linearizably. A cluster without keys is an empty answer, no error.
    fn read(&mut self, scope: &str) -> Result<RawCluster, Failure>;

    /// Writes one key if `expect` holds; `false` if it did not hold.
    fn put(&mut self, scope: &str, key: &str, value: &str, expect: Expect) -> Result<bool, Failure>;

    /// Deletes every key of a cluster.
    fn delete_all(&mut self, scope: &str) -> Result<(), Failure>;

    /// Sends one request to a member; `api_url` is what the member published.
    ///
    /// # Errors
    ///
    /// Only when there was no HTTP answer; an answer with an error status is an answer.
    fn request(&mut self, api_url: &str, request: &Request<'_>) -> Result<Reply, Unreachable>;

    /// Lets time pass.
    fn sleep(&mut self, duration: Duration);

    /// Wall time, for people.
    fn now(&self) -> jiff::Timestamp;
}

/// Condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key last changed at this revision.
    Revision(i64),
}

impl Expect {
    /// That the key is as it was in this reading.
    #[must_use]
    pub fn unchanged(raw: &RawCluster, key: &str) -> Self {
        raw.keys
            .get(key)
            .map_or(Self::Absent, |key| Self::Revision(key.mod_revision))
    }
}

/// One request to a member's REST API.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'a> {
    /// `GET`, `POST`, ….
    pub method: &'a str,
    /// Path below the root, without a slash at its start.
    pub path: &'a str,
    /// Body, sent as JSON.
    pub body: Option<Value>,
    /// How long to wait for the whole answer; without a limit a frozen member would hold the command for ever.
    pub timeout: Duration,
}

impl<'a> Request<'a> {
    /// A request that is answered at once.
    #[must_use]
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self {
            method,
            path,
            body: None,
            timeout: Duration::from_secs(10),
        }
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// With another limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body. Bytes that are no UTF-8 are replaced.
    pub text: String,
}

impl Reply {
    /// The body as JSON, or null.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body on one line, without the markup of error pages.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut in_tag = false;
        for character in self.text.chars() {
            match character {
                '<' => in_tag = true,
                '>' if in_tag => in_tag = false,
                _ if !in_tag => text.push(character),
                _ => {}
            }
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// There was no HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreachable {
    /// Why, with its causes, as one line.
    pub reason: String,
    /// The request was sent before the connection failed: it may have taken effect.
    pub sent: bool,
}
