//! Where the time of a failover went: by the leader key, looked at from beside, and by the first writes that came through.
//!
//! ```text
//!   fault ──detect──► lock free ──race──► lock taken ──promote──► first write ──route──► the client writes
//! ```

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::gateway;
use crate::layout::{Layout, MEMBERS};

/// How often the key is looked at.
const PACE: Duration = Duration::from_millis(10);

/// `/db/demo/leader`, as etcd's gateway wants it.
const KEY: &str = "L2RiL2RlbW8vbGVhZGVy";

/// Who holds the lock, and since when it has been seen.
type Holder = (Instant, Option<String>);

/// Looks at the leader key until it is dropped.
#[derive(Debug)]
pub(crate) struct Keys {
    seen: Arc<Mutex<Vec<Holder>>>,
    task: JoinHandle<()>,
}

/// How long each part took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phases {
    /// From the fault to a lock that is free, or another's.
    pub(crate) detect: Duration,
    /// From there to another's lock.
    pub(crate) race: Duration,
    /// From there to the first write that the new primary acknowledges to anybody.
    pub(crate) promote: Duration,
}

impl Phases {
    /// For machines.
    pub(crate) fn json(&self) -> Value {
        json!({"detect_s": self.detect.as_secs_f64(), "race_s": self.race.as_secs_f64(), "promote_s": self.promote.as_secs_f64()})
    }
}

impl Keys {
    /// Starts to look.
    pub(crate) fn watch(layout: &Layout) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (shared, members) = (
            Arc::clone(&seen),
            (0..MEMBERS).map(|i| layout.etcd_client(i)).collect(),
        );
        Self {
            seen,
            task: tokio::spawn(look(members, shared)),
        }
    }

    /// The parts of a failover that a fault at `at` began, and that was over with the first write at `first`.
    pub(crate) fn phases(&self, at: Instant, first: Instant) -> Option<Phases> {
        phases(
            &self.seen.lock().unwrap_or_else(PoisonError::into_inner),
            at,
            first,
        )
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn phases(seen: &[Holder], at: Instant, first: Instant) -> Option<Phases> {
    let before = seen.iter().rev().find(|(when, _)| *when <= at)?.1.clone()?;
    let after = || seen.iter().filter(|(when, _)| at < *when);
    let (free, _) = after().find(|(_, holder)| holder.as_ref() != Some(&before))?;
    let (taken, _) = after().find(|(_, holder)| holder.as_ref().is_some_and(|holder| *holder != before))?;
    Some(Phases {
        detect: *free - at,
        race: *taken - *free,
        // Seen a little later than it was.
        promote: first.saturating_duration_since(*taken),
    })
}

async fn look(members: Vec<SocketAddrV4>, seen: Arc<Mutex<Vec<Holder>>>) {
    let body = json!({ "key": KEY });
    let mut turn = 0;
    loop {
        let at = members[turn % members.len()];
        match gateway::post(at, "/v3/kv/range", &body, Duration::from_millis(500)).await {
            Ok(answer) => {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let holder = holder(&answer);
                if seen.last().is_none_or(|(_, last)| *last != holder) {
                    seen.push((Instant::now(), holder));
                }
            }
            // Another member may know.
            Err(_) => turn += 1,
        }
        sleep(PACE).await;
    }
}

/// The holder, as etcd's gateway writes it; that it is base64 does not matter here.
fn holder(answer: &Value) -> Option<String> {
    let value = answer.get("kvs")?.get(0)?.get("value")?.as_str()?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_the_first_write() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (one, two) = (Some("one".to_owned()), Some("two".to_owned()));
        let seen = [(at(0), one.clone()), (at(5100), None), (at(5110), two.clone())];
        let found = phases(&seen, at(100), at(5160)).unwrap();
        let millis = [found.detect, found.race, found.promote].map(|part| part.as_millis());
        assert_eq!(millis, [5000, 10, 50]);
        assert_eq!(
            phases(&[(at(0), one.clone())], at(100), at(200)),
            None,
            "nobody else led"
        );
        // A lock that changes hands between two looks.
        let at_once = phases(&[(at(0), one), (at(300), two)], at(100), at(320)).unwrap();
        assert_eq!(at_once.race, Duration::ZERO);
    }

    #[test]
    fn the_holder_is_what_the_key_holds() {
        assert_eq!(
            holder(&json!({"kvs": [{"key": "L2Ri", "value": "c3VydXMx"}], "count": "1"})).as_deref(),
            Some("c3VydXMx")
        );
        assert_eq!(holder(&json!({"header": {}})), None);
    }
}
