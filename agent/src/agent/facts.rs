//! What this member says of itself beside what the core decides: addresses, tags, the configuration, progress, and the
//! status that REST answers from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Map, Value, json};
use surus_core::config::Config;
use surus_core::types::MonoTime;
use surus_core::view::{Process, Seen, Server, ServerRole};
use surus_core::{Decision, Explanation, Rule};

use crate::clock::Clock;
use crate::config::settings::{Effective, Settings};
use crate::dcs::MemberFacts;
use crate::dcs::snapshot::Snapshot;
use crate::postgres::{Details, Postgres};
use crate::rest::Schedule;
use crate::rest::state::{
    ClusterStatus, Explanation as Explained, NodeStatus, PostgresStatus, Progress, ServerDetail, Timing,
    WalSender,
};

/// The member's own facts, shared by the executors, the REST API and the driver.
pub struct Publisher {
    postgres: Arc<Postgres>,
    now: RwLock<Present>,
    schedule: RwLock<Option<Schedule>>,
    details: RwLock<Details>,
    /// Counts what was observed.
    looks: AtomicU64,
}

/// The configuration in force.
#[derive(Debug, Clone)]
pub struct Present {
    /// The local side.
    pub settings: Arc<Settings>,
    /// Merged with the cluster's side.
    pub effective: Arc<Effective>,
}

