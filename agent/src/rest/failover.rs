//! `/switchover` and `/failover`: an operator's wish, checked, written to the `failover` key, and awaited.
//!
//! Any node may serve it. The result is read off the snapshots that the driver publishes as the DCS's watch brings them,
//! so the answer comes when the change does, not at the next poll.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::StatusCode;
use serde_json::{Map, Value};
use surus_core::types::NodeName;
use surus_core::view::{Member, PeerStatus};

use super::actions::{bad, only_keys, string};
use super::answer::Answer;
use super::backend::DcsError;
use super::server::Shared;
use super::state::ClusterStatus;
use super::time_text::{self, NoTime};
use crate::dcs::mode::Synchronous;

/// How long members may take to say whether they are fit to take over.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The leader hands over: nothing is lost.
    Switchover,
    /// A named member takes over, leader or not.
    Failover,
}

impl Kind {
    fn verb(self) -> &'static str {
        match self {
            Self::Switchover => "switch",
            Self::Failover => "fail",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
        }
    }
}

struct Wish {
    kind: Kind,
    leader: Option<String>,
    candidate: Option<String>,
    at: Option<Duration>,
}

/// `POST /switchover` and `POST /failover`.
pub(super) async fn request(
    shared: &Shared,
    kind: Kind,
    body: &Map<String, Value>,
) -> Result<Answer, Answer> {
    let (mut wish, scheduled_at) = parse(kind, body)?;
    let snapshot = shared
        .read_cluster()
        .await
        .map_err(|error| Answer::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let cluster = ClusterStatus::new(snapshot);
    if let Some(text) = scheduled_at {
        if cluster.pause {
            return Err(bad("Can't schedule switchover in the paused state"));
        }
        wish.at = Some(schedule(&text, wish.kind.noun(), shared.backend.wall())?);
    }
    if cluster.pause && wish.candidate.is_none() {
        return Err(bad(
            "Switchover is possible only to a specific candidate in a paused state",
        ));
    }
    if wish.leader == wish.candidate {
        return Err(bad("Switchover target and source are the same"));
    }
    if wish.at.is_none() {
        check_possible(shared, &wish, &cluster).await?;
    }
    let written = write(shared, &wish, &cluster).await?;
    shared.backend.wake();
    if wish.at.is_some() {
        return Ok(Answer::text(StatusCode::ACCEPTED, "Switchover scheduled"));
    }
    Ok(await_result(shared, &wish, cluster.leader(), written).await)
}

fn parse(asked: Kind, body: &Map<String, Value>) -> Result<(Wish, Option<String>), Answer> {
    only_keys(body, &["leader", "candidate", "member", "scheduled_at"])?;
    let named = |key| string(body, key).map(|name| name.filter(|name| !name.is_empty()));
    let leader = named("leader")?;
    let candidate = match named("candidate")? {
        Some(candidate) => Some(candidate),
        None => named("member")?,
    };
    let scheduled_at = named("scheduled_at")?;
    if asked == Kind::Failover && candidate.is_none() {
        return Err(bad("Failover could be performed only to a specific candidate"));
    }
    if asked == Kind::Switchover && leader.is_none() {
        return Err(bad("Switchover could be performed only from a specific leader"));
    }
    if asked == Kind::Failover && scheduled_at.is_some() {
        return Err(bad("Failover can't be scheduled"));
    }
    // Whoever names the leader wants it to hand over.
    let kind = if leader.is_some() { Kind::Switchover } else { asked };
    let wish = Wish {
        kind,
        leader,
        candidate,
        at: None,
    };
    Ok((wish, scheduled_at))
}

/// Reads the time of a scheduled action, which must lie in the future.
pub(super) fn schedule(text: &str, action: &str, wall: Duration) -> Result<Duration, Answer> {
    let refuse = |text| Answer::text(StatusCode::UNPROCESSABLE_ENTITY, text);
    match time_text::parse(text) {
        Err(NoTime::ZoneMissing) => Err(bad(format!(
            "Timezone information is mandatory for the scheduled {action}"
        ))),
        Err(NoTime::Garbage) => Err(refuse(
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"
                .to_owned(),
        )),
        Ok(at) if at <= wall => Err(refuse(format!("Cannot schedule {action} in the past"))),
        Ok(at) => Ok(at),
    }
}

async fn check_possible(shared: &Shared, wish: &Wish, cluster: &ClusterStatus) -> Result<(), Answer> {
    let refuse = |text: String| Answer::text(StatusCode::PRECONDITION_FAILED, text);
    let action = wish.kind.noun();
    let leader = cluster.leader();
    if wish.leader.is_some() && wish.leader.as_deref() != leader {
        return Err(refuse("leader name does not match".to_owned()));
    }
    let members = cluster.snapshot.view.members.iter();
    let members = members.map(|(name, member)| (name, member.as_ref()));
    let named_sync = |name: &str| cluster.sync_standbys.contains(name);
    let synchronous = cluster.synchronous == Synchronous::On;
    let candidates: Vec<(&NodeName, &Member)> = match &wish.candidate {
        Some(candidate) => {
            if Some(candidate.as_str()) == leader {
                return Err(refuse(format!("{candidate} is the leader already")));
            }
            if wish.kind == Kind::Switchover && synchronous && !named_sync(candidate) {
                return Err(refuse(
                    "candidate name does not match with sync_standby".to_owned(),
                ));
            }
            members.filter(|(name, _)| name.as_str() == candidate).collect()
        }
        None if synchronous => members.filter(|(name, _)| named_sync(name.as_str())).collect(),
        None => members
            .filter(|(name, member)| Some(name.as_str()) != leader && !member.api_url.is_empty())
            .collect(),
    };
    if candidates.is_empty() {
        return Err(refuse(match &wish.candidate {
            Some(_) => "candidate does not exists".to_owned(),
            None if synchronous => format!("{action} is not possible: can not find sync_standby"),
            None => format!("{action} is not possible: cluster does not have members except leader"),
        }));
    }
    let mut asked: FuturesUnordered<_> = candidates
        .into_iter()
        .map(|(_, member)| async {
            let asked = shared.backend.ask_status(member.api_url.clone());
            tokio::time::timeout(PEER_TIMEOUT, asked).await.ok().flatten()
        })
        .collect();
    while let Some(answered) = asked.next().await {
        if answered.is_some_and(|status| good(&status)) {
            return Ok(());
        }
    }
    Err(refuse(format!(
        "{action} is not possible: no good candidates have been found"
    )))
}

/// It could be elected. Its lag is judged by the leader, who knows its own position.
fn good(status: &PeerStatus) -> bool {
    status.running
        && !status.nofailover
        && status.failover_priority > 0
        && status.can_take_lock != Some(false)
}

async fn write(shared: &Shared, wish: &Wish, cluster: &ClusterStatus) -> Result<i64, Answer> {
    let mut key = Map::new();
    for (name, value) in [("leader", &wish.leader), ("member", &wish.candidate)] {
        if let Some(value) = value {
            key.insert(name.to_owned(), value.as_str().into());
        }
    }
    if let Some(at) = wish.at {
        key.insert("scheduled_at".to_owned(), time_text::iso(at).into());
    }
    let expected = cluster
        .snapshot
        .raw
        .keys
        .get("failover")
        .map_or(0, |key| key.mod_revision);
    shared
        .of_dcs(
            shared
                .backend
                .put_failover(Value::Object(key).to_string(), expected),
        )
        .await
        .map_err(|error| {
            tracing::warn!(%error, "the failover key could not be written");
            Answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "failed to write failover key into DCS",
            )
        })
}

