//! Following the cluster's keys: a linearizable read, then a watch from the revision after it.
//!
//! A watch is a hint, never a proof: nothing is promoted or renewed on the strength of it. But it must not freeze:
//! - a watch that ends, breaks, or is cancelled (also without the stream being closed) is taken up again where it was;
//! - after a compaction, or a cancellation for any other reason, everything is read anew;
//! - a stream that is silent is asked for its progress, and left for another endpoint if it stays silent. The revision in such an
//!   answer is not used to resume from: etcd 3.4 and 3.5 may name one whose events it has not sent yet;
//! - an endpoint whose raft term is behind is left.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchResponse, WatchStream};
use tokio::sync::watch;

use super::Etcd;
use super::endpoint::{Header, raw_key};
use super::snapshot::{RawCluster, Snapshot};

/// Silence after which an endpoint is asked for its progress, and again after which it is left.
const SILENCE: Duration = Duration::from_secs(1);
/// For the read, which may try several endpoints.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// For opening the stream.
const OPEN_LIMIT: Duration = Duration::from_secs(1);
/// Pause after a failure, unless the stream had worked until then.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a stream was left.
enum Left {
    /// Nobody listens any more.
    Closed,
    /// Go on from the same revision, elsewhere.
    Resume(String),
    /// What is between is lost.
    Reread {
        /// Because of a compaction.
        compacted: bool,
        /// In words.
        reason: String,
    },
}

impl Etcd {
    /// Publishes each new state of the cluster's keys, the latest replacing those before, until all receivers are gone.
    /// `None` is never sent: it is the channel's value before the first state.
    pub async fn watch(&self, states: watch::Sender<Option<Arc<Snapshot>>>) {
        let mut known: Option<RawCluster> = None;
        while !states.is_closed() {
            let mut raw = match known.take() {
                Some(raw) => raw,
                None => match self.read(READ_LIMIT).await {
                    Ok((_, snapshot)) => {
                        let raw = snapshot.raw.clone();
                        states.send_replace(Some(Arc::new(snapshot)));
                        raw
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot read the cluster's keys");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let (index, endpoint) = self.pool.first();
            let mut worked = false;
            let left = match endpoint.watch(&self.prefix, raw.revision + 1, OPEN_LIMIT).await {
                Ok(stream) => self.follow(stream, &mut raw, &states, &mut worked).await,
                Err(failure) => Left::Resume(failure.text),
            };
            let reason = match left {
                Left::Closed => return,
                Left::Resume(reason) => {
                    known = Some(raw);
                    self.pool.avoid(index);
                    endpoint.discard();
                    reason
                }
                Left::Reread { compacted, reason } => {
                    // A token that has run out shows in no other way.
                    if !compacted {
                        endpoint.discard();
                    }
                    reason
                }
            };
            tracing::debug!(endpoint = %endpoint.at, reason, "left a watch");
            if !worked {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Applies what `stream` says until it is to be left.
    async fn follow(
        &self,
        mut stream: WatchStream,
        raw: &mut RawCluster,
        states: &watch::Sender<Option<Arc<Snapshot>>>,
        worked: &mut bool,
    ) -> Left {
        let mut asked = false;
        loop {
            let message = tokio::select! {
                biased;
                () = states.closed() => return Left::Closed,
                message = tokio::time::timeout(SILENCE, stream.message()) => message,
            };
            let response = match message {
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None)) => return Left::Resume("the stream ended".to_owned()),
                Ok(Err(error)) => return Left::Resume(error.to_string()),
                Err(_) if asked => return Left::Resume("silent".to_owned()),
                Err(_) => {
                    asked = true;
                    if let Err(error) = stream.request_progress().await {
                        return Left::Resume(error.to_string());
                    }
                    continue;
                }
            };
            asked = false;
            if response.canceled() {
                let compacted = response.compact_revision();
                return Left::Reread {
                    compacted: compacted > 0,
                    reason: format!(
                        "cancelled at revision {}, compacted up to {compacted}: {}",
                        raw.revision,
                        response.cancel_reason()
                    ),
                };
            }
            match Header::read(response.header()) {
                Ok(header) => {
                    if let Err(text) = self.pool.admit(&header) {
                        return Left::Resume(text);
                    }
                    raw.term = header.term;
                }
                Err(error) => return Left::Resume(error.to_string()),
            }
            *worked = true;
            if apply(raw, &self.prefix, &response) {
                states.send_replace(Some(Arc::new(self.snapshot(raw.clone()))));
            }
        }
    }
}

/// Applies the events that are newer than `raw`; whether there were any.
fn apply(raw: &mut RawCluster, prefix: &str, response: &WatchResponse) -> bool {
    let before = raw.revision;
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        if kv.mod_revision() <= before {
            continue;
        }
        raw.revision = raw.revision.max(kv.mod_revision());
        let name = String::from_utf8_lossy(kv.key());
        let Some(name) = name.strip_prefix(prefix) else {
            continue;
        };
        match event.event_type() {
            EventType::Put => drop(raw.keys.insert(name.to_owned(), raw_key(kv))),
            EventType::Delete => drop(raw.keys.remove(name)),
        }
    }
    raw.revision > before
}
