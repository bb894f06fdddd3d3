//! Carrying out what the core orders, one task an order. Nothing is chosen here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use surus_core::action::{Action, Lane, Order};
use surus_core::input::{Input, Outcome, RequestId};
use surus_core::sync::SyncKey;
use surus_core::types::{ActionId, Generation, NodeName};
use surus_core::view::HistoryLine;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::driver::News;
use super::facts::Publisher;
use crate::dcs::{Etcd, member_json};
use crate::machine::Machine;
use crate::peers::{Client, FailsafeReply};
use crate::postgres::{Herald, Postgres, ProcessControl};
use crate::rest::backend::Reply;
use crate::task::BoxFuture;

/// What orders are carried out with.
pub struct Tools {
    /// Time and tasks.
    pub machine: Machine,
    /// etcd.
    pub etcd: Arc<Etcd>,
    /// PostgreSQL.
    pub postgres: Arc<Postgres>,
    /// Its guard.
    pub control: Arc<dyn ProcessControl>,
    /// The other members.
    pub peers: Arc<Client>,
    /// What this member publishes of itself beside what the core decides.
    pub publisher: Arc<Publisher>,
    /// Who waits for a reply.
    pub waiting: Arc<Waiting>,
    /// `retry_timeout`, as now in force.
    pub limits: Arc<RwLock<Limits>>,
}

/// Time limits that follow the settings.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For one order to etcd.
    pub retry: Duration,
    /// Life of the lock.
    pub ttl: Duration,
}

impl Limits {
    /// For one attempt at the lock: an answer that is lost must leave time for several more before the right ends.
    fn lock(self) -> Duration {
        self.retry.min((self.ttl / 5).max(Duration::from_secs(1)))
    }

    /// How long a peer may take to tell its position: a live one answers in milliseconds, a dead one must not hold up a race.
    fn peer(self) -> Duration {
        (self.retry / 2).clamp(Duration::from_millis(300), Duration::from_secs(2))
    }

    /// How long a peer may take to grant: slow links must not cost a primary, so a third of the lock's life.
    fn failsafe(self) -> Duration {
        (self.ttl / 3).max(Duration::from_millis(500))
    }
}

/// Questions that await the core's reply.
#[derive(Debug, Default)]
pub struct Waiting {
    next: std::sync::atomic::AtomicU64,
    asked: Mutex<BTreeMap<RequestId, oneshot::Sender<Reply>>>,
}

impl Waiting {
    /// A new question: its number, and where the reply will come.
    pub fn ask(&self) -> (RequestId, oneshot::Receiver<Reply>) {
        let id = RequestId(self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, sender| !sender.is_closed());
        asked.insert(id, sender);
        (id, receiver)
    }

    fn reply(&self, id: RequestId, reply: Reply) {
        let sender = self
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        if let Some(sender) = sender {
            // Whoever asked may have gone.
            let _ = sender.send(reply);
        }
    }
}

/// Starts orders and lets their completions come back as inputs.
pub struct Executor {
    tools: Arc<Tools>,
    news: mpsc::UnboundedSender<News>,
    running: BTreeMap<Lane, AbortHandle>,
}

impl Executor {
    /// An executor that reports to `news`.
    #[must_use]
    pub fn new(tools: Arc<Tools>, news: mpsc::UnboundedSender<News>) -> Self {
        Self {
            tools,
            news,
            running: BTreeMap::new(),
        }
    }

    /// Begins to carry `action` out. What is under way in its lane is abandoned: the core gives an order over another only to
    /// stop PostgreSQL.
    pub fn start(&mut self, action: Action) {
        let Action {
            id,
            generation,
            order,
        } = action;
        let lane = order.lane();
        match order {
            Order::Reply { request, ok, text } => self.tools.waiting.reply(request, Reply { ok, text }),
            Order::Exit { .. } => {
                let _ = self.news.send(News::Exit(order));
            }
            Order::AskPeers(addresses) => {
                self.ask_peers(addresses);
                self.finish(id, Outcome::Ok);
            }
            order => {
                if let Some(former) = self.running.remove(&lane) {
                    former.abort();
                }
                let (tools, news) = (Arc::clone(&self.tools), self.news.clone());
                let task = self.tools.machine.tasks.spawn(Box::pin(async move {
                    let outcome = tools.carry_out(generation, order, &news).await;
                    let _ = news.send(News::Input(Input::Done { id, outcome }));
                }));
                self.running.insert(lane, task);
            }
        }
    }

