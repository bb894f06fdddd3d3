//! The doors: taking connections in, each served by a task of its own.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::proxy::Ends;
use super::session::Desk;
use super::table::Door;
use crate::config::settings::HostPort;
use crate::net::Listener;
use crate::task::Spawn;

/// Connections beyond `max_connections` that may be open for a moment: clients that have not said what they want, requests to cancel,
/// and those that are being told that there are too many.
pub(super) const MARGIN: usize = 256;
/// After a connection could not be accepted, which is for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(20);

/// A place where clients come in.
pub(super) struct Entrance {
    pub(super) door: Door,
    pub(super) listener: Box<dyn Listener>,
    /// What it listens on, for the header of the PROXY protocol.
    pub(super) at: HostPort,
    pub(super) desk: Arc<Desk>,
    /// Room for connections at all doors.
    pub(super) room: Arc<Semaphore>,
    pub(super) tasks: Arc<dyn Spawn>,
    /// Connections that were closed at once for want of room.
    pub(super) dropped: Arc<AtomicU64>,
}

impl Entrance {
    /// Takes clients in until the future is dropped.
    pub(super) async fn serve(mut self) {
        let host = self.at.host.parse().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let server = SocketAddr::new(host, self.at.port);
        loop {
            let (stream, client) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, door = self.door.name(), "the router cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let (desk, door) = (Arc::clone(&self.desk), self.door);
            self.tasks.spawn(Box::pin(async move {
                desk.serve(door, stream, Ends { client, server }).await;
                drop(permit);
            }));
        }
    }
}
