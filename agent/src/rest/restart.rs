//! `/restart`: now, under conditions, or at a time that is kept here until it comes.
//!
//! A schedule lives in memory, as Patroni's does: it is for the postmaster that runs now, and is dropped if another one
//! is found when the time comes, if the time was missed, or when the agent ends. In pause it waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value};
use surus_core::input::OperatorOrder;
use surus_core::types::MonoTime;
use tokio::sync::Notify;

use super::actions::{bad, string};
use super::answer::Answer;
use super::failover::schedule;
use super::query;
use super::server::Shared;
use super::state::NodeStatus;
use super::time_text;

/// The wall clock may be set while a schedule waits, so it is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Under which conditions to restart.
#[derive(Debug, Clone, PartialEq, Default)]
struct Conditions {
    role: Option<String>,
    /// As `server_version_num`: restart only a server below it.
    below_version: Option<(String, u32)>,
    pending: bool,
    timeout: Option<Duration>,
}

impl Conditions {
    fn hold(&self, status: &NodeStatus, now: MonoTime) -> bool {
        let version = status.server(now).map(|(server, _)| server.version);
        let pending = || {
            status
                .postgres
                .as_ref()
                .is_some_and(|postgres| !postgres.detail.pending_restart.is_empty())
        };
        self.role
            .as_deref()
            .is_none_or(|role| role == status.role_word(now))
            && self
                .below_version
                .as_ref()
                .is_none_or(|(_, wanted)| version.is_some_and(|version| version < *wanted))
            && (!self.pending || pending())
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Scheduled {
    at: Duration,
    postmaster: Option<Duration>,
    conditions: Conditions,
}

/// Keeps the one scheduled restart.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    scheduled: Mutex<Option<Scheduled>>,
    changed: Notify,
}

impl Scheduler {
    fn get(&self) -> Option<Scheduled> {
        self.scheduled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps it, unless there is one already.
    fn keep(&self, new: Scheduled) -> bool {
        let mut scheduled = self.scheduled.lock().unwrap_or_else(PoisonError::into_inner);
        if scheduled.is_some() {
            return false;
        }
        *scheduled = Some(new);
        self.changed.notify_one();
        true
    }

    fn drop_if(&self, unwanted: impl Fn(&Scheduled) -> bool) -> bool {
        let mut scheduled = self.scheduled.lock().unwrap_or_else(PoisonError::into_inner);
        let found = scheduled.as_ref().is_some_and(unwanted);
        if found {
            *scheduled = None;
            self.changed.notify_one();
        }
        found
    }

    /// As the status document shows it.
    pub(super) fn document(&self) -> Option<Value> {
        self.get().map(|scheduled| Value::Object(describe(&scheduled)))
    }

    /// As the member's key shows it.
    pub(super) fn record(&self) -> Option<Value> {
        let scheduled = self.get()?;
        let mut record = describe(&scheduled);
        if let Some(start) = scheduled.postmaster {
            record.insert("postmaster_start_time".to_owned(), time_text::plain(start).into());
        }
        Some(Value::Object(record))
    }
}

fn describe(scheduled: &Scheduled) -> Map<String, Value> {
    let conditions = &scheduled.conditions;
    let mut shape = Map::new();
    shape.insert("schedule".to_owned(), time_text::iso(scheduled.at).into());
    if let Some(role) = &conditions.role {
        shape.insert("role".to_owned(), role.as_str().into());
    }
    if let Some((version, _)) = &conditions.below_version {
        shape.insert("postgres_version".to_owned(), version.as_str().into());
    }
    if let Some(timeout) = conditions.timeout {
        shape.insert("timeout".to_owned(), timeout.as_secs().into());
    }
    if conditions.pending {
        shape.insert("restart_pending".to_owned(), true.into());
    }
    shape
}

/// `POST /restart`.
pub(super) async fn request(shared: &Shared, body: &Map<String, Value>) -> Result<Answer, Answer> {
    let status = shared.status();
    let now = shared.backend.now();
    let (conditions, at) = parse(body, status.pause, shared.backend.wall())?;
    let Some(at) = at else {
        if !conditions.hold(&status, now) {
            return Err(unavailable("restart conditions are not satisfied"));
        }
        return Ok(restart(shared, &status, conditions.timeout).await);
    };
    let postmaster = status
        .server(now)
        .and_then(|(_, detail)| detail.postmaster_start_time);
    let scheduled = Scheduled {
        at,
        postmaster,
        conditions,
    };
    if !shared.restarts.keep(scheduled) {
        return Err(Answer::text(
            StatusCode::CONFLICT,
            "Another restart is already scheduled",
        ));
    }
    shared.backend.wake();
    Ok(Answer::text(StatusCode::ACCEPTED, "Restart scheduled"))
}

/// `DELETE /restart`.
pub(super) fn delete(shared: &Shared) -> Answer {
    if shared.restarts.drop_if(|_| true) {
        shared.backend.wake();
        Answer::text(StatusCode::OK, "scheduled restart deleted")
    } else {
        Answer::text(StatusCode::NOT_FOUND, "no restarts are scheduled")
    }
}

fn unavailable(text: &str) -> Answer {
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn parse(
    body: &Map<String, Value>,
    paused: bool,
    wall: Duration,
) -> Result<(Conditions, Option<Duration>), Answer> {
    let mut conditions = Conditions::default();
    let mut at = None;
    for (key, value) in body {
        match key.as_str() {
            "schedule" => {
                if let Some(text) = string(body, key)?.filter(|text| !text.is_empty()) {
                    if paused {
                        return Err(Answer::text(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "Can't schedule restart in the paused state",
                        ));
                    }
                    at = Some(schedule(&text, "restart", wall)?);
                }
            }
            "role" => match value.as_str() {
                Some(role @ ("primary" | "standby_leader" | "replica")) => {
                    conditions.role = Some(role.to_owned())
                }
                _ => {
                    return Err(bad(
                        "PostgreSQL role should be either primary, standby_leader, or replica",
                    ));
                }
            },
            "postgres_version" => {
                let text = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let number = version_number(&text).ok_or_else(|| {
                    bad(format!(
                        "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}"
                    ))
                })?;
                conditions.below_version = Some((text, number));
            }
            "timeout" => {
                let seconds = query::seconds(value).filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
                let seconds = seconds.ok_or_else(|| bad("Timeout should be a positive number of seconds"))?;
                conditions.timeout = Some(Duration::from_secs_f64(seconds));
            }
            // Its presence is enough for Patroni; a plain false cannot be meant to switch it on.
            "restart_pending" => conditions.pending = *value != Value::Bool(false),
            other => return Err(bad(format!("Unknown filter for the scheduled restart: {other}"))),
        }
    }
    Ok((conditions, at))
}

/// `9.6.3` is 90603, `15.4` is 150004.
fn version_number(text: &str) -> Option<u32> {
    let parts: Vec<u32> = text
        .split('.')
        .map(|part| part.parse().ok().filter(|part| *part < 100))
        .collect::<Option<_>>()?;
    match parts[..] {
        [major, minor] if major >= 10 => Some(major * 10_000 + minor),
        [major, minor] => Some(major * 10_000 + minor * 100),
        [major, minor, patch] => Some(major * 10_000 + minor * 100 + patch),
        _ => None,
    }
}

async fn restart(shared: &Shared, status: &NodeStatus, timeout: Option<Duration>) -> Answer {
    let patience = timeout
        .unwrap_or(status.timing.primary_start_timeout)
        // A primary that must fail over at once has zero; the restart itself still takes its time.
        .max(Duration::from_secs(1));
    match tokio::time::timeout(patience, shared.backend.order(OperatorOrder::Restart)).await {
        Ok(reply) if reply.ok => Answer::text(StatusCode::OK, "restarted successfully"),
        Ok(reply) if !reply.text.is_empty() => unavailable(&reply.text),
        Ok(_) => unavailable("restart failed"),
        Err(_) => unavailable("postgres is still starting"),
    }
}

/// Executes what is scheduled when its time comes; never returns.
pub(super) async fn run_scheduled(shared: &Shared) {
    loop {
        let Some(scheduled) = shared.restarts.get() else {
            shared.restarts.changed.notified().await;
            continue;
        };
        let wall = shared.backend.wall();
        let status = shared.status();
        if wall < scheduled.at || status.pause {
            let wait = scheduled
                .at
                .saturating_sub(wall)
                .clamp(Duration::from_millis(1), LOOK_AGAIN);
            let wait = if wall < scheduled.at { wait } else { LOOK_AGAIN };
            let _ = tokio::time::timeout(wait, shared.restarts.changed.notified()).await;
            continue;
        }
        if !shared.restarts.drop_if(|kept| *kept == scheduled) {
            continue;
        }
        shared.backend.wake();
        execute(shared, &scheduled, &status, wall).await;
    }
}

async fn execute(shared: &Shared, scheduled: &Scheduled, status: &NodeStatus, wall: Duration) {
    let now = shared.backend.now();
    let at = time_text::iso(scheduled.at);
    let start = status
        .server(now)
        .and_then(|(_, detail)| detail.postmaster_start_time);
    let grace = (status.timing.loop_wait * 3 / 2).max(Duration::from_secs(10));
    if wall - scheduled.at > grace {
        tracing::warn!(at, "a scheduled restart was missed and is dropped");
    } else if start != scheduled.postmaster {
        tracing::info!(
            at,
            "PostgreSQL was restarted since the restart was scheduled, so it is dropped"
        );
    } else if !scheduled.conditions.hold(status, now) {
        tracing::info!(
            at,
            "the conditions of the scheduled restart do not hold, so it is dropped"
        );
    } else {
        tracing::info!(at, "a scheduled restart begins");
        let answer = restart(shared, status, scheduled.conditions.timeout).await;
        tracing::info!(at, result = %String::from_utf8_lossy(&answer.body), "the scheduled restart ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("15.4", Some(150_004)),
            ("9.6.3", Some(90_603)),
            ("9.6", Some(90_600)),
            ("15", None),
            ("15.x", None),
            ("1.2.3.4", None),
            ("4294967296.1", None),
            ("", None),
        ] {
            assert_eq!(version_number(text), expected, "{text}");
        }
    }
}