async fn await_result(shared: &Shared, wish: &Wish, old: Option<&str>, written: i64) -> Answer {
    let noun = match wish.kind {
        Kind::Switchover => "Switchover",
        Kind::Failover => "Failover",
    };
    let loop_wait = shared.status().timing.loop_wait;
    let patience = loop_wait.max(Duration::from_secs(10)) * 2;
    let watched = shared.statuses.find(|status| {
        // Snapshots from before our write still show the past.
        let cluster = &status.cluster.as_ref()?.value;
        let cluster = Some(cluster).filter(|cluster| cluster.snapshot.raw.revision >= written)?;
        match cluster.leader() {
            Some(leader) if Some(leader) != old => Some(Ok(leader.to_owned())),
            Some(_) if cluster.snapshot.view.failover.is_none() => Some(Err(())),
            _ => None,
        }
    });
    match tokio::time::timeout(patience, watched).await {
        Ok(Some(Ok(leader))) => {
            let verb = wish.kind.verb();
            let text = match &wish.candidate {
                Some(candidate) if *candidate != leader => {
                    let verb = if wish.kind == Kind::Switchover {
                        "Switched"
                    } else {
                        "Failed"
                    };
                    format!("{verb} over to \"{leader}\" instead of \"{candidate}\"")
                }
                _ => format!("Successfully {verb}ed over to \"{leader}\""),
            };
            Answer::text(StatusCode::OK, text)
        }
        Ok(Some(Err(()))) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{noun} failed")),
        Ok(None) | Err(_) => Answer::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "{noun} status unknown after {} seconds; operation may still be in progress",
                patience.as_secs()
            ),
        ),
    }
}

/// `DELETE /switchover`.
pub(super) async fn delete_scheduled(shared: &Shared) -> Result<Answer, Answer> {
    let snapshot = shared
        .read_cluster()
        .await
        .map_err(|error| Answer::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let scheduled = snapshot
        .raw
        .json("failover")
        .is_some_and(|key| key.get("scheduled_at").is_some_and(|at| !at.is_null()));
    let Some(key) = snapshot.raw.keys.get("failover").filter(|_| scheduled) else {
        return Err(Answer::text(StatusCode::NOT_FOUND, "no switchover is scheduled"));
    };
    match shared
        .of_dcs(shared.backend.put_failover("{}".to_owned(), key.mod_revision))
        .await
    {
        Ok(_) => {
            shared.backend.wake();
            Ok(Answer::text(StatusCode::OK, "scheduled switchover deleted"))
        }
        Err(error @ (DcsError::Conflict | DcsError::Unavailable(_))) => {
            Err(Answer::text(StatusCode::CONFLICT, error.to_string()))
        }
    }
}
