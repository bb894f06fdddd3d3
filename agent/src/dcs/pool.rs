//! All endpoints of etcd, and which of them to ask.
//!
//! - The endpoint that answered last is asked first; one that failed is asked last for a while.
//! - No endpoint may use up the time of an order: each attempt gets its share of what is left.
//! - When all have failed there is another round, until the deadline: a cluster that refuses connections gets as much patience
//!   as one that swallows them.
//! - An answer of an older raft term than this process has seen, or of another cluster, is no answer ([`Horizon`]).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use surus_core::types::MonoTime;

use super::endpoint::{Answer, Endpoint, Header, Request};
use super::fault::{DcsError, Failure, Kind};
use crate::clock::Clock;

/// How long a failed endpoint is asked last.
const AVOID_FOR: Duration = Duration::from_secs(5);
/// The least time an attempt gets if there is any choice. An etcd leader election takes longer, a healthy answer 100 times less.
const LEAST_SHARE: Duration = Duration::from_millis(300);
/// The most time an attempt gets in the first round; each later round doubles it, for an etcd that is merely slow.
const MOST_SHARE: Duration = Duration::from_secs(1);
/// Pause between rounds.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(100);
/// Remaining time that is not worth an attempt.
const TOO_LATE: Duration = Duration::from_millis(2);
/// When all answers have been older for so long, etcd was restored from a backup or created anew. Many times the default ttl:
/// rights counted under the lost cluster are over.
const BELIEVE_AFTER: Duration = Duration::from_secs(60);

/// An order under way: its deadline, and whether any of its requests may have been carried out without our knowing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) deadline: MonoTime,
    pub(super) ambiguous: bool,
}

impl Work {
    /// The verdict on an order that ended in `failure`.
    pub(super) fn error(self, failure: Failure) -> DcsError {
        if self.ambiguous {
            DcsError::Unknown(failure.text)
        } else {
            DcsError::Failed(failure.text)
        }
    }
}

/// The endpoints.
pub(super) struct Pool {
    endpoints: Vec<Slot>,
    /// The one that answered last.
    best: AtomicUsize,
    horizon: Mutex<Horizon>,
    clock: Arc<dyn Clock>,
}

struct Slot {
    endpoint: Endpoint,
    avoid_until: Mutex<MonoTime>,
}

impl Pool {
    pub(super) fn new(endpoints: Vec<Endpoint>, clock: Arc<dyn Clock>) -> Self {
        let slots = endpoints.into_iter().map(|endpoint| Slot {
            endpoint,
            avoid_until: Mutex::new(MonoTime::ZERO),
        });
        Self {
            endpoints: slots.collect(),
            best: AtomicUsize::new(0),
            horizon: Mutex::default(),
            clock,
        }
    }

    /// Begins an order that must end within `limit`.
    pub(super) fn work(&self, limit: Duration) -> Work {
        Work {
            deadline: self.clock.now().plus(limit),
            ambiguous: false,
        }
    }

    /// Puts `request` to one endpoint after the other until one answers, or the deadline comes. The request must be one that may
    /// be repeated: all of ours are reads, or transactions whose second execution changes nothing or shows the first.
    pub(super) async fn call(&self, work: &mut Work, request: &Request) -> Result<Answer, Failure> {
        let mut texts: Vec<String> = Vec::new();
        for round in 0_u32.. {
            let order = self.order();
            let mut denied = Vec::new();
            if round > 0 {
                texts.drain(..texts.len().saturating_sub(order.len()));
            }
            for (asked, &index) in order.iter().enumerate() {
                let Some(share) = self.share(*work, order.len() - asked, round) else {
                    texts.push("no time left".to_owned());
                    return Err(Failure::refused(texts.join("; ")));
                };
                // Boxed: the client library's futures are large; a function with forty orders in it overflowed its stack.
                let result = Box::pin(self.endpoints[index].endpoint.attempt(request, share)).await;
                let failure = match result {
                    Ok(answer) => match self.admit(&answer.header) {
                        Ok(()) => {
                            self.praise(index);
                            return Ok(answer);
                        }
                        Err(text) => {
                            Failure::ambiguous(format!("{}: {text}", self.endpoints[index].endpoint.at))
                        }
                    },
                    Err(failure) => failure,
                };
                work.ambiguous |= failure.maybe && request.writes();
                match failure.kind {
                    Kind::LeaseGone | Kind::NoSpace => return Err(failure),
                    Kind::Denied => denied.push(failure.clone()),
                    Kind::Elsewhere | Kind::Token => {}
                }
                tracing::debug!(endpoint = %self.endpoints[index].endpoint.at, reason = %failure.text, "etcd endpoint failed");
                self.avoid(index);
                texts.push(failure.text);
            }
            if denied.len() == order.len()
                && let Some(mut last) = denied.pop()
            {
                last.text = texts.join("; ");
                return Err(last);
            }
            tokio::time::sleep(BETWEEN_ROUNDS.min(work.deadline.since(self.clock.now()))).await;
        }
        unreachable!("a u32 of rounds takes 13 years")
    }

