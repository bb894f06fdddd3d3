//! How a cluster with synchronous replication stands, and what an operator may order of it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{self, Route, Writer};
use crate::cluster::Cluster;
use crate::error::{Error, Result, chain};
use crate::http;

/// What `/cluster` and the primary say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The primary; `None` while nobody leads.
    pub(crate) primary: Option<u8>,
    /// The members in the `sync` key.
    pub(crate) named: BTreeSet<u8>,
    /// The setting in the primary.
    pub(crate) names: String,
}

impl Cluster {
    /// Looks once; the error says what is missing.
    pub(crate) async fn seen(&self) -> std::result::Result<Seen, String> {
        let view = self.view().await?;
        let members = view.get("members").and_then(Value::as_array).cloned();
        let mut seen = Seen::default();
        for member in members.unwrap_or_default() {
            let text = |key: &str| member.get(key).and_then(Value::as_str).unwrap_or_default();
            let node = self.nodes.iter().find(|node| node.name == text("name"));
            match (text("role"), node.map(|node| node.index)) {
                ("leader", index) => seen.primary = index,
                ("sync_standby" | "quorum_standby", Some(index)) => {
                    seen.named.insert(index);
                }
                _ => {}
            }
        }
        if let Some(primary) = seen.primary {
            let at = Route::To(self.nodes[usize::from(primary)].postgres);
            let client = client::connect(&at).await.map_err(|error| chain(&error))?;
            let row = client::ask(&client, "SELECT current_setting('synchronous_standby_names')").await;
            seen.names = row.map_err(|error| chain(&error))?.concat();
        }
        Ok(seen)
    }

    /// Looks until `satisfied`.
    ///
    /// # Errors
    /// [`Error::Late`] with what was seen last.
    pub(crate) async fn until_seen(
        &self,
        what: &str,
        limit: Duration,
        satisfied: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        let end = Instant::now() + limit;
        loop {
            let last = self.seen().await;
            match last {
                Ok(seen) if satisfied(&seen) => return Ok(seen),
                last if Instant::now() > end => {
                    return Err(Error::Late {
                        what: what.to_owned(),
                        limit,
                        last: format!("{last:?}"),
                    });
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Asks the leader's REST API for something.
    ///
    /// # Errors
    /// [`Error::Unmet`] with the answer, if that is not 200, or when nobody leads.
    pub(crate) async fn order(&self, method: &str, path: &str, body: &Value) -> Result<()> {
        let seen = self.seen().await.map_err(Error::Unmet)?;
        let primary = seen
            .primary
            .ok_or_else(|| Error::Unmet("nobody leads".to_owned()))?;
        self.order_of(primary, method, path, body).await
    }

    /// Orders a restart of a member's PostgreSQL, and waits until it is done.
    ///
    /// # Errors
    /// [`Error::Unmet`] with the answer, if that is not 200.
    pub(crate) async fn restart(&self, node: u8) -> Result<()> {
        self.order_of(node, "POST", "/restart", &json!({})).await
    }

    async fn order_of(&self, node: u8, method: &str, path: &str, body: &Value) -> Result<()> {
        let rest = self.nodes[usize::from(node)].rest;
        let answer = http::request(rest, method, path, &body.to_string(), Duration::from_secs(30))
            .await
            .map_err(Error::io(|| format!("{method} {path}")))?;
        if answer.status != 200 {
            return Err(Error::Unmet(format!(
                "{method} {path} {body}: {} {}",
                answer.status, answer.body
            )));
        }
        Ok(())
    }

    /// Orders a switchover to whoever is best.
    ///
    /// # Errors
    /// As [`Self::order`].
    pub(crate) async fn switchover(&self) -> Result<()> {
        let seen = self.seen().await.map_err(Error::Unmet)?;
        let leader = seen.primary.map(|primary| &self.nodes[usize::from(primary)].name);
        self.order("POST", "/switchover", &json!({ "leader": leader }))
            .await
    }
}

/// Waits until a write that begins from now on is acknowledged.
///
/// # Errors
/// [`Error::Late`].
pub(crate) async fn flowing(writer: &Writer, what: &str, limit: Duration) -> Result<()> {
    // What was acknowledged earlier may have begun before.
    let (began, under_way) = (Instant::now(), Duration::from_millis(50));
    while writer.last().is_none_or(|ack| ack.acked < began + under_way) {
        if limit < began.elapsed() {
            return Err(Error::Late {
                what: what.to_owned(),
                limit,
                last: "silence".to_owned(),
            });
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
