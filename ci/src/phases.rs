//! Where the time of a failover went: by the leader key, watched from beside, and by the first writes that came through.
//!
//! Every member of etcd is asked to tell of the key, and whichever tells first is believed: looking again and again costs the members,
//! on a machine that is measured, several times what the agents ask of them.
//!
//! ```text
//!   fault ──detect──► lock free ──race──► lock taken ──promote──► first write ──route──► the client writes
//! ```

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::gateway;
use crate::layout::{Layout, MEMBERS};
use crate::lock;

/// How long a member that does not answer is left alone.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a member may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// `/db/demo/leader`, as etcd's gateway wants it.
const KEY: &str = "L2RiL2RlbW8vbGVhZGVy";

/// Who holds the lock, and since when it has been seen.
type Holder = (Instant, Option<String>);

/// Watches the leader key until it is dropped.
#[derive(Debug)]
pub(crate) struct Keys {
    seen: Arc<Mutex<Seen>>,
    watches: Vec<JoinHandle<()>>,
}

/// What the members told, each change once.
#[derive(Debug, Default)]
struct Seen {
    /// The newest of etcd's revisions that is told of.
    revision: u64,
    holders: Vec<Holder>,
}

impl Seen {
    /// A member tells that `holder` holds the key as of `revision`.
    fn tell(&mut self, at: Instant, revision: u64, holder: Option<String>) {
        if revision <= self.revision {
            return;
        }
        self.revision = revision;
        if self.holders.last().is_none_or(|(_, last)| *last != holder) {
            self.holders.push((at, holder));
        }
    }
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
    /// Starts to watch.
    pub(crate) fn watch(layout: &Layout) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watch = |i| tokio::spawn(follow(layout.etcd_client(i), Arc::clone(&seen)));
        let watches = (0..MEMBERS).map(watch).collect();
        Self { seen, watches }
    }

    /// The parts of a failover that a fault at `at` began, and that was over with the first write at `first`.
    pub(crate) fn phases(&self, at: Instant, first: Instant) -> Option<Phases> {
        phases(&lock(&self.seen).holders, at, first)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
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

/// Lets the member at `at` tell of the key, again and again.
async fn follow(at: SocketAddrV4, seen: Arc<Mutex<Seen>>) {
    loop {
        // Why it ended does not matter: the other members tell as well.
        let _ = told(at, &seen).await;
        sleep(PAUSE).await;
    }
}

/// What the member at `at` holds now, and what it hears of from then on, until it ends.
async fn told(at: SocketAddrV4, seen: &Mutex<Seen>) -> Result<(), String> {
    let answer = gateway::post(at, "/v3/kv/range", &json!({ "key": KEY }), ANSWER).await?;
    let revision = gateway::number(answer["header"].get("revision"));
    lock(seen).tell(Instant::now(), revision, holder(&answer["kvs"][0]));
    let mut watch = gateway::Watch::open(at, KEY, revision + 1, ANSWER).await?;
    loop {
        for event in watch.next().await? {
            let revision = gateway::number(event["kv"].get("mod_revision"));
            lock(seen).tell(Instant::now(), revision, holder(&event["kv"]));
        }
    }
}

/// The holder, as etcd's gateway writes it, and that it is base64 does not matter here; a key that is gone has no value.
fn holder(kv: &Value) -> Option<String> {
    kv["value"].as_str().map(str::to_owned)
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
    fn a_change_counts_when_the_first_member_tells_of_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let held = |value: &str| holder(&json!({"key": "L2Ri", "value": value, "mod_revision": "7"}));
        let gone = || holder(&json!({"key": "L2Ri", "mod_revision": "8"}));
        let mut seen = Seen::default();
        for (ms, revision, holder) in [
            (0, 7, held("c3VydXMx")),
            (1, 7, held("c3VydXMx")),
            (50, 8, gone()),
            // The second member tells of the same, and a third is behind.
            (52, 8, gone()),
            (53, 7, held("c3VydXMx")),
            (60, 9, held("c3VydXMy")),
            // A renewal, or another's write.
            (70, 12, held("c3VydXMy")),
        ] {
            seen.tell(at(ms), revision, holder);
        }
        let expected = [(0, Some("c3VydXMx")), (50, None), (60, Some("c3VydXMy"))];
        let expected = expected.map(|(ms, holder)| (at(ms), holder.map(str::to_owned)));
        assert_eq!(seen.holders, expected);
    }
}