    /// The endpoint to ask first, for a watch.
    pub(super) fn first(&self) -> (usize, &Endpoint) {
        let index = self.order()[0];
        (index, &self.endpoints[index].endpoint)
    }

    /// Asks this endpoint last for a while.
    pub(super) fn avoid(&self, index: usize) {
        let until = self.clock.now().plus(AVOID_FOR);
        *self.endpoints[index]
            .avoid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether an answer with this header may be believed; if not, why.
    pub(super) fn admit(&self, header: &Header) -> Result<(), String> {
        let now = self.clock.now();
        self.horizon
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(header, now)
    }

    fn praise(&self, index: usize) {
        self.best.store(index, Ordering::Relaxed);
        *self.endpoints[index]
            .avoid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = MonoTime::ZERO;
    }

    /// The endpoints in the order to ask them: the best first, those that failed lately last.
    fn order(&self) -> Vec<usize> {
        let now = self.clock.now();
        let count = self.endpoints.len();
        let best = self.best.load(Ordering::Relaxed);
        let mut order: Vec<usize> = (0..count).map(|step| (best + step) % count).collect();
        order.sort_by_key(|&index| {
            let until = *self.endpoints[index]
                .avoid_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            until > now
        });
        order
    }

    /// The time for an attempt when `left` endpoints of this round are still to be asked; `None` if it is too late.
    fn share(&self, work: Work, left: usize, round: u32) -> Option<Duration> {
        let remaining = work.deadline.since(self.clock.now());
        if remaining < TOO_LATE {
            return None;
        }
        // A second try on a new connection is worth more than a longer wait, so the first round leaves time for it.
        let parts = if round == 0 { left.max(2) } else { left };
        let parts = u32::try_from(parts).unwrap_or(u32::MAX);
        let most = MOST_SHARE.saturating_mul(1 << round.min(10));
        Some((remaining / parts).max(LEAST_SHARE).min(most).min(remaining))
    }
}

/// The newest that this process knows of the cluster, by which older answers are told.
#[derive(Debug, Default)]
struct Horizon {
    /// Cluster id and raft term; `None` before the first answer.
    known: Option<(u64, u64)>,
    /// Since when no answer has matched it.
    doubted: Option<MonoTime>,
}

impl Horizon {
    fn admit(&mut self, header: &Header, now: MonoTime) -> Result<(), String> {
        if let Some((cluster, term)) = self.known {
            let complaint = if cluster != header.cluster {
                Some(format!(
                    "belongs to etcd cluster {:x}, not {cluster:x}",
                    header.cluster
                ))
            } else if header.term < term {
                Some(format!(
                    "is behind: raft term {}, but {term} was seen",
                    header.term
                ))
            } else {
                None
            };
            if let Some(complaint) = complaint {
                if now.since(*self.doubted.get_or_insert(now)) < BELIEVE_AFTER {
                    return Err(complaint);
                }
                tracing::warn!(
                    cluster = header.cluster,
                    term = header.term,
                    "etcd endpoint {complaint}; as no other endpoint has answered for long, it is believed now"
                );
            }
        }
        self.known = Some((header.cluster, header.term));
        self.doubted = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cluster: u64, term: u64) -> Header {
        Header {
            cluster,
            term,
            revision: 1,
        }
    }

    #[test]
    fn older_terms_and_other_clusters_are_refused() {
        let mut horizon = Horizon::default();
        let now = MonoTime::from_millis(1000);
        assert!(horizon.admit(&header(1, 7), now).is_ok());
        assert!(horizon.admit(&header(1, 6), now).is_err());
        assert!(horizon.admit(&header(2, 9), now).is_err());
        assert!(horizon.admit(&header(1, 8), now).is_ok());
        assert!(horizon.admit(&header(1, 7), now).is_err());
    }

    #[test]
    fn a_restored_cluster_is_believed_once_the_old_one_is_long_gone() {
        let mut horizon = Horizon::default();
        let mut admit = |term, millis| {
            horizon
                .admit(&header(1, term), MonoTime::from_millis(millis))
                .is_ok()
        };
        assert!(admit(70, 0));
        // However long nothing was asked, the first older answer is refused.
        assert!(!admit(2, 100_000));
        assert!(!admit(2, 159_999));
        assert!(admit(2, 160_000));
        assert!(admit(70, 160_001));
        assert!(!admit(2, 900_000));
        assert!(admit(70, 959_000));
        assert!(!admit(2, 961_000));
    }
}
