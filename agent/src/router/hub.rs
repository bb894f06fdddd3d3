//! The table and those who live by it: sessions tell it what happens to them, and get its orders.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use surus_core::types::MonoTime;
use tokio::sync::{Notify, mpsc};

use super::cluster::Cluster;
use super::table::{Backend, Door, Input, Order, Rules, SessionId, Table};
use super::target::Target;
use crate::clock::Clock;

/// Bytes that were passed on, by door.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// From clients.
    pub(super) sent: AtomicU64,
    /// To clients.
    pub(super) received: AtomicU64,
}

/// See the module.
pub(super) struct Hub {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    turn: Notify,
    next: AtomicU64,
    /// When the keys were last known to be current; zero: never.
    fresh: AtomicU64,
    /// Of the primary's door and of the replicas'.
    traffic: [Traffic; 2],
}

struct Inner {
    table: Table,
    mailboxes: BTreeMap<SessionId, mpsc::UnboundedSender<Order>>,
    /// Which member a session runs on, by its key for cancelling.
    keys: BTreeMap<Vec<u8>, Backend>,
    said: Option<Target>,
}

impl Hub {
    pub(super) fn new(rules: Rules, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            inner: Mutex::new(Inner {
                table: Table::new(rules),
                mailboxes: BTreeMap::new(),
                keys: BTreeMap::new(),
                said: None,
            }),
            turn: Notify::new(),
            next: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            traffic: Default::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the table.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Table, MonoTime) -> T) -> T {
        let now = self.clock.now();
        look(&self.lock().table, now)
    }

    pub(super) fn traffic(&self, door: Door) -> &Traffic {
        match door {
            Door::Primary => &self.traffic[0],
            Door::Replicas => &self.traffic[1],
        }
    }

    /// The keys were current at `at`.
    pub(super) fn confirm(&self, at: MonoTime) {
        self.fresh.fetch_max(at.0, Ordering::Relaxed);
    }

    /// For how long nothing has been heard of etcd; `None` if it never was.
    pub(super) fn age(&self) -> Option<std::time::Duration> {
        match self.fresh.load(Ordering::Relaxed) {
            0 => None,
            at => Some(self.clock.now().since(MonoTime(at))),
        }
    }

    /// Takes in the cluster's new state.
    pub(super) fn view(&self, cluster: Cluster) {
        let mut inner = self.lock();
        self.step(&mut inner, Input::View(cluster));
        let target = inner.table.target(self.clock.now(), Door::Primary);
        if inner.said.as_ref() == Some(&target) {
            return;
        }
        match &target {
            Target::To(backend) => tracing::info!(member = backend.name, at = %backend.at, "the primary"),
            Target::Try(backend) => tracing::warn!(
                member = backend.name,
                at = %backend.at,
                "the primary is not known to take connections; trying it"
            ),
            Target::Wait(why) => tracing::warn!("no primary: {}; its clients wait", why.text()),
        }
        inner.said = Some(target);
    }

    /// Takes in a new session.
    pub(super) fn arrive(self: &Arc<Self>, door: Door, plain: bool) -> Session {
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, orders) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        inner.mailboxes.insert(id, sender);
        self.step(&mut inner, Input::Arrived { id, door, plain });
        drop(inner);
        Session {
            hub: Arc::clone(self),
            id,
            orders,
            key: None,
        }
    }

    /// Where a request to cancel goes.
    pub(super) fn runs_on(&self, key: &[u8], door: Door) -> Vec<Backend> {
        let inner = self.lock();
        match inner.keys.get(key) {
            Some(backend) => vec![backend.clone()],
            None => inner.table.everybody(door),
        }
    }

    fn step(&self, inner: &mut Inner, input: Input) {
        let before = inner.table.wake();
        for order in inner.table.step(self.clock.now(), input) {
            let (Order::Connect(id, _) | Order::Wait(id) | Order::Reset(id) | Order::Refuse(id, _)) = &order;
            if let Some(mailbox) = inner.mailboxes.get(id) {
                // A session that is ending does not read its orders any more.
                let _ = mailbox.send(order);
            }
        }
        if inner.table.wake() != before {
            self.turn.notify_one();
        }
    }

    /// Tells the table when time has passed that it waits for.
    pub(super) async fn keep_time(&self) {
        loop {
            let wake = self.lock().table.wake();
            tokio::select! { biased;
                () = self.turn.notified() => {}
                () = self.clock.sleep_until(wake.unwrap_or(MonoTime::NEVER)), if wake.is_some() => {
                    self.step(&mut self.lock(), Input::Tick);
                }
            }
        }
    }
}

/// A session's place in the table; it leaves when dropped.
pub(super) struct Session {
    hub: Arc<Hub>,
    id: SessionId,
    orders: mpsc::UnboundedReceiver<Order>,
    key: Option<Vec<u8>>,
}

impl Session {
    /// The next order. Cancel safe.
    pub(super) async fn order(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            // The hub is held by this session, and so is its mailbox.
            None => std::future::pending().await,
        }
    }

    /// Its number.
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// The member did not take it.
    pub(super) fn failed(&self, backend: &Backend) {
        self.hub
            .step(&mut self.hub.lock(), Input::Failed(self.id, backend.name.clone()));
    }

    /// The member took it. Returns false if it is not to have it any more.
    #[must_use]
    pub(super) fn opened(&self, backend: &Backend) -> bool {
        let mut inner = self.hub.lock();
        self.hub
            .step(&mut inner, Input::Opened(self.id, backend.name.clone()));
        inner.table.holds(self.id, &backend.name)
    }

    /// Its statements are cancelled with this key, at `backend`.
    pub(super) fn has_key(&mut self, key: Vec<u8>, backend: &Backend) {
        self.hub.lock().keys.insert(key.clone(), backend.clone());
        self.key = Some(key);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut inner = self.hub.lock();
        inner.mailboxes.remove(&self.id);
        if let Some(key) = &self.key {
            inner.keys.remove(key);
        }
        self.hub.step(&mut inner, Input::Left(self.id));
    }
}
