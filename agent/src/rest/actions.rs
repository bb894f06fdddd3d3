//! The short orders: reload, reinitialize, and the failsafe question of another primary.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Map, Value};
use surus_core::input::OperatorOrder;
use surus_core::types::Lsn;

use super::answer::Answer;
use super::backend::{FailsafeAnswer, FailsafeAsk};
use super::body::kind_of;
use super::server::Shared;
use super::state::NodeStatus;

/// `POST /reload`.
pub(super) fn reload(shared: &Shared) -> Answer {
    shared.backend.reload();
    Answer::text(StatusCode::ACCEPTED, "reload scheduled")
}

/// `POST /reinitialize`.
pub(super) async fn reinitialize(shared: &Shared, body: &Map<String, Value>) -> Result<Answer, Answer> {
    only_keys(body, &["force", "from_leader"])?;
    let force = flag(body, "force")?;
    let from_leader = flag(body, "from_leader")?;
    let refuse = |text: &str| Answer::text(StatusCode::SERVICE_UNAVAILABLE, text);
    let status = shared.status();
    let leader = status.cluster.as_ref().and_then(|seen| seen.value.leader());
    if status.is_leader(shared.backend.now()) || leader == Some(&*status.name) {
        return Err(refuse("I am the leader, can not reinitialize"));
    }
    if leader.is_none() {
        return Err(refuse("Cluster has no leader, can not reinitialize"));
    }
    let order = shared
        .backend
        .order(OperatorOrder::Reinitialize { force, from_leader });
    match tokio::time::timeout(shared.limits.core_timeout, order).await {
        Err(_) => Err(refuse(
            "the agent has not begun with it yet: see /explain for what it does",
        )),
        Ok(reply) if reply.ok => Ok(Answer::text(StatusCode::OK, "reinitialize started")),
        Ok(reply) if reply.text.is_empty() => Err(refuse("reinitialize failed")),
        Ok(reply) => Err(refuse(&reply.text)),
    }
}

/// `POST /failsafe`.
pub(super) async fn failsafe(shared: &Shared, body: &Map<String, Value>) -> Result<Answer, Answer> {
    let name = string(body, "name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| bad("the key \"name\" is missing: it says which primary asks"))?;
    let slots = match body.get("slots") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(Value::Object(slots)) => slots
            .iter()
            .map(|(slot, position)| match position.as_u64() {
                Some(position) => Ok((slot.clone(), Lsn(position))),
                None => Err(bad(format!(
                    "the position of slot {slot:?} must be a number of bytes"
                ))),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => {
            return Err(bad(format!(
                "\"slots\" must be an object, not {}",
                kind_of(other)
            )));
        }
    };
    let ask = FailsafeAsk {
        name,
        conn_url: string(body, "conn_url")?.unwrap_or_default(),
        api_url: string(body, "api_url")?.unwrap_or_default(),
        slots,
        ttl: asked_ttl(body)?,
    };
    let answered = tokio::time::timeout(shared.limits.core_timeout, shared.backend.failsafe_asked(ask)).await;
    // No answer is neither a grant nor a refusal.
    let answered =
        answered.map_err(|_| Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the agent does not answer"))?;
    Ok(match answered {
        FailsafeAnswer::Accepted => {
            let answer = Answer::text(StatusCode::OK, "Accepted");
            let status = shared.status();
            match status.server(shared.backend.now()) {
                Some((server, _)) => answer.with("lsn", HeaderValue::from(server.position().0)),
                None => answer,
            }
        }
        FailsafeAnswer::Refused(text) => {
            let text = if text.is_empty() {
                "Running as a leader".to_owned()
            } else {
                text
            };
            Answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
        FailsafeAnswer::Off => Answer::text(StatusCode::BAD_GATEWAY, "failsafe mode is off"),
    })
}

/// For how long another primary of ours asks to stay.
fn asked_ttl(body: &Map<String, Value>) -> Result<Option<Duration>, Answer> {
    let Some(ttl) = body.get("surus").and_then(|ours| ours.get("ttl")) else {
        return Ok(None);
    };
    let seconds = ttl
        .as_f64()
        .filter(|seconds| (0.0..=LONGEST_GRANT).contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        bad(format!(
            "\"ttl\" must be a number of seconds from 0 to {LONGEST_GRANT}, not {ttl}"
        ))
    })?;
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// The longest that a grant may bind, in seconds: a day. A longer ttl than that is a mistake, and it would keep this member from being elected.
const LONGEST_GRANT: f64 = 86_400.0;

/// `GET /failsafe`.
pub(super) fn failsafe_members(status: &NodeStatus) -> Answer {
    let key = status
        .cluster
        .as_ref()
        .and_then(|seen| seen.value.snapshot.raw.json("failsafe"));
    match key {
        Some(members @ Value::Object(_)) => Answer::json(StatusCode::OK, &members),
        _ => Answer::text(
            StatusCode::BAD_GATEWAY,
            "there is no failsafe key: failsafe mode is off, or no leader has written it yet",
        ),
    }
}

/// A 400 with its reason.
pub(super) fn bad(text: impl Into<String>) -> Answer {
    Answer::text(StatusCode::BAD_REQUEST, text)
}

/// Refuses keys that nobody reads: most are misspelt.
pub(super) fn only_keys(body: &Map<String, Value>, known: &[&str]) -> Result<(), Answer> {
    match body.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(bad(format!(
            "unknown key {key:?}: expected one of {}",
            known.join(", ")
        ))),
    }
}

/// An optional string; `null` is absent.
pub(super) fn string(body: &Map<String, Value>, key: &str) -> Result<Option<String>, Answer> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(bad(format!("{key:?} must be a string, not {}", kind_of(other)))),
    }
}

fn flag(body: &Map<String, Value>, key: &str) -> Result<bool, Answer> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => Err(bad(format!(
            "{key:?} must be true or false, not {}",
            kind_of(other)
        ))),
    }
}
