//! The router: TCP doors that lead to the primary and to the replicas, wherever they are.
//!
//! ```text
//!   etcd ─ watch, reads ─► follow ─► Cluster ─┐
//!                                             ▼
//!   clients ─► door ─► session ◄─ orders ── Table (no IO) ─► status: /, /metrics
//!                        │  └─── what happened ──▲
//!                        ▼
//!                     servers
//! ```
//!
//! What it guarantees, beyond passing bytes:
//!
//! - **A client is not refused because the primary moves.** It waits, bounded in time and number, and is connected when there is a primary.
//!   A server that does not take a session (refuses, is silent, starts, stops) is not shown to the client as long as the client knows
//!   nothing of it.
//! - **Nobody stays with a deposed primary.** Its sessions are ended with the view that shows another leader.
//! - **etcd that is away moves nobody.** Routing goes on by what was last known, and says so.
//! - **No client can take more than its share**: connections, waiting places and every phase before a session have limits.
//!
//! Map: [`table`] the decisions, with [`target`] (who is to have the clients) and [`figures`] (counts) · [`cluster`] what etcd's keys say ·
//! `follow` keeping that current · `hub` the table among tasks · `door`, `session`, `relay` connections · `wire` PostgreSQL's protocol as
//! far as needed, `proxy` the PROXY protocol, [`socket`] TCP's own limits · `status` the HTTP endpoint · [`command`] `surus router`.
//!
//! It runs as a process of its own on an application's host, or in an agent that has a `router` section; there it has a thread of its own,
//! so that no traffic holds up the agent.

pub mod cluster;
pub mod command;
mod door;
pub mod figures;
mod follow;
mod hub;
mod proxy;
mod relay;
mod session;
pub mod socket;
mod status;
pub mod table;
pub mod target;
mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::chain::chain;
use crate::clock::Clock;
use crate::config::settings::{Etcd as EtcdSettings, HostPort, Router as Settings};
use crate::dcs::Etcd;
use crate::machine::Machine;
use crate::net::{Dial, Listener, Network};
use crate::task::{self, BoxFuture, Spawn};
use door::{Entrance, MARGIN};
use hub::Hub;
use session::Desk;
use status::Status;
use table::{Door, Rules};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// For a client to say what it wants; PostgreSQL gives it a minute.
const GREETING: Duration = Duration::from_secs(10);

/// Which cluster is routed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Key prefix, without slashes at its ends.
    pub namespace: String,
    /// Its name.
    pub scope: String,
    /// Where its keys are.
    pub etcd: EtcdSettings,
}

/// The world that a router stands in.
#[derive(Clone)]
pub struct World {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Clients and servers.
    pub net: Arc<dyn Network>,
    /// etcd.
    pub dial: Arc<dyn Dial>,
    /// Where its tasks run.
    pub tasks: Arc<dyn Spawn>,
}

/// Opens the doors and serves them until the future is dropped, which ends all sessions.
///
/// # Errors
/// For people: an address cannot be listened on, or the settings of etcd cannot be used.
pub async fn run(cluster: Scope, settings: Settings, world: World) -> Result<(), String> {
    let (tasks, _hold) = task::Group::new(world.tasks);
    let spawn: Arc<dyn Spawn> = tasks;
    let machine = Machine {
        clock: Arc::clone(&world.clock),
        dial: world.dial,
        tasks: Arc::clone(&spawn),
    };
    let prefix = format!("/{}/{}/", cluster.namespace, cluster.scope);
    // It never takes the lock or writes a key, so its name is nobody's.
    let etcd = Etcd::new(&cluster.etcd, &prefix, "", machine)
        .map(Arc::new)
        .map_err(|error| format!("error: {}", chain(&error)))?;
    let hub = Hub::new(rules(&settings), Arc::clone(&world.clock));
    let dial: Arc<dyn Dial> = world.net.clone();
    let desk = Arc::new(Desk {
        hub: Arc::clone(&hub),
        dial,
        connect_timeout: settings.connect_timeout,
        greeting_timeout: GREETING,
        idle_timeout: settings.idle_timeout,
        send_proxy: settings.send_proxy,
        accept_proxy: settings.accept_proxy.clone(),
    });
    let room = Arc::new(Semaphore::new(settings.max_connections + MARGIN));
    let dropped = Arc::new(AtomicU64::new(0));
    let mut parts: Vec<BoxFuture<'static, ()>> = Vec::new();
    let mut doors = Vec::new();
    for (door, key, at) in [
        (Door::Primary, "primary", &settings.primary),
        (Door::Replicas, "replicas", &settings.replicas),
    ] {
        let Some(at) = at else { continue };
        let entrance = Entrance {
            door,
            listener: listen(world.net.as_ref(), key, at).await?,
            at: at.clone(),
            desk: Arc::clone(&desk),
            room: Arc::clone(&room),
            tasks: Arc::clone(&spawn),
            dropped: Arc::clone(&dropped),
        };
        parts.push(Box::pin(entrance.serve()));
        doors.push(door);
    }
    if let Some(at) = &settings.status {
        let listener = listen(world.net.as_ref(), "status", at).await?;
        let status = Arc::new(Status {
            hub: Arc::clone(&hub),
            doors,
            scope: cluster.scope.clone(),
            dropped,
        });
        parts.push(Box::pin(status::serve(status, listener, Arc::clone(&spawn))));
    }
    parts.push(Box::pin(follow::follow(
        Arc::clone(&hub),
        etcd,
        world.clock,
        settings.use_pooler,
    )));
    parts.push(Box::pin(async move { hub.keep_time().await }));
    let text = |at: &Option<HostPort>| at.as_ref().map_or_else(|| "-".to_owned(), HostPort::to_string);
    tracing::info!(
        scope = cluster.scope,
        primary = text(&settings.primary),
        replicas = text(&settings.replicas),
        status = text(&settings.status),
        "the router is open"
    );
    for part in parts {
        spawn.spawn(part);
    }
    std::future::pending().await
}

fn rules(settings: &Settings) -> Rules {
    Rules {
        hold: settings.hold,
        max_waiting: settings.max_waiting,
        max_connections: settings.max_connections,
        maximum_lag: settings.maximum_lag,
        fall_back: settings.fall_back,
    }
}

async fn listen(net: &dyn Network, key: &str, at: &HostPort) -> Result<Box<dyn Listener>, String> {
    net.listen(&at.host, at.port, BACKLOG).await.map_err(|error| {
        format!(
            "error: router.{key}: cannot listen on {at}: {error}\n\nhint: `ss -ltnp` tells who has the port, `ip address` which addresses are this host's"
        )
    })
}

#[cfg(test)]
mod tests;
