//! Questions to other members over their REST API, and the CLI's requests.
//!
//! A client over any stream: the dial seam ([`Dial`]) is all that a simulator replaces. One connection per request, one
//! bound in time and size for the whole of it (name, connect, handshake, reply), nothing left behind when it is over.
//!
//! Answers of members are judged leniently, as Patroni members and ours write them; whatever cannot be read is "no
//! answer", never a guess.
//!
//! Map: this file the questions and their answers · `client` one HTTP exchange · `trust` TLS.

mod client;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use surus_core::types::{Lsn, Timeline};
use surus_core::view::PeerStatus;

use crate::net::Dial;

pub use client::{Client, RequestError, Response};
pub use trust::Trust;

/// The answer to a primary that asks to stay primary without the DCS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailsafeReply {
    /// The member will not race for the lock for a ttl.
    Granted {
        /// Its position, if it said so: slots are advanced with it.
        position: Option<Lsn>,
    },
    /// The member is a primary itself.
    Refused(String),
}

impl Client {
    /// Asks the member at `api_url` (as its record has it, ending in `/patroni`) for its status. `None` when it does not
    /// answer in time, or with something else.
    pub async fn ask_status(&self, api_url: &str, timeout: Duration) -> Option<PeerStatus> {
        // What was true a second ago is not good enough for a race. A Patroni member ignores the query.
        let url = sibling(api_url, "patroni?fresh=1");
        let response = self.request(Method::GET, &url, None, timeout).await.ok()?;
        if response.status != 200 {
            return None;
        }
        read_status(&serde_json::from_slice(&response.body).ok()?)
    }

    /// Asks the member at `api_url` to let this primary stay primary. `None` when there is no usable answer, which is
    /// neither a grant nor a refusal.
    pub async fn ask_failsafe(
        &self,
        api_url: &str,
        question: &Value,
        timeout: Duration,
    ) -> Option<FailsafeReply> {
        let url = sibling(api_url, "failsafe");
        let response = self
            .request(Method::POST, &url, Some(question), timeout)
            .await
            .ok()?;
        let text = String::from_utf8_lossy(&response.body).trim().to_owned();
        match response.status {
            200 if text == "Accepted" => Some(FailsafeReply::Granted {
                position: response.header("lsn").and_then(|lsn| lsn.parse().ok()).map(Lsn),
            }),
            500 => Some(FailsafeReply::Refused(text)),
            _ => None,
        }
    }
}

/// Another path of the API that `api_url` names: `http://host:8008/patroni` and `restart` give `http://host:8008/restart`.
#[must_use]
pub fn sibling(api_url: &str, path: &str) -> String {
    let authority = api_url.find("://").map_or(0, |at| at + 3);
    let base = match api_url.get(authority..).and_then(|rest| rest.find('/')) {
        Some(slash) => &api_url[..authority + slash],
        None => api_url,
    };
    format!("{base}/{path}")
}

/// Reads the status document of Patroni or of ours.
#[must_use]
pub fn read_status(document: &Value) -> Option<PeerStatus> {
    let text = |key: &str| document.get(key).and_then(Value::as_str);
    let state = text("state")?;
    let positions = document.get("wal").or_else(|| document.get("xlog"));
    let position = |key: &str| {
        positions
            .and_then(|positions| positions.get(key)?.as_u64())
            .map(Lsn)
    };
    let written = position("location").filter(|written| written.0 != 0);
    let tag = |name: &str| document.get("tags").and_then(|tags| tags.get(name));
    let failover_priority = match tag("failover_priority") {
        Some(priority) => priority
            .as_i64()
            .or_else(|| priority.as_str()?.trim().parse().ok())
            .map_or(1, |priority| u32::try_from(priority).unwrap_or(0)),
        None => 1,
    };
    let timeline = |value: &Value| u32::try_from(value.as_u64()?).ok().map(Timeline);
    let own = document.get("surus");
    let watchdog_failed = document.get("watchdog_failed").and_then(Value::as_bool) == Some(true);
    Some(PeerStatus {
        // Without positions PostgreSQL did not answer, whatever the state says.
        running: matches!(state, "running" | "streaming") && positions.is_some(),
        primary: written.is_some() || matches!(text("role"), Some("primary" | "master")),
        position: written.or(position("received_location").max(position("replayed_location"))),
        timeline: document.get("timeline").and_then(timeline),
        nofailover: tag("nofailover").is_some_and(crate::dcs::mode::truthy) || failover_priority == 0,
        failover_priority,
        stands: own.and_then(|own| timeline(own.get("timeline")?)),
        can_take_lock: if watchdog_failed {
            Some(false)
        } else {
            own.and_then(|own| own.get("can_take_lock")?.as_bool())
        },
    })
}

/// A client for members as this node's settings have it: certificates and password of `ctl`, else of `restapi`.
///
/// # Errors
/// The certificates cannot be used.
pub fn member_client(
    dial: Arc<dyn Dial>,
    ctl: &crate::config::settings::Ctl,
    restapi: &crate::config::settings::RestApi,
) -> Result<Client, crate::rest::TlsError> {
    let auth = ctl
        .authentication
        .clone()
        .or_else(|| restapi.authentication.clone());
    Ok(Client::new(dial, Trust::members(ctl, restapi).config()?, auth))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_of_all_kinds_are_read() {
        let primary = read_status(
            &json!({"state": "running", "role": "master", "xlog": {"location": 5}, "timeline": 3}),
        );
        let primary = primary.unwrap();
        assert!(primary.running && primary.primary && !primary.nofailover);
        assert_eq!(
            (primary.position, primary.timeline),
            (Some(Lsn(5)), Some(Timeline(3)))
        );
        assert_eq!((primary.failover_priority, primary.can_take_lock), (1, None));

        let replica = read_status(&json!({
            "state": "running", "role": "replica", "wal": {"received_location": 7, "replayed_location": 9},
            "tags": {"failover_priority": "4"}, "surus": {"can_take_lock": true},
        }));
        let replica = replica.unwrap();
        assert!(!replica.primary);
        assert_eq!((replica.position, replica.failover_priority), (Some(Lsn(9)), 4));
        assert_eq!(replica.can_take_lock, Some(true));

        let down =
            read_status(&json!({"state": "stopped", "role": "demoted", "tags": {"nofailover": "true"}}))
                .unwrap();
        assert!(!down.running && !down.primary && down.nofailover && down.position.is_none());

        let broken = read_status(&json!({
            "state": "running", "role": "replica", "xlog": {"received_location": "x"}, "timeline": -1,
            "tags": {"failover_priority": -5}, "watchdog_failed": true, "surus": {"can_take_lock": true},
        }));
        let broken = broken.unwrap();
        assert_eq!(
            (broken.position, broken.timeline, broken.failover_priority),
            (None, None, 0)
        );
        assert!(broken.nofailover);
        assert_eq!(broken.can_take_lock, Some(false));
        for garbage in [
            json!(null),
            json!([]),
            json!({}),
            json!({"state": 5}),
            json!("running"),
        ] {
            assert_eq!(read_status(&garbage), None);
        }
    }

    #[test]
    fn siblings_keep_the_authority() {
        assert_eq!(
            sibling("http://a:8008/patroni", "failsafe"),
            "http://a:8008/failsafe"
        );
        assert_eq!(
            sibling("https://[::1]:8008/patroni/x", "restart"),
            "https://[::1]:8008/restart"
        );
        assert_eq!(sibling("http://a", "reload"), "http://a/reload");
    }
}