    fn finish(&self, id: ActionId, outcome: Outcome) {
        let _ = self.news.send(News::Input(Input::Done { id, outcome }));
    }

    fn ask_peers(&self, addresses: BTreeMap<NodeName, String>) {
        let limit = self.tools.limits().peer();
        for (name, url) in addresses {
            let (tools, news) = (Arc::clone(&self.tools), self.news.clone());
            self.tools.machine.tasks.spawn(Box::pin(async move {
                let asked = tools.machine.clock.now();
                let status = tools.peers.ask_status(&url, limit).await;
                let _ = news.send(News::Input(Input::Peer { name, asked, status }));
            }));
        }
    }
}

/// Says for people who may be elected now.
fn tell(key: Option<&SyncKey>) {
    match key {
        None => tracing::info!("the sync key is deleted: synchronous_mode is off"),
        Some(key) if key.voters.is_empty() => {
            tracing::info!(leader = %key.leader, "no standby is synchronous: nobody else may be elected");
        }
        Some(key) => {
            let standbys: Vec<&str> = key.voters.iter().map(NodeName::as_str).collect();
            tracing::info!(
                leader = %key.leader,
                standbys = standbys.join(","),
                quorum = key.quorum,
                "synchronous standbys, which may be elected"
            );
        }
    }
}

/// Tells routers, through etcd, that the primary is about to stop.
pub(super) struct Word(pub(super) Arc<Etcd>);

impl Herald for Word {
    fn stopping(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let said = self.0.announce_stop(Duration::from_secs(1)).await;
            if let Err(error) = &said {
                tracing::debug!(%error, "cannot announce the stop");
            }
            said.is_ok()
        })
    }
}

impl Tools {
    fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry_out(
        &self,
        generation: Generation,
        order: Order,
        news: &mpsc::UnboundedSender<News>,
    ) -> Outcome {
        match order.lane() {
            Lane::Lock => self.lock(order).await,
            Lane::Read => self.read(news).await,
            Lane::Publish => self.publish(order).await,
            Lane::Guard => match order {
                Order::SetDeadline(deadline) => match self.control.set_deadline(deadline, generation).await {
                    Ok(()) => Outcome::Ok,
                    Err(error) => Outcome::Failed(error.to_string()),
                },
                _ => Outcome::Failed("not an order for the guard".to_owned()),
            },
            Lane::Failsafe => match order {
                Order::AskFailsafe { voters, ttl } => self.ask_failsafe(voters, ttl).await,
                _ => Outcome::Failed("not a failsafe round".to_owned()),
            },
            Lane::Probe => {
                let outcome = self.postgres.execute(generation, &order).await;
                self.look_closer();
                outcome.unwrap_or_else(|| Outcome::Failed("not a look at PostgreSQL".to_owned()))
            }
            Lane::Postgres | Lane::Upkeep => self
                .postgres
                .execute(generation, &order)
                .await
                .unwrap_or_else(|| Outcome::Failed("not an order for PostgreSQL".to_owned())),
            Lane::Synchronous => self.synchronous(generation, order).await,
            Lane::Peers | Lane::Reply => Outcome::Ok,
        }
    }

    /// What people ask beyond what the core needs; the core does not wait for it.
    fn look_closer(&self) {
        let (postgres, publisher) = (Arc::clone(&self.postgres), Arc::clone(&self.publisher));
        self.machine.tasks.spawn(Box::pin(async move {
            if let Some(details) = postgres.details().await {
                publisher.observe(details);
            }
        }));
    }

    async fn lock(&self, order: Order) -> Outcome {
        let limit = self.limits().lock();
        let result = match order {
            Order::Acquire {
                ttl,
                grounds,
                seen,
                status,
            } => self.etcd.acquire(ttl, grounds, Some(seen), &status, limit).await,
            Order::Renew { ttl, seen, status } => self.etcd.renew(ttl, Some(seen), &status, limit).await,
            Order::Release { seen, status } => self.etcd.release(&status, Some(seen), limit).await,
            Order::EndReign { created, seen } => self.etcd.end_reign(created, seen, limit).await,
            _ => return Outcome::Failed("not an order about the lock".to_owned()),
        };
        result.map_or_else(Outcome::from, Outcome::from)
    }

