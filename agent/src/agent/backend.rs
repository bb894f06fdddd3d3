//! What the REST API asks of the agent.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use surus_core::input::{Input, OperatorOrder};
use surus_core::types::{MonoTime, NodeName, Revision};
use surus_core::view::PeerStatus;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::driver::News;
use super::executor::{Tools, Waiting};
use crate::config;
use crate::dcs::Swap;
use crate::dcs::snapshot::Snapshot;
use crate::net::Network;
use crate::published::Published;
use crate::rest::NodeStatus;
use crate::rest::backend::{Backend, BoxFuture, DcsError, FailsafeAnswer, FailsafeAsk, Reply};
use crate::rest::state::Explanation;

/// How long a request to etcd on a client's behalf may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The agent behind the REST API.
pub struct Agent {
    /// What orders are carried out with.
    pub tools: Arc<Tools>,
    /// The network, for names.
    pub net: Arc<dyn Network>,
    /// Who waits for a reply.
    pub waiting: Arc<Waiting>,
    /// The driver's inbox.
    pub news: mpsc::UnboundedSender<News>,
    /// What REST answers from.
    pub statuses: Published<Arc<NodeStatus>>,
}

/// How long a look at PostgreSQL may hold up an answer to a peer: a healthy server takes a millisecond.
const LOOK: Duration = Duration::from_millis(250);

/// How long an explanation is waited for. The loop answers within milliseconds, unless the agent is kept from running.
const EXPLAIN: Duration = Duration::from_secs(2);

impl Agent {
    fn tell(&self, news: News) {
        // The driver outlives the REST API; if it is ending, so is this.
        let _ = self.news.send(news);
    }
}

impl Backend for Agent {
    fn resolve(&self, host: String) -> BoxFuture<'_, Vec<IpAddr>> {
        self.net.resolve(host)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        self.tools.machine.tasks.spawn(task)
    }

    fn now(&self) -> MonoTime {
        self.tools.machine.clock.now()
    }

    fn wall(&self) -> Duration {
        self.tools.machine.clock.wall()
    }

    fn order(&self, order: OperatorOrder) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            let (request, reply) = self.waiting.ask();
            self.tell(News::Input(Input::Operator { request, order }));
            reply.await.unwrap_or_else(|_| Reply {
                ok: false,
                text: "the agent is ending".to_owned(),
            })
        })
    }

    fn reload(&self) {
        self.tell(News::Reload);
    }

    fn wake(&self) {
        self.tell(News::Wake);
    }

    fn look(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let asked = self.now();
            self.tell(News::Input(Input::Look));
            let since = |status: &Arc<NodeStatus>| {
                let seen = status.postgres.as_ref()?.at;
                (asked <= seen).then_some(())
            };
            let seen = self.statuses.find(since);
            let _ = tokio::time::timeout(LOOK, seen).await;
        })
    }

    fn explain(&self) -> BoxFuture<'_, Option<Explanation>> {
        Box::pin(async move {
            let (asker, answer) = oneshot::channel();
            self.tell(News::Explain(asker));
            tokio::time::timeout(EXPLAIN, answer).await.ok()?.ok()
        })
    }

    fn read_cluster(&self) -> BoxFuture<'_, Result<Snapshot, DcsError>> {
        Box::pin(async move {
            let read = self.tools.etcd.read(LIMIT).await;
            read.map(|(_, snapshot)| snapshot)
                .map_err(|error| DcsError::Unavailable(error.to_string()))
        })
    }

    fn check_config(&self, config: &Value) -> Result<(), String> {
        let settings = self.tools.publisher.present().settings;
        config::effective(&settings, config)
            .map(drop)
            .map_err(|problems| config::render(&problems))
    }

    fn cas_config(&self, config: Value, expected: i64) -> BoxFuture<'_, Result<(), DcsError>> {
        Box::pin(async move { self.put_config_at(config, Some(Revision(expected))).await })
    }

    fn put_config(&self, config: Value) -> BoxFuture<'_, Result<(), DcsError>> {
        Box::pin(async move { self.put_config_at(config, None).await })
    }

    fn put_failover(&self, text: String, expected: i64) -> BoxFuture<'_, Result<i64, DcsError>> {
        Box::pin(async move {
            let swap = self
                .tools
                .etcd
                .put_failover(&text, Some(Revision(expected)), LIMIT)
                .await;
            judge(swap)?;
            let (_, snapshot) = self
                .tools
                .etcd
                .read(LIMIT)
                .await
                .map_err(|error| DcsError::Unavailable(error.to_string()))?;
            self.tell(News::Wake);
            Ok(snapshot
                .raw
                .keys
                .get("failover")
                .map_or(snapshot.raw.revision, |key| key.mod_revision))
        })
    }

    fn failsafe_asked(&self, ask: FailsafeAsk) -> BoxFuture<'_, FailsafeAnswer> {
        Box::pin(async move {
            if !self.tools.publisher.present().effective.core.failsafe_mode {
                return FailsafeAnswer::Off;
            }
            let (request, reply) = self.waiting.ask();
            self.tell(News::Input(Input::FailsafeAsked {
                request,
                leader: NodeName(ask.name),
                ttl: ask.ttl,
            }));
            match reply.await {
                Ok(Reply { ok: true, .. }) => FailsafeAnswer::Accepted,
                Ok(Reply { text, .. }) => FailsafeAnswer::Refused(text),
                Err(_) => FailsafeAnswer::Refused("the agent is ending".to_owned()),
            }
        })
    }

    fn ask_status(&self, api_url: String) -> BoxFuture<'_, Option<PeerStatus>> {
        Box::pin(async move {
            self.tools
                .peers
                .ask_status(&api_url, Duration::from_secs(2))
                .await
        })
    }
}

impl Agent {
    async fn put_config_at(&self, config: Value, expected: Option<Revision>) -> Result<(), DcsError> {
        let swap = self
            .tools
            .etcd
            .put_config_cas(&config.to_string(), expected, LIMIT)
            .await;
        judge(swap)?;
        self.tell(News::Wake);
        Ok(())
    }
}

fn judge(swap: Result<Swap, crate::dcs::DcsError>) -> Result<(), DcsError> {
    match swap {
        Ok(Swap::Done) => Ok(()),
        Ok(Swap::Conflict) => Err(DcsError::Conflict),
        Err(error) => Err(DcsError::Unavailable(error.to_string())),
    }
}