impl Publisher {
    /// Facts under `present`.
    #[must_use]
    pub fn new(postgres: Arc<Postgres>, present: Present) -> Self {
        Self {
            postgres,
            now: RwLock::new(present),
            schedule: RwLock::default(),
            details: RwLock::default(),
            looks: AtomicU64::new(0),
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn present(&self) -> Present {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another configuration in force.
    pub fn configure(&self, present: Present) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = present;
    }

    /// Names where a scheduled restart is kept, which is published.
    pub fn serve(&self, schedule: Schedule) {
        *self.schedule.write().unwrap_or_else(PoisonError::into_inner) = Some(schedule);
    }

    /// Takes in what people ask of the running server, beyond what the core needs.
    pub fn observe(&self, details: Details) {
        *self.details.write().unwrap_or_else(PoisonError::into_inner) = details;
        self.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// The dynamic configuration to write when the DCS has none.
    #[must_use]
    pub fn dynamic_configuration(&self) -> String {
        self.present().effective.dynamic.to_string()
    }

    /// The part of the member's key that the core does not decide.
    #[must_use]
    pub fn member_facts(&self) -> MemberFacts {
        let Present { settings, effective } = self.present();
        let postgres = &effective.postgres;
        let reasons: Map<String, Value> = self
            .postgres
            .pending_restart()
            .iter()
            .map(|(name, pending)| {
                (
                    name.clone(),
                    json!({"old_value": pending.old_value, "new_value": pending.new_value}),
                )
            })
            .collect();
        let schedule = self
            .schedule
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        MemberFacts {
            conn_url: format!("postgres://{}/{}", postgres.connect_address, postgres.database),
            api_url: api_url(&settings),
            proxy_url: postgres
                .proxy_address
                .as_ref()
                .map(|address| format!("postgres://{address}/{}", postgres.database)),
            tags: settings.tags.published.clone(),
            pending_restart: !reasons.is_empty(),
            pending_restart_reason: reasons,
            scheduled_restart: schedule.and_then(|schedule| schedule.record()),
        }
    }

    /// The body of a failsafe question. For how long to grant stands under `surus`, where Patroni does not look.
    #[must_use]
    pub fn failsafe_question(&self, ttl: Duration) -> Value {
        let facts = self.member_facts();
        let name = self.present().settings.name.clone();
        let ours = json!({"ttl": ttl.as_secs_f64()});
        json!({"name": name, "conn_url": facts.conn_url, "api_url": facts.api_url, "slots": {}, "surus": ours})
    }
}

/// The address of the REST API as other members see it.
#[must_use]
pub fn api_url(settings: &Settings) -> String {
    let scheme = if settings.restapi.certfile.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{}/patroni", settings.restapi.connect_address)
}

/// Wall time, for people.
#[must_use]
pub fn timestamp(clock: &dyn Clock) -> Option<jiff::Timestamp> {
    let wall = clock.wall();
    let seconds = i64::try_from(wall.as_secs()).ok()?;
    jiff::Timestamp::new(seconds, i32::try_from(wall.subsec_nanos()).ok()?).ok()
}

/// Composes what REST answers from.
#[derive(Debug, Default)]
pub struct Statuses {
    cluster: Option<Seen<Arc<ClusterStatus>>>,
    seen: Option<Duration>,
    /// The look whose details the last status has.
    detailed: u64,
}

impl Statuses {
    /// Takes in the cluster's keys as known for the time `at`.
    pub fn observe(&mut self, clock: &dyn Clock, at: MonoTime, snapshot: &Arc<Snapshot>) {
        self.seen = Some(clock.wall());
        let known = self
            .cluster
            .as_ref()
            .filter(|known| known.value.snapshot.raw.revision == snapshot.raw.revision);
        let value = match (known, &self.cluster) {
            (Some(known), _) => Arc::clone(&known.value),
            (None, Some(before)) => Arc::new(before.value.followed_by(Arc::clone(snapshot))),
            (None, None) => Arc::new(ClusterStatus::new(Arc::clone(snapshot))),
        };
        let at = self.cluster.as_ref().map_or(at, |known| known.at.max(at));
        self.cluster = Some(Seen { value, at });
    }

    /// The status after a step.
    #[must_use]
    pub fn compose(
        &mut self,
        publisher: &Publisher,
        explanation: &Explanation<'_>,
        decision: &Decision,
        next_run: MonoTime,
        old: &NodeStatus,
    ) -> NodeStatus {
        let Present { settings, .. } = publisher.present();
        let config = explanation.config;
        let facts = explanation.facts;
        let look = publisher.looks.load(Ordering::Relaxed);
        let known = old.postgres.as_ref().filter(|_| self.detailed == look);
        let postgres = facts.postgres.as_ref().map(|seen| match known {
            Some(known) if known.at == seen.at && known.view == seen.value => Arc::clone(known),
            _ => Arc::new(PostgresStatus {
                at: seen.at,
                view: seen.value.clone(),
                detail: detail(publisher, &seen.value.process),
            }),
        });
        self.detailed = look;
        let until = explanation.right_until();
        NodeStatus {
            scope: Arc::clone(&old.scope),
            name: Arc::clone(&old.name),
            timing: timing(config),
            cluster: self.cluster.clone(),
            postgres,
            state: state_word(explanation, decision),
            role: role_word(explanation),
            lock_until: (until != MonoTime::ZERO).then_some(until),
            next_run,
            pause: config.pause,
            unfenced: explanation.exempt(),
            failsafe_mode: config.failsafe_mode,
            failsafe_active: explanation.state.lease.by_failsafe
                || explanation
                    .state
                    .promise
                    .as_ref()
                    .is_some_and(|promise| explanation.now < promise.until),
            can_take_lock: explanation.could_take_lock.is_ok(),
            stands: explanation.state.stood.map(|stood| stood.timeline),
            watchdog_failed: false,
            dcs_last_seen: self.seen,
            tags: if *old.tags == settings.tags {
                Arc::clone(&old.tags)
            } else {
                Arc::new(settings.tags.clone())
            },
            progress: publisher.postgres.progress().map(|progress| Progress {
                what: progress.operation,
                done: progress.done_bytes,
                total: (progress.total_bytes != 0).then_some(progress.total_bytes),
            }),
            decisions: decision.seq,
            last_rule: decision.rule.code(),
        }
    }
}

/// The timing that health codes are judged with.
#[must_use]
pub fn timing(config: &Config) -> Timing {
    Timing {
        ttl: config.ttl,
        loop_wait: config.loop_wait,
        primary_start_timeout: config.primary_start_timeout,
        maximum_lag_on_failover: config.maximum_lag_on_failover,
    }
}

/// Patroni's word for the state of PostgreSQL.
fn state_word(explanation: &Explanation<'_>, decision: &Decision) -> &'static str {
    if let Some(record) = &explanation.state.published
        && matches!(
            record.state,
            "initializing new cluster" | "creating replica" | "restarting" | "stopping"
        )
        && matches!(decision.rule, Rule::Busy | Rule::HandOver | Rule::Leave)
    {
        return record.state;
    }
    match explanation.facts.process() {
        Some(Process::Running(_)) => "running",
        Some(Process::Starting { .. }) => "starting",
        Some(Process::Unresponsive { .. }) => "unknown",
        Some(Process::Absent) if explanation.state.reigned => "crashed",
        Some(Process::Absent) | None => "stopped",
    }
}

fn role_word(explanation: &Explanation<'_>) -> &'static str {
    match explanation.facts.server().map(Server::is_primary) {
        Some(true) => "primary",
        Some(false) => "replica",
        None if explanation.state.reigned => "demoted",
        None if matches!(
            explanation.facts.data(),
            Some(surus_core::view::DataDir::Present(_))
        ) =>
        {
            "replica"
        }
        None => "uninitialized",
    }
}

/// What only people and dashboards ask for, as of the last look.
fn detail(publisher: &Publisher, process: &Process) -> ServerDetail {
    let Process::Running(server) = process else {
        return ServerDetail::default();
    };
    let postgres = &publisher.postgres;
    let details = publisher
        .details
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    ServerDetail {
        postmaster_start_time: postgres.started_at().as_deref().and_then(since_1970),
        walsenders: details
            .replication
            .into_iter()
            .map(|sender| WalSender {
                usename: sender.usename,
                application_name: sender.application_name,
                client_addr: sender.client_addr,
                state: sender.state,
                sync_state: sender.sync_state,
                sync_priority: i64::from(sender.sync_priority),
            })
            .collect(),
        replayed_at: details.replayed_timestamp.as_deref().and_then(since_1970),
        replay_paused: details.paused.unwrap_or(false),
        replication_state: match server.role {
            ServerRole::Replica { streaming: true, .. } => Some("streaming"),
            ServerRole::Replica { .. }
                if postgres.settings().recovery_conf.contains_key("restore_command") =>
            {
                Some("in archive recovery")
            }
            ServerRole::Primary { .. } | ServerRole::Replica { .. } => None,
        },
        upstream_end: None,
        pending_restart: postgres
            .pending_restart()
            .into_iter()
            .map(|(name, pending)| (name, (pending.old_value, pending.new_value)))
            .collect(),
    }
}

/// PostgreSQL's own notation of a time, `2026-11-20 09:22:40.696997+00`.
fn since_1970(text: &str) -> Option<Duration> {
    let zoned = text.replacen(' ', "T", 1);
    let zoned = if zoned.ends_with("+00") {
        format!("{zoned}:00")
    } else {
        zoned
    };
    let time: jiff::Timestamp = zoned.parse().ok()?;
    Duration::try_from(time.duration_since(jiff::Timestamp::UNIX_EPOCH)).ok()
}

/// What `GET /explain` tells.
#[must_use]
pub fn explained(explanation: &Explanation<'_>, decision: &Decision) -> Explained {
    let because: Vec<String> = decision.because.iter().map(ToString::to_string).collect();
    let blocked: Vec<Value> = decision
        .blocked
        .iter()
        .map(|(rule, guard)| {
            json!({"rule": rule.code(), "name": rule.name(), "guard": guard.code(), "why": guard.to_string()})
        })
        .collect();
    let candidate = match &explanation.could_take_lock {
        Ok(_) => json!({"fit": true}),
        Err(guard) => json!({"fit": false, "guard": guard.code(), "why": guard.to_string()}),
    };
    let lease = &explanation.state.lease;
    let json = json!({
        "node": explanation.config.name.as_str(),
        "decision": {
            "seq": decision.seq,
            "rule": decision.rule.code(),
            "name": decision.rule.name(),
            "text": decision.rule.text(),
            "because": because,
            "blocked": blocked,
        },
        "leader": explanation.facts.leader().map(ToString::to_string),
        "right": {
            "held": lease.held,
            "by_failsafe": lease.by_failsafe,
            "seconds_left": lease.left(explanation.now).as_secs_f64(),
            "generation": lease.generation.0,
        },
        "candidate": candidate,
    });
    Explained {
        json,
        text: explanation.to_string(),
    }
}