    async fn read(&self, news: &mpsc::UnboundedSender<News>) -> Outcome {
        match self.etcd.read(self.limits().retry).await {
            Ok((sent, snapshot)) => {
                let view = snapshot.view.clone();
                let _ = news.send(News::Cluster {
                    at: sent,
                    snapshot: Arc::new(snapshot),
                    read: true,
                });
                Outcome::Read { sent, view }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot read etcd");
                error.into()
            }
        }
    }

    async fn publish(&self, order: Order) -> Outcome {
        let limit = self.limits().retry;
        let result = match order {
            Order::ClaimInitialize => self.etcd.claim_initialize(limit).await,
            Order::WriteInitialize {
                system_id,
                bootstrapped,
            } => self.etcd.write_initialize(system_id, bootstrapped, limit).await,
            Order::UnclaimInitialize => self.etcd.unclaim_initialize(limit).await,
            Order::WriteConfig => {
                let config = self.publisher.dynamic_configuration();
                self.etcd.write_config(&config, limit).await
            }
            Order::WriteMember(record) => {
                let ttl = record.ttl;
                let json = member_json(&record, &self.publisher.member_facts());
                self.etcd.write_member(&json, ttl, limit).await
            }
            Order::WriteHistory(lines) => self.etcd.write_history(&self.dated(lines), limit).await,
            Order::WriteFailsafe { seen, list } => self.etcd.write_failsafe(&list, seen, limit).await,
            Order::ClearFailover(revision) => self.etcd.clear_failover(revision, limit).await,
            _ => return Outcome::Failed("not an order to publish".to_owned()),
        };
        match result {
            Ok(()) => Outcome::Ok,
            Err(error) => {
                tracing::debug!(%error, "cannot write to etcd");
                error.into()
            }
        }
    }

    async fn synchronous(&self, generation: Generation, order: Order) -> Outcome {
        let limit = self.limits().retry;
        match order {
            Order::OpenGate => self.postgres.open_gate(limit, generation).await,
            Order::SetSynchronous { names } => {
                self.postgres
                    .set_synchronous(names.as_ref(), limit, generation)
                    .await
            }
            Order::WriteSync { seen, key } => match self.etcd.write_sync(key.as_ref(), seen, limit).await {
                Ok(revision) => {
                    tell(key.as_ref());
                    Outcome::Written { revision }
                }
                Err(error) => {
                    tracing::warn!(%error, "the sync key is not written");
                    error.into()
                }
            },
            _ => Outcome::Failed("not an order of synchronous replication".to_owned()),
        }
    }

    /// The newest line gets the present time, for people.
    fn dated(&self, mut lines: Vec<HistoryLine>) -> Vec<HistoryLine> {
        let now = super::facts::timestamp(self.machine.clock.as_ref());
        for line in &mut lines {
            if line.at.is_none() && line.leader.is_some() {
                line.at = now.map(|now| now.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string());
            }
        }
        lines
    }

    async fn ask_failsafe(&self, voters: BTreeMap<NodeName, String>, ttl: Duration) -> Outcome {
        let sent = self.machine.clock.now();
        let limit = self.limits().failsafe();
        let question = self.publisher.failsafe_question(ttl);
        let answers = futures_util::future::join_all(voters.iter().map(|(name, url)| {
            let question = &question;
            async move { (name.clone(), self.peers.ask_failsafe(url, question, limit).await) }
        }))
        .await;
        let mut granted = std::collections::BTreeSet::new();
        let mut refused = std::collections::BTreeSet::new();
        for (name, answer) in answers {
            match answer {
                Some(FailsafeReply::Granted { .. }) => granted.insert(name),
                Some(FailsafeReply::Refused(_)) => refused.insert(name),
                None => false,
            };
        }
        Outcome::Failsafe {
            sent,
            granted,
            refused,
        }
    }
}
